const VERSION_MARK = "HepMC::Version"
const START_MARK = "HepMC::Asciiv3-START_EVENT_LISTING"
const END_MARK = "HepMC::Asciiv3-END_EVENT_LISTING"

"""
    EventStream

Iterates over the events of one input, reading no further than asked. Made by
[`each_event`](@ref) or [`open_events`](@ref).
"""
mutable struct EventStream{T<:AbstractFloat,I<:IO}
    io::I
    source::String
    line::Int
    ahead::Union{Nothing,String}     # a line that was looked at and not used yet
    weight_names::Vector{String}
    finished::Bool
end

"""
    each_event([T=Float64,] io; source="input")

Iterate over the events of an open input; `source` is its name in messages. Throws
[`HepMCError`](@ref), here for a bad header and while iterating for all else.
"""
function each_event(::Type{T}, io::I; source::AbstractString="input") where {T<:AbstractFloat,I<:IO}
    stream = EventStream{T,I}(io, String(source), 0, nothing, String[], false)
    read_header!(stream)
    return stream
end
each_event(io::IO; kwargs...) = each_event(Float64, io; kwargs...)

Base.IteratorSize(::Type{<:EventStream}) = Base.SizeUnknown()
Base.eltype(::Type{<:EventStream{T}}) where {T} = Event{T}

fault(stream::EventStream, message) = throw(HepMCError(stream.source, stream.line, message))

# The next line that says something, or `nothing` at the end. `readline` takes `\r\n` away too.
function next_line!(stream::EventStream)
    ahead = stream.ahead
    if ahead !== nothing
        stream.ahead = nothing
        return ahead
    end
    while !eof(stream.io)
        text = readline(stream.io)
        stream.line += 1
        isempty(text) || all(isspace, text) || return text
    end
    return nothing
end

number(::Type{T}, text) where {T<:Integer} = tryparse(T, text)
function number(::Type{T}, text) where {T<:AbstractFloat}
    x = tryparse(T, text)
    return x === nothing || isfinite(x) ? x : nothing
end

function field(::Type{N}, stream::EventStream, fields, i::Int, what::String) where {N<:Real}
    i <= length(fields) || fault(stream, "the line ends before $what")
    x = number(N, fields[i])
    kind = N <: Integer ? "a whole number" : "a finite number"
    x === nothing && fault(stream, "$what should be $kind, not \"$(fields[i])\"")
    return x
end

function expect_fields(stream::EventStream, fields, wanted::Int, what::String)
    n = length(fields)
    n == wanted || fault(stream, "$what has $wanted fields, this line has $n")
end

# HepMC3 writes a line break inside a text as `\|` and a backslash as `\\`.
function unescape(text::AbstractString)
    return replace(replace(replace(text, "\\\\" => "\0"), "\\|" => "\n"), "\0" => "\\")
end

function read_header!(stream::EventStream)
    text = next_line!(stream)
    text === nothing && fault(stream, "the file is empty")
    startswith(text, VERSION_MARK) ||
        fault(stream, "not a HepMC file: it should begin with \"$VERSION_MARK\"")
    text = next_line!(stream)
    text === nothing && fault(stream, "the file ends after its first line")
    rstrip(text) == START_MARK ||
        fault(stream, "only HepMC3's ASCII format, version 3, is read: \"$START_MARK\" should stand here")
    while (text = next_line!(stream)) !== nothing
        tag = first(text)
        if tag == 'E' || tag == 'H'
            stream.ahead = text
            return
        elseif tag == 'W'
            names = strip(text[2:end])
            stream.weight_names = isempty(names) ? String[] : split(unescape(names), '\n')
        elseif tag != 'T' && tag != 'A' && tag != 'N'   # tools and attributes of the run: not needed
            fault(stream, "a line \"$tag\" before the first event")
        end
    end
    fault(stream, "the file ends in its header")
end

function Base.iterate(stream::EventStream, state=nothing)
    stream.finished && return nothing
    text = next_line!(stream)
    if text === nothing
        fault(stream, "the file is truncated: it ends without \"$END_MARK\"")
    elseif first(text) == 'E'
        return (read_event!(stream, text), nothing)
    elseif rstrip(text) == END_MARK
        stream.finished = true
        next_line!(stream) === nothing || fault(stream, "text after the end of the listing")
        return nothing
    end
    fault(stream, "an event or the end of the listing should begin here")
end

# What is known of an event while its lines are read.
mutable struct Draft{T<:AbstractFloat}
    number::Int
    declared_vertices::Int
    declared_particles::Int
    energy_scale::T
    length_scale::T
    weights::Vector{T}
    attributes::Dict{Tuple{Int,String},String}
    particles::Vector{Particle{T}}
    vertices::Vector{Vertex{T}}
    vertex_ids::Set{Int}
    lone_parents::Set{Int}    # particles whose end vertex has no line of its own
end

function read_event!(stream::EventStream{T}, header::String) where {T}
    fields = split(header)
    length(fields) >= 4 || fault(stream, "an event line has at least 4 fields")
    fields[1] == "E" || fault(stream, "an event line should begin with \"E \"")
    draft = Draft{T}(
        field(Int, stream, fields, 2, "the event number"),
        field(Int, stream, fields, 3, "the number of vertices"),
        field(Int, stream, fields, 4, "the number of particles"),
        one(T), one(T), T[], Dict{Tuple{Int,String},String}(), Particle{T}[], Vertex{T}[],
        Set{Int}(), Set{Int}(),
    )
    while true
        text = next_line!(stream)
        text === nothing && fault(stream, "the file is truncated: it ends inside event $(draft.number)")
        tag = first(text)
        if tag == 'E' || tag == 'H'
            stream.ahead = text
            return finish(stream, draft)
        end
        read_line!(draft, stream, tag, text)
    end
