"""
    SequentialAlgorithm

An algorithm is its distances: between two objects `min(wᵢ, wⱼ) * (1 - cos θᵢⱼ) * separation_norm`,
with wᵢ = `energy_weight(algorithm, Eᵢ)`, and to the beam `beam_distance(algorithm, wᵢ)`.
"""
abstract type SequentialAlgorithm end

"""
    GenKt(p, R)

Generalised kt algorithm for e+e-: the energy to the power 2p weighs, and R is the jet radius in
radians (R > π lets all particles combine). p = -1 is "anti-kt", 0 "Cambridge/Aachen", 1 "kt".
"""
struct GenKt{T<:AbstractFloat} <: SequentialAlgorithm
    p::T
    R::T

    function GenKt{T}(p, R) where {T<:AbstractFloat}
        isfinite(p) || throw(ArgumentError("p must be finite, got $p"))
        isfinite(R) && 0 < R <= 2π || throw(ArgumentError("R must be above 0 and at most 2π, got $R"))
        return new{T}(p, R)
    end
end
GenKt(p::T, R::T) where {T<:AbstractFloat} = GenKt{T}(p, R)
GenKt(p::Real, R::Real) = GenKt(promote(float(p), float(R))...)

"""
    Durham()

The kt algorithm of LEP, with distance 2 min(Eᵢ², Eⱼ²)(1 - cos θᵢⱼ) and no beam: jets are exclusive.
"""
struct Durham <: SequentialAlgorithm end

function energy_weight(algorithm::GenKt, E::T) where {T<:AbstractFloat}
    p = algorithm.p
    p == 0 && return one(T)
    p == 1 && return E * E
    p == -1 && return 1 / (E * E)
    return T(E^(2p))
end
energy_weight(::Durham, E::AbstractFloat) = E * E

separation_norm(algorithm::GenKt) =
    algorithm.R <= π ? 1 / (1 - cos(algorithm.R)) : 1 / (3 + cos(algorithm.R))
separation_norm(::Durham) = 2

beam_distance(::GenKt, weight) = weight
beam_distance(::Durham, weight) = oftype(weight, Inf)

Base.show(io::IO, a::GenKt) = print(io, "generalised kt, p = ", a.p, ", R = ", a.R)
Base.show(io::IO, ::Durham) = print(io, "Durham")
