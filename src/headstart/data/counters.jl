# Runs a script and prints, at exit, what it cost to compile: nanoseconds, and bytes of new machine code.
# Arguments: the script's path, or -e and its text. What counting itself compiles is compiled before it counts.
# Scripts may call exit, so a hook prints the figures; of several lines the last one counts.
module HeadstartCounters

cost() = (Base.cumulative_compile_time_ns()[1], UInt64(ccall(:jl_jit_total_bytes, Csize_t, ())))

mutable struct Report <: Function
    before::Tuple{UInt64,UInt64}
end

function (report::Report)()
    now = cost()
    ccall(:jl_safe_printf, Cvoid, (Cstring, Cstring...), "%s\n",
        string("headstart-compiled: ", now[1] - report.before[1], " ", now[2] - report.before[2]))
    return nothing
end

function run(words)
    report = Report(cost())
    report()  # compiles what the hook will run
    atexit(report)
    report.before = cost()
    words[1] == "-e" ? Base.include_string(Main, words[2]) : Base.include(Main, words[1])
    return nothing
end

end

Base.cumulative_compile_timing(true)
HeadstartCounters.run(ARGS)
