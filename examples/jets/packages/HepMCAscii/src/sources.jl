"""
    open_events(f, [T=Float64,] path)

Call `f` with the [`EventStream`](@ref) of a file and return its answer. A name that ends in `.gz`
is read through an external `gzip -dc`. Throws [`HepMCError`](@ref), also when there is no such
file or `gzip` fails.
"""
function open_events(f, ::Type{T}, path::AbstractString) where {T<:AbstractFloat}
    isfile(path) || throw(HepMCError(path, 0, "no such file"))
    return endswith(path, ".gz") ? open_gzip(f, T, path) : open_plain(f, T, path)
end
open_events(f, path::AbstractString) = open_events(f, Float64, path)

function open_plain(f, ::Type{T}, path::AbstractString) where {T}
    io = try
        open(path)
    catch e
        e isa SystemError || rethrow()
        throw(HepMCError(path, 0, "cannot be read: $(Libc.strerror(e.errnum))"))
    end
    try
        return f(each_event(T, io; source=path))
    finally
        close(io)
    end
end

function open_gzip(f, ::Type{T}, path::AbstractString) where {T}
    gzip = Sys.which("gzip")
    gzip === nothing &&
        throw(HepMCError(path, 0, "the program gzip is needed to read it, and is not in PATH"))
    process = open(pipeline(`$gzip -dc -- $path`; stderr=devnull))
    damaged(line) =
        HepMCError(path, line, "gzip cannot read it to the end: not compressed, damaged or truncated")
    try
        answer = f(each_event(T, process; source=path))
        # a wrong checksum comes after the last byte
        gzip_failed(process) && throw(damaged(0))
        return answer
    catch e
        # gzip gives what it can before it fails: its own failure is the better explanation
        e isa HepMCError && e.line > 0 && gzip_failed(process) && throw(damaged(e.line))
        rethrow()
    finally
        close(process)
    end
end

# At the end of its output gzip has said all it will: only then is its exit code its own.
gzip_failed(process::Base.Process) = eof(process) && !success(process)

"""
    read_events([T=Float64,] path; limit=typemax(Int)) -> Vector{Event{T}}

The first `limit` events of a file. With no limit the file must be whole.
"""
function read_events(::Type{T}, path::AbstractString; limit::Int=typemax(Int)) where {T<:AbstractFloat}
    return open_events(T, path) do stream
        events = Event{T}[]
        limit > 0 || return events
        for event in stream
            push!(events, event)
            length(events) >= limit && break
        end
        return events
    end
end
read_events(path::AbstractString; kwargs...) = read_events(Float64, path; kwargs...)
