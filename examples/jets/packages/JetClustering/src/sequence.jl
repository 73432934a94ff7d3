# Theory of operation. Each object knows its nearest neighbour in angle. The pair with the least
# distance is always one of these: of the two, let i be the one of smaller weight; were k nearer to i
# than j is, then min(wᵢ, wₖ) ≤ wᵢ would make (i, k) a closer pair. So a step needs one pass over N
# stored distances, and after it only those objects search anew whose neighbour has gone: N² in all.

"""
    Step{T}

One step of a sequence: objects `first` and `second` became `child` at `distance`; a `second` of 0
is the beam (`first` became a jet, and there is no `child`).
"""
struct Step{T<:AbstractFloat}
    first::Int
    second::Int
    child::Int
    distance::T
end

"""
    ClusterSequence

The whole history of a clustering. `momenta` holds the particles and then every merged object,
in order; `steps` has one entry per particle.
"""
struct ClusterSequence{T<:AbstractFloat,A<:SequentialAlgorithm}
    algorithm::A
    particles::Int
    momenta::Vector{FourMomentum{T}}
    steps::Vector{Step{T}}
end

function Base.show(io::IO, sequence::ClusterSequence)
    print(io, "ClusterSequence(", sequence.algorithm, ", ", sequence.particles, " particles)")
end

# The objects that are left, as columns; positions 1:n are alive.
struct Workspace{T<:AbstractFloat}
    nx::Vector{T}          # unit vector
    ny::Vector{T}
    nz::Vector{T}
    weight::Vector{T}
    object::Vector{Int}    # index into the sequence's momenta
    nearest::Vector{Int}   # position of the nearest neighbour, 0 for none
    angle::Vector{T}       # 1 - cos of the angle to it
end

Workspace{T}(n::Int) where {T} = Workspace{T}(
    zeros(T, n), zeros(T, n), zeros(T, n), zeros(T, n), zeros(Int, n), zeros(Int, n), fill(T(Inf), n)
)

function place!(w::Workspace{T}, i::Int, algorithm, p::FourMomentum{T}, object::Int) where {T}
    length2 = momentum2(p)
    # an object at rest has no direction: take it as along the beam
    scale = length2 > 0 ? 1 / sqrt(length2) : zero(T)
    w.nx[i] = p.px * scale
    w.ny[i] = p.py * scale
    w.nz[i] = length2 > 0 ? p.pz * scale : one(T)
    w.weight[i] = energy_weight(algorithm, p.E)
    w.object[i] = object
    return nothing
end

function move!(w::Workspace, to::Int, from::Int)
    for column in (w.nx, w.ny, w.nz, w.weight, w.angle)
        column[to] = column[from]
    end
    w.object[to] = w.object[from]
    w.nearest[to] = w.nearest[from]
    return nothing
end

Base.@propagate_inbounds separation(w::Workspace{T}, i::Int, j::Int) where {T} =
    one(T) - w.nx[i] * w.nx[j] - w.ny[i] * w.ny[j] - w.nz[i] * w.nz[j]

function search_nearest!(w::Workspace{T}, i::Int, n::Int) where {T}
    best, angle = 0, T(Inf)
    @inbounds for j in 1:n
        j == i && continue
        d = separation(w, i, j)
        if d < angle
            best, angle = j, d
        end
    end
    w.nearest[i], w.angle[i] = best, angle
    return nothing
end

# Distance of object i to its neighbour or the beam, and its partner (0 for the beam).
function best_partner(w::Workspace{T}, i::Int, algorithm, norm::T) where {T}
    beam = beam_distance(algorithm, w.weight[i])
    j = w.nearest[i]
    j == 0 && return (beam, 0)
    pair = min(w.weight[i], w.weight[j]) * w.angle[i] * norm
    return pair < beam ? (pair, j) : (beam, 0)
end

function closest(w::Workspace{T}, n::Int, algorithm, norm::T) where {T}
    first, (least, second) = 1, best_partner(w, 1, algorithm, norm)
    for i in 2:n
        d, j = best_partner(w, i, algorithm, norm)
        if d < least
            first, second, least = i, j, d
        end
    end
    return first, second, least
end

# Position `gone` was filled from position `n + 1`; `fresh` (or 0) holds a new object. Put the
# neighbours right again among positions 1:n.
function update_neighbours!(w::Workspace, n::Int, gone::Int, fresh::Int)
    for i in 1:n
        j = w.nearest[i]
        if i == fresh || j == gone || (j == fresh && fresh != 0)
            search_nearest!(w, i, n)
        else
            j == n + 1 && (w.nearest[i] = gone)
            if fresh != 0
                d = separation(w, i, fresh)
                if d < w.angle[i]
                    w.nearest[i], w.angle[i] = fresh, d
                end
            end
        end
    end
    return nothing
end

"""
    cluster(algorithm, particles) -> ClusterSequence

Combine the momenta `particles` step by step until nothing is left. Momenta add up (the E scheme).
Throws `ArgumentError` for a particle of no or negative energy.
"""
function cluster(
    algorithm::A, particles::AbstractVector{FourMomentum{T}}
) where {A<:SequentialAlgorithm,T<:AbstractFloat}
    n = length(particles)
    momenta = sizehint!(collect(particles), 2n)
    steps = sizehint!(Step{T}[], n)
    norm = T(separation_norm(algorithm))
    w = Workspace{T}(n)
    for (i, p) in enumerate(particles)
        p.E > 0 || throw(ArgumentError("particle $i has the energy $(p.E): it must be positive"))
        place!(w, i, algorithm, p, i)
    end
    for i in 1:n
        search_nearest!(w, i, n)
    end
    while n > 0
        i, j, distance = closest(w, n, algorithm, norm)
        if j == 0
            push!(steps, Step{T}(w.object[i], 0, 0, distance))
            gone, fresh = i, 0
        else
            fresh, gone = minmax(i, j)
            a, b = w.object[fresh], w.object[gone]
            push!(momenta, momenta[a] + momenta[b])
            push!(steps, Step{T}(a, b, length(momenta), distance))
            place!(w, fresh, algorithm, momenta[end], length(momenta))
        end
        gone == n || move!(w, gone, n)
        n -= 1
        update_neighbours!(w, n, gone, fresh)
    end
    return ClusterSequence{T,A}(algorithm, length(particles), momenta, steps)
end
