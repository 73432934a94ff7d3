"""
    FourMomenta

Energy-momentum four-vectors in the metric (-, -, -, +), with the observables of a collider:
transverse momentum, azimuth, rapidity, invariant mass; and Lorentz boosts.

Energies and momenta are in GeV, angles in radians.
"""
module FourMomenta

export FourMomentum
export azimuth, boost, boost_to_rest, cos_angle, delta_phi, energy, from_mass
export invariant_mass, mass, mass2, momentum2, pseudorapidity, pt, pt2, rapidity, velocity

"""
    FourMomentum(px, py, pz, E)

A four-momentum with components of one floating-point type.
"""
struct FourMomentum{T<:AbstractFloat}
    px::T
    py::T
    pz::T
    E::T
end

FourMomentum(px::Real, py::Real, pz::Real, E::Real) =
    FourMomentum(promote(float(px), float(py), float(pz), float(E))...)

FourMomentum{T}(p::FourMomentum) where {T<:AbstractFloat} =
    FourMomentum{T}(T(p.px), T(p.py), T(p.pz), T(p.E))

"""
    from_mass(px, py, pz, m)

The four-momentum on the mass shell of `m >= 0`.
"""
function from_mass(px::T, py::T, pz::T, m::T) where {T<:AbstractFloat}
    m >= 0 || throw(ArgumentError("a mass must not be negative, got $m"))
    return FourMomentum(px, py, pz, sqrt(px * px + py * py + pz * pz + m * m))
end

Base.zero(::Type{FourMomentum{T}}) where {T} = FourMomentum(zero(T), zero(T), zero(T), zero(T))
Base.zero(::FourMomentum{T}) where {T} = zero(FourMomentum{T})

Base.:+(a::FourMomentum, b::FourMomentum) =
    FourMomentum(a.px + b.px, a.py + b.py, a.pz + b.pz, a.E + b.E)
Base.:-(a::FourMomentum, b::FourMomentum) =
    FourMomentum(a.px - b.px, a.py - b.py, a.pz - b.pz, a.E - b.E)
Base.:-(a::FourMomentum) = FourMomentum(-a.px, -a.py, -a.pz, -a.E)
Base.:*(s::Real, a::FourMomentum) = FourMomentum(s * a.px, s * a.py, s * a.pz, s * a.E)
Base.:*(a::FourMomentum, s::Real) = s * a

Base.isapprox(a::FourMomentum, b::FourMomentum; kwargs...) =
    isapprox([a.px, a.py, a.pz, a.E], [b.px, b.py, b.pz, b.E]; kwargs...)

function Base.show(io::IO, p::FourMomentum)
    print(io, "FourMomentum(", p.px, ", ", p.py, ", ", p.pz, ", ", p.E, ")")
end

"""
    energy(p)

Energy in GeV.
"""
energy(p::FourMomentum) = p.E

"""
    pt2(p)

Square of the transverse momentum.
"""
pt2(p::FourMomentum) = p.px * p.px + p.py * p.py

"""
    pt(p)

Momentum transverse to the beam (the z axis).
"""
pt(p::FourMomentum) = sqrt(pt2(p))

"""
    momentum2(p)

Square of the three-momentum.
"""
momentum2(p::FourMomentum) = pt2(p) + p.pz * p.pz

"""
    mass2(p)

Invariant mass squared. It can be slightly negative for light particles, through rounding.
"""
mass2(p::FourMomentum) = (p.E + p.pz) * (p.E - p.pz) - pt2(p)

"""
    mass(p)

Invariant mass; space-like momenta give a negative number, the root of `-mass2(p)`.
"""
function mass(p::FourMomentum)
    m2 = mass2(p)
    return m2 < 0 ? -sqrt(-m2) : sqrt(m2)
end

"""
    invariant_mass(a, b)

Invariant mass of a pair.
"""
invariant_mass(a::FourMomentum, b::FourMomentum) = mass(a + b)

"""
    azimuth(p)

Azimuth around the beam, at least 0 and less than 2π; 0 for a momentum along the beam.
"""
function azimuth(p::FourMomentum{T}) where {T}
    pt2(p) == 0 && return zero(T)
    phi = atan(p.py, p.px)
    phi < 0 && (phi += T(2π))
    return phi >= T(2π) ? phi - T(2π) : phi   # a tiny negative angle rounds up to 2π
end

"""
    delta_phi(a, b)

Difference of two azimuths, from 0 to π.
"""
function delta_phi(a::FourMomentum, b::FourMomentum)
    d = abs(azimuth(a) - azimuth(b))
    return d > π ? oftype(d, 2π) - d : d
end

"""
    rapidity(p)

Rapidity along the beam. The mass is kept from going below zero, and the large logarithm is taken
of a sum without cancellation, so forward particles keep their precision. A massless momentum along
the beam gets `1e5 + abs(pz)` with the sign of `pz`, so that it stays finite and in order.
"""
function rapidity(p::FourMomentum{T}) where {T}
    kt2 = pt2(p)
    if p.E == abs(p.pz) && kt2 == 0
        huge = T(1e5) + abs(p.pz)
        return p.pz >= 0 ? huge : -huge
    end
    m2 = max(zero(T), mass2(p))
    e_plus_pz = p.E + abs(p.pz)
    y = log((kt2 + m2) / (e_plus_pz * e_plus_pz)) / 2
    return p.pz > 0 ? -y : y
end

"""
    pseudorapidity(p)

Rapidity of a massless particle in the same direction.
"""
pseudorapidity(p::FourMomentum) = rapidity(FourMomentum(p.px, p.py, p.pz, sqrt(momentum2(p))))

"""
    cos_angle(a, b)

Cosine of the angle between two three-momenta, neither of which may be zero.
"""
function cos_angle(a::FourMomentum, b::FourMomentum)
    dot = a.px * b.px + a.py * b.py + a.pz * b.pz
    return clamp(dot / sqrt(momentum2(a) * momentum2(b)), -one(dot), one(dot))
end

"""
    velocity(p) -> (βx, βy, βz)

Velocity in units of the speed of light.
"""
velocity(p::FourMomentum) = (p.px / p.E, p.py / p.E, p.pz / p.E)

"""
    boost(p, (βx, βy, βz))

`p`, given in a frame that moves with velocity β, as seen from the frame at rest. Throws
`ArgumentError` unless `|β| < 1`.
"""
function boost(p::FourMomentum{T}, beta::NTuple{3,T}) where {T}
    bx, by, bz = beta
    b2 = bx * bx + by * by + bz * bz
    b2 < 1 || throw(ArgumentError("a boost must be slower than light, got β² = $b2"))
    gamma = 1 / sqrt(1 - b2)
    along = bx * p.px + by * p.py + bz * p.pz
    shift = gamma * gamma / (1 + gamma) * along + gamma * p.E
    return FourMomentum(
        p.px + shift * bx, p.py + shift * by, p.pz + shift * bz, gamma * (p.E + along)
    )
end

"""
    boost_to_rest(p, frame)

`p` as seen in the rest frame of the massive momentum `frame`.
"""
function boost_to_rest(p::FourMomentum{T}, frame::FourMomentum{T}) where {T}
    bx, by, bz = velocity(frame)
    return boost(p, (-bx, -by, -bz))
end

end
