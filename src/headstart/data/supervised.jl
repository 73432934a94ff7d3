# Loaded before a supervised job (-L): notes, at exit, what it cost to compile.
include(joinpath(@__DIR__, "count.jl"))
HeadstartCounters.start()
