"""
    Jet{T}

A jet: its momentum, and its place in the sequence it comes from.
"""
struct Jet{T<:AbstractFloat}
    momentum::FourMomentum{T}
    object::Int
end

Base.show(io::IO, jet::Jet) = print(
    io, "Jet(pt = ", pt(jet.momentum), ", rapidity = ", rapidity(jet.momentum), ", azimuth = ",
    azimuth(jet.momentum), ")",
)

"""
    inclusive_jets(sequence; ptmin=0) -> Vector{Jet}

What was combined with the beam, of transverse momentum at least `ptmin`, in descending order.
"""
function inclusive_jets(sequence::ClusterSequence{T}; ptmin::Real=zero(T)) where {T}
    jets = [
        Jet{T}(sequence.momenta[s.first], s.first) for s in sequence.steps if
        s.second == 0 && pt2(sequence.momenta[s.first]) >= ptmin * ptmin
    ]
    return sort!(jets; by=jet -> pt2(jet.momentum), rev=true)
end

"""
    exclusive_jets(sequence; njets)
    exclusive_jets(sequence; dcut)

The event as it stood when `njets` objects were left (fewer if there were fewer particles), or when
no distance was below `dcut`, in descending order of energy.
"""
function exclusive_jets(
    sequence::ClusterSequence{T}; njets::Union{Nothing,Int}=nothing, dcut::Union{Nothing,Real}=nothing
) where {T}
    (njets === nothing) == (dcut === nothing) && throw(ArgumentError("give either njets or dcut"))
    done = if njets !== nothing
        njets > 0 || throw(ArgumentError("njets must be at least 1, got $njets"))
        max(0, sequence.particles - njets)
    else
        above = findfirst(s -> s.distance > dcut, running_maximum(sequence.steps))
        above === nothing ? length(sequence.steps) : above - 1
    end
    left = Set(1:sequence.particles)
    for step in view(sequence.steps, 1:done)
        delete!(left, step.first)
        step.second == 0 && continue
        delete!(left, step.second)
        push!(left, step.child)
    end
    jets = [Jet{T}(sequence.momenta[i], i) for i in sort!(collect(left))]
    return sort!(jets; by=jet -> energy(jet.momentum), rev=true)
end

# Distances need not grow from step to step; what counts is the largest so far.
function running_maximum(steps::Vector{Step{T}}) where {T}
    largest = zero(T)
    return map(steps) do s
        largest = max(largest, s.distance)
        Step{T}(s.first, s.second, s.child, largest)
    end
end

"""
    merge_scale(sequence, njets)

The largest distance up to the step that leaves `njets` objects, from `njets + 1`: for Durham,
divided by the energy squared, this is yₙ,ₙ₊₁. Zero when there were never that many.
"""
function merge_scale(sequence::ClusterSequence{T}, njets::Int) where {T}
    step = sequence.particles - njets
    return step < 1 ? zero(T) : maximum(s.distance for s in view(sequence.steps, 1:step))
end

"""
    constituents(sequence, jet) -> Vector{Int}

The particles of a jet, in ascending order.
"""
function constituents(sequence::ClusterSequence, jet::Jet)
    parents = Dict(s.child => (s.first, s.second) for s in sequence.steps if s.second != 0)
    found, pending = Int[], [jet.object]
    while !isempty(pending)
        object = pop!(pending)
        object <= sequence.particles ? push!(found, object) : append!(pending, parents[object])
    end
    return sort!(found)
end
