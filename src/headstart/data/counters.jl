# Runs a script and prints, at exit, what it cost to compile.
# Arguments: the script's path, or -e and its text.
include(joinpath(@__DIR__, "count.jl"))
HeadstartCounters.run(ARGS)