end

function read_line!(draft::Draft, stream::EventStream, tag::Char, text::String)
    fields = split(text)
    length(first(fields)) == 1 || fault(stream, "unknown kind of line \"$(first(fields))\"")
    if tag == 'P'
        read_particle!(draft, stream, fields)
    elseif tag == 'V'
        read_vertex!(draft, stream, fields)
    elseif tag == 'A'
        read_attribute!(draft, stream, text)
    elseif tag == 'W'
        read_weights!(draft, stream, fields)
    elseif tag == 'U'
        read_units!(draft, stream, fields)
    else
        fault(stream, "unknown kind of line \"$tag\"")
    end
end

function read_units!(draft::Draft, stream::EventStream, fields)
    expect_fields(stream, fields, 3, "a line of units")
    isempty(draft.particles) && isempty(draft.vertices) ||
        fault(stream, "units must come before the particles they are for")
    energy, len = fields[2], fields[3]
    energy == "GEV" || energy == "MEV" ||
        fault(stream, "the unit of energy should be GEV or MEV, not \"$energy\"")
    len == "MM" || len == "CM" ||
        fault(stream, "the unit of length should be MM or CM, not \"$len\"")
    draft.energy_scale = energy == "GEV" ? 1 : 1//1000
    draft.length_scale = len == "MM" ? 1 : 10
end

function read_weights!(draft::Draft{T}, stream::EventStream, fields) where {T}
    draft.weights = [field(T, stream, fields, i, "a weight") for i in 2:length(fields)]
    names = length(stream.weight_names)
    names == 0 || names == length(draft.weights) ||
        fault(stream, "$(length(draft.weights)) weights, and the header names $names")
end

function read_attribute!(draft::Draft, stream::EventStream, text::String)
    fields = split(text; limit=4)
    length(fields) >= 3 || fault(stream, "an attribute has an object and a name")
    object = field(Int, stream, fields, 2, "the attribute's object")
    draft.attributes[(object, String(fields[3]))] = length(fields) < 4 ? "" : unescape(fields[4])
end

function read_vertex!(draft::Draft{T}, stream::EventStream, fields) where {T}
    n = length(fields)
    n == 4 || n == 9 || fault(stream, "a vertex has 4 fields, or 9 with its position; this line has $n")
    id = field(Int, stream, fields, 2, "the vertex number")
    id < 0 || fault(stream, "a vertex number is negative, not $id")
    id in draft.vertex_ids && fault(stream, "vertex $id comes twice")
    status = field(Int, stream, fields, 3, "the vertex status")
    list = fields[4]
    startswith(list, '[') && endswith(list, ']') ||
        fault(stream, "incoming particles are written [1,2,3], not \"$list\"")
    names = split(strip(list, ['[', ']']), ','; keepempty=false)
    incoming = [field(Int, stream, names, i, "an incoming particle") for i in 1:length(names)]
    for i in incoming   # it may be read later: vertices are in no order
        1 <= i <= draft.declared_particles || fault(stream, "vertex $id takes particle $i, there is none")
    end
    position = nothing
    if n == 9
        fields[5] == "@" || fault(stream, "a position is written after \"@\"")
        s = draft.length_scale
        x, y, z, t = (field(T, stream, fields, i, "a position") for i in 6:9)
        position = (s * x, s * y, s * z, s * t)
    end
    push!(draft.vertex_ids, id)
    push!(draft.vertices, Vertex{T}(id, status, incoming, position))
end

function read_particle!(draft::Draft{T}, stream::EventStream, fields) where {T}
    expect_fields(stream, fields, 10, "a particle")
    id = field(Int, stream, fields, 2, "the particle number")
    id == length(draft.particles) + 1 ||
        fault(stream, "particle $id comes where $(length(draft.particles) + 1) should")
    origin = field(Int, stream, fields, 3, "the particle's origin")
    if origin < 0
        origin in draft.vertex_ids || fault(stream, "particle $id comes from vertex $origin, not read yet")
    elseif origin > 0
        origin < id || fault(stream, "particle $id comes from particle $origin, not read yet")
        push!(draft.lone_parents, origin)
    end
    s = draft.energy_scale
    momentum = FourMomentum{T}(
        s * field(T, stream, fields, 5, "px"),
        s * field(T, stream, fields, 6, "py"),
        s * field(T, stream, fields, 7, "pz"),
        s * field(T, stream, fields, 8, "the energy"),
    )
    push!(draft.particles, Particle{T}(
        id, origin,
        field(Int, stream, fields, 4, "the particle's kind"),
        momentum,
        s * field(T, stream, fields, 9, "the mass"),
        field(Int, stream, fields, 10, "the status"),
    ))
end

function finish(stream::EventStream, draft::Draft{T}) where {T}
    particles = length(draft.particles)
    particles == draft.declared_particles || fault(stream,
        "event $(draft.number) ends here with $particles particles, it declared $(draft.declared_particles)")
    vertices = length(draft.vertices) + length(draft.lone_parents)
    vertices == draft.declared_vertices || fault(stream,
        "event $(draft.number) ends here with $vertices vertices, it declared $(draft.declared_vertices)")
    return Event{T}(draft.number, draft.weights, draft.attributes, draft.particles, draft.vertices)
end
