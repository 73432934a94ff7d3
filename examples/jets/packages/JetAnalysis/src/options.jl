"""
    UsageError(message)

The command line cannot be understood.
"""
struct UsageError <: Exception
    message::String
end
Base.showerror(io::IO, e::UsageError) = print(io, e.message, "; --help lists the options")

const USAGE = """
usage: jets [options] FILE

Reads e+e- events from FILE (HepMC3 ASCII, plain or .gz), clusters the particles of status 1 into
jets, and prints a table of events and histograms of the jets.

  --algorithm NAME   genkt (generalised kt, the default) or durham
  --p X              genkt: power of the energy (default -1)
  --R X              genkt: jet radius in radians (default 1.0)
  --ptmin X          genkt: least transverse momentum of a jet in GeV (default 5)
  --njets N          durham: number of jets in each event (default 2)
  --max-events N     read no more than N events
  --rows N           list the first N events (default 10)
  --bins N           bins of a histogram (default 20)
  --scan             genkt: also compare many values of p and R
  --json FILE        write all jets to FILE
  --help             print this

exit code: 0 done, 2 bad command line, 3 bad input, 4 output cannot be written
"""

"""
    Options

What the command line asks for.
"""
Base.@kwdef mutable struct Options
    file::String = ""
    algorithm::String = "genkt"
    p::Float64 = -1.0
    R::Float64 = 1.0
    ptmin::Float64 = 5.0
    njets::Int = 2
    max_events::Int = typemax(Int)
    rows::Int = 10
    bins::Int = 20
    scan::Bool = false
    json::Union{Nothing,String} = nothing
    help::Bool = false
end

function numeric(::Type{T}, name::String, text::String, good, wanted::String) where {T<:Real}
    x = tryparse(T, text)
    x !== nothing && good(x) || throw(UsageError("--$name should be $wanted, not \"$text\""))
    return x
end

# What to do with the value of each option that takes one.
const SETTERS = Dict{String,Function}(
    "algorithm" => (o, v) -> o.algorithm =
        v in ("genkt", "durham") ? v : throw(UsageError("--algorithm should be genkt or durham, not \"$v\"")),
    "p" => (o, v) -> o.p = numeric(Float64, "p", v, x -> abs(x) <= 10, "a number from -10 to 10"),
    "R" => (o, v) -> o.R = numeric(Float64, "R", v, x -> 0 < x <= 2π, "a number above 0 and at most 2π"),
    "ptmin" => (o, v) -> o.ptmin = numeric(Float64, "ptmin", v, x -> 0 <= x < Inf, "a number of at least 0"),
    "njets" => (o, v) -> o.njets = numeric(Int, "njets", v, x -> x >= 1, "a whole number of at least 1"),
    "max-events" => (o, v) -> o.max_events =
        numeric(Int, "max-events", v, x -> x >= 1, "a whole number of at least 1"),
    "rows" => (o, v) -> o.rows = numeric(Int, "rows", v, x -> x >= 0, "a whole number of at least 0"),
    "bins" => (o, v) -> o.bins = numeric(Int, "bins", v, x -> 1 <= x <= 1000, "a whole number from 1 to 1000"),
    "json" => (o, v) -> o.json = isempty(v) ? throw(UsageError("--json needs a file name")) : v,
)

const SWITCHES = Dict{String,Function}(
    "scan" => o -> o.scan = true,
    "help" => o -> o.help = true,
)

"""
    parse_options(args) -> Options

Throws [`UsageError`](@ref). Values are written `--name value` or `--name=value`.
"""
function parse_options(args::Vector{String})
    options = Options()
    files = String[]
    rest = copy(args)
    while !isempty(rest)
        word = popfirst!(rest)
        if !startswith(word, "--")
            push!(files, word)
            continue
        end
        parts = split(word[3:end], '='; limit=2)
        name = String(first(parts))
        if haskey(SWITCHES, name)
            length(parts) == 1 || throw(UsageError("--$name takes no value"))
            SWITCHES[name](options)
        elseif haskey(SETTERS, name)
            length(parts) == 2 || !isempty(rest) || throw(UsageError("--$name needs a value"))
            SETTERS[name](options, length(parts) == 2 ? String(parts[2]) : popfirst!(rest))
        else
            throw(UsageError("unknown option --$name"))
        end
    end
    options.help && return options
    length(files) == 1 || throw(UsageError("one FILE is needed, $(length(files)) are given"))
    options.file = only(files)
    options.scan && options.algorithm != "genkt" &&
        throw(UsageError("--scan is for the genkt algorithm"))
    return options
end
