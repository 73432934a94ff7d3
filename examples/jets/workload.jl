# What is run while a release is built: the application as users start it, with all its options. The
# methods it compiles go into the image.
using FourMomenta, HepMCAscii, JetClustering, JetHistograms, JetAnalysis

exit(JetAnalysis.rehearse(joinpath(@__DIR__, "data", "events.hepmc3")))
