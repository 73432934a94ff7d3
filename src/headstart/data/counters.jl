# Runs a script and prints what it cost to compile: nanoseconds, and bytes of new machine code.
# Argument: the script; without one the numbers are those of this file itself.
Base.cumulative_compile_timing(true)
isempty(ARGS) || include(ARGS[1])
let spent = Base.cumulative_compile_time_ns(), bytes = ccall(:jl_jit_total_bytes, Csize_t, ())
    ccall(:jl_safe_printf, Cvoid, (Cstring, Cstring...), "headstart-compiled: %s\n", string(spent[1], " ", bytes))
end
