# The application on stock Julia:
#     julia --project=examples/jets examples/jets/jets.jl [options] FILE
#
# All packages are named, leaf first. Julia needs only the last; but Debian's build of 1.5.3 crashes
# when precompiling a package makes it precompile another.
using FourMomenta, HepMCAscii, JetClustering, JetHistograms, JetAnalysis

exit(JetAnalysis.main(ARGS))
