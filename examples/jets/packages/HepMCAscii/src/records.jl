"""
    HepMCError(source, line, message)

What is wrong with a file, and on which line (0 when it is the file as a whole).
"""
struct HepMCError <: Exception
    source::String
    line::Int
    message::String
end

function Base.showerror(io::IO, e::HepMCError)
    print(io, e.source)
    e.line > 0 && print(io, ", line ", e.line)
    print(io, ": ", e.message)
end

"""
    Particle{T}

One line `P`: `id` counts from 1; `origin` is the vertex it comes from when negative, its only
parent when positive, and 0 for a beam; `pdg` is the particle's kind in the numbering of the
Particle Data Group; momentum and mass are in GeV.
"""
struct Particle{T<:AbstractFloat}
    id::Int
    origin::Int
    pdg::Int
    momentum::FourMomentum{T}
    mass::T
    status::Int
end

"""
    Vertex{T}

One line `V`: `id` is negative; `incoming` are particles; `position` is (x, y, z, t) in mm, or
`nothing` where the file gives none.
"""
struct Vertex{T<:AbstractFloat}
    id::Int
    status::Int
    incoming::Vector{Int}
    position::Union{Nothing,NTuple{4,T}}
end

"""
    Event{T}

One event. `attributes` are the lines `A`, as (object, name) => text, where object 0 is the event.
"""
struct Event{T<:AbstractFloat}
    number::Int
    weights::Vector{T}
    attributes::Dict{Tuple{Int,String},String}
    particles::Vector{Particle{T}}
    vertices::Vector{Vertex{T}}
end

"""
    final_state(event) -> Vector{FourMomentum}

Momenta of the particles that reach the detector: those of status 1.
"""
final_state(event::Event) = [p.momentum for p in event.particles if p.status == 1]
