"""
    InputError(source, message)

A file reads well, but its events cannot be analysed.
"""
struct InputError <: Exception
    source::String
    message::String
end
Base.showerror(io::IO, e::InputError) = print(io, e.source, ": ", e.message)

"""
    Collision{T}

What the analysis needs of an event: its number, its first weight, the momenta of its final state.
"""
struct Collision{T<:AbstractFloat}
    number::Int
    weight::T
    momenta::Vector{FourMomentum{T}}
end

function Collision(event::Event{T}, source::String) where {T}
    momenta = final_state(event)
    isempty(momenta) && throw(InputError(source, "event $(event.number) has no particle of status 1"))
    i = findfirst(p -> energy(p) <= 0, momenta)
    i === nothing ||
        throw(InputError(source, "event $(event.number) has a particle of status 1 and no energy"))
    return Collision{T}(event.number, isempty(event.weights) ? one(T) : first(event.weights), momenta)
end

function read_collisions(options::Options)
    events = read_events(options.file; limit=options.max_events)
    isempty(events) && throw(InputError(options.file, "there are no events in it"))
    return [Collision(event, options.file) for event in events]
end

"""
    collision_energy(collisions)

The largest total energy of a final state, in whole GeV.
"""
function collision_energy(collisions::Vector{Collision{T}}) where {T}
    largest = one(T)
    for collision in collisions
        total = zero(T)
        for p in collision.momenta
            total += energy(p)
        end
        largest = max(largest, round(total))
    end
    return largest
end

"""
    Selection

How jets are taken from an event: an algorithm and what it leaves open.
"""
abstract type Selection end

"""
    Inclusive(algorithm, ptmin)
"""
struct Inclusive{A<:GenKt,T<:AbstractFloat} <: Selection
    algorithm::A
    ptmin::T
end

"""
    Exclusive(algorithm, njets)
"""
struct Exclusive{A<:SequentialAlgorithm} <: Selection
    algorithm::A
    njets::Int
end

jets_of(s::Inclusive, momenta) = inclusive_jets(cluster(s.algorithm, momenta); ptmin=s.ptmin)
jets_of(s::Exclusive, momenta) = exclusive_jets(cluster(s.algorithm, momenta); njets=s.njets)

Base.show(io::IO, s::Inclusive) = print(io, s.algorithm, ", pt at least ", s.ptmin, " GeV")
Base.show(io::IO, s::Exclusive) = print(io, s.algorithm, ", ", s.njets, " jets an event")

# How to make the selection of each --algorithm.
const SELECTIONS = Dict{String,Function}(
    "genkt" => o -> Inclusive(GenKt(o.p, o.R), o.ptmin),
    "durham" => o -> Exclusive(Durham(), o.njets),
)

selection(options::Options) = SELECTIONS[options.algorithm](options)
