# Writes the events that ship with the example:
#     julia --project=examples/jets examples/jets/generate.jl examples/jets/data/events.hepmc3
using FourMomenta, HepMCAscii, JetClustering, JetHistograms, JetAnalysis

function generate(path)
    events = toy_events(200; seed=20240607)
    open(io -> write_events(io, events), path, "w")
end

generate(only(ARGS))
