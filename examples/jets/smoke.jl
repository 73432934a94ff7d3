# What is run on a finished image: the table and the histograms of some events. It must compile nothing.
using JetAnalysis

exit(JetAnalysis.main(["--max-events", "20", joinpath(@__DIR__, "data", "events.hepmc3")]))
