"""
    JetAnalysis

The application: reads e+e- events, clusters them into jets, prints a table and histograms. Start it
with [`main`](@ref).
"""
module JetAnalysis

using FourMomenta
using HepMCAscii
using JetClustering
using JetHistograms

export toy_events

include("options.jl")
include("selection.jl")
include("tables.jl")
include("scan.jl")
include("json.jl")
include("toy.jl")
include("application.jl")
include("rehearsal.jl")

end
