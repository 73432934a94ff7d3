# Counts what a job costs to compile: nanoseconds, and bytes of new machine code. Included by what uses it.
# Jobs may call exit, so a hook tells, after all hooks of the job; of several lines the last one counts. It tells the
# file that HEADSTART_COUNTED names, else standard error. What counting itself compiles is compiled before it counts.
module HeadstartCounters

cost() = (Base.cumulative_compile_time_ns()[1], UInt64(ccall(:jl_jit_total_bytes, Csize_t, ())))

mutable struct Report <: Function
    before::Tuple{UInt64,UInt64}
    file::String
end

function (report::Report)()
    now = cost()
    line = string("headstart-compiled: ", now[1] - report.before[1], " ", now[2] - report.before[2])
    if isempty(report.file)
        ccall(:jl_safe_printf, Cvoid, (Cstring, Cstring...), "%s\n", line)
    else
        write(report.file, line)
    end
    return nothing
end

function start()
    # What the job starts is not counted, and must not write there.
    report = Report(cost(), pop!(ENV, "HEADSTART_COUNTED", ""))
    report()  # compiles what the hook will run
    atexit(report)
    report.before = cost()
    return nothing
end

function run(words)
    start()
    words[1] == "-e" ? Base.include_string(Main, words[2]) : Base.include(Main, words[1])
    return nothing
end

end

Base.cumulative_compile_timing(true)
