# A toy of e+e- → hadrons. It uses integers, + - * / and square roots only, and no library of random
# numbers: these are exact everywhere, so a seed gives the same bytes on every Julia and every CPU.

"""
    XorShift(seed)

Marsaglia's xorshift64 with the multiplier of Vigna's `xorshift64*`.
"""
mutable struct XorShift
    state::UInt64

    function XorShift(seed::Integer)
        seed > 0 || throw(ArgumentError("a seed must be above 0, got $seed"))
        return new(UInt64(seed) * 0x9e3779b97f4a7c15)
    end
end

# Uniform in [0, 1).
function draw!(rng::XorShift)
    x = rng.state
    x ⊻= x >> 12
    x ⊻= x << 25
    x ⊻= x >> 27
    rng.state = x
    return Float64((x * 0x2545f4914f6cdd1d) >> 11) * 2.0^-53
end

draw!(rng::XorShift, low::Real, high::Real) = low + (high - low) * draw!(rng)

# A direction, uniform on the sphere, by rejection.
function direction!(rng::XorShift)
    while true
        x, y, z = draw!(rng, -1, 1), draw!(rng, -1, 1), draw!(rng, -1, 1)
        r2 = x * x + y * y + z * z
        0.01 < r2 <= 1 && (r = sqrt(r2); return (x / r, y / r, z / r))
    end
end

# (Kind, mass in GeV, cumulative probability).
const HADRONS = (
    (211, 0.13957, 0.30), (-211, 0.13957, 0.60), (111, 0.13498, 0.75), (321, 0.49368, 0.82),
    (-321, 0.49368, 0.89), (130, 0.49761, 0.93), (2112, 0.93957, 0.96), (2212, 0.93827, 1.0),
)

function hadron_kind!(rng::XorShift)
    u = draw!(rng)
    for (pdg, mass, upto) in HADRONS
        u < upto && return pdg, mass
    end
    pdg, mass, _ = last(HADRONS)
    return pdg, mass
end

scaled(p::FourMomentum, k, mass) = from_mass(k * p.px, k * p.py, k * p.pz, mass)

function total(momenta)
    whole = zero(FourMomentum{Float64})
    for p in momenta
        whole += p
    end
    return whole
end

# Two to four partons in their rest frame.
function partons!(rng::XorShift, energy::Float64)
    u = draw!(rng)
    n = u < 0.6 ? 2 : u < 0.9 ? 3 : 4
    while true
        momenta = map(1:n) do _
            x, y, z = direction!(rng)
            e = draw!(rng, 0.2, 1.0)
            FourMomentum(e * x, e * y, e * z, e)
        end
        whole = total(momenta)
        mass2(whole) > 0.05 * whole.E * whole.E || continue
        return [scaled(boost_to_rest(p, whole), energy / mass(whole), 0.0) for p in momenta]
    end
end

# Hadrons along a parton: shares of its momentum, and some momentum across.
function hadrons!(rng::XorShift, parton::FourMomentum{Float64})
    n = 6 + floor(Int, 10 * draw!(rng))
    shares = map(_ -> (u = draw!(rng); 0.02 + u * u), 1:n)
    norm = 0.0
    for share in shares
        norm += share
    end
    return map(shares) do share
        pdg, mass = hadron_kind!(rng)
        x, y, z = direction!(rng)
        k = share / norm
        (pdg=pdg, mass=mass, momentum=from_mass(
            k * parton.px + 0.6 * x, k * parton.py + 0.6 * y, k * parton.pz + 0.6 * z, mass))
    end
end

# Scale momenta in their rest frame until the energies add up, by Newton's method.
function balance(hadrons, energy::Float64)
    whole = total(h.momentum for h in hadrons)
    momenta = [boost_to_rest(h.momentum, whole) for h in hadrons]
    k = 1.0
    for _ in 1:12
        found, slope = 0.0, 0.0
        for (h, p) in zip(hadrons, momenta)
            e = sqrt(k * k * momentum2(p) + h.mass * h.mass)
            found += e
            slope += k * momentum2(p) / e
        end
        k -= (found - energy) / slope
    end
    return [scaled(p, k, h.mass) for (h, p) in zip(hadrons, momenta)]
end

# To a micro-unit (keV, nm): few digits in the file, and no minus zero.
short(x::Float64) = round(x * 1e6) / 1e6 + 0.0
short(p::FourMomentum{Float64}) = FourMomentum(short(p.px), short(p.py), short(p.pz), short(p.E))

"""
    toy_event(rng, number, energy) -> Event

Beams, a virtual Z, two to four partons, hadrons, and photons from the decays of neutral pions.
"""
function toy_event(rng::XorShift, number::Int, energy::Float64)
    particles, vertices = Particle{Float64}[], Vertex{Float64}[]
    add!(origin, pdg, p, mass, status) = push!(
        particles, Particle{Float64}(length(particles) + 1, origin, pdg, short(p), mass, status))
    half = energy / 2
    add!(0, 11, FourMomentum(0.0, 0.0, half, half), 0.000511, 4)
    add!(0, -11, FourMomentum(0.0, 0.0, -half, half), 0.000511, 4)
    place = (short(draw!(rng, -0.01, 0.01)), short(draw!(rng, -0.01, 0.01)), short(draw!(rng, -0.3, 0.3)), 0.0)
    push!(vertices, Vertex{Float64}(-1, 0, [1, 2], place))
    add!(-1, 23, FourMomentum(0.0, 0.0, 0.0, energy), energy, 22)
    push!(vertices, Vertex{Float64}(-2, 0, [3], nothing))
    partons = partons!(rng, energy)
    flavour = 1 + floor(Int, 5 * draw!(rng))
    for (i, p) in enumerate(partons)
        add!(-2, i == 1 ? flavour : i == 2 ? -flavour : 21, p, 0.0, 23)
    end
    hadrons = reduce(vcat, [hadrons!(rng, p) for p in partons])
    push!(vertices, Vertex{Float64}(-3, 0, collect(4:(3 + length(partons))), nothing))
    for (h, p) in zip(hadrons, balance(hadrons, energy))
        add!(-3, h.pdg, p, h.mass, h.pdg == 111 ? 2 : 1)
    end
    for pion in filter(p -> p.pdg == 111, particles)
        x, y, z = direction!(rng)
        e = pion.mass / 2
        # the pion is rounded: put it back on its mass shell before using it as a frame
        frame = from_mass(pion.momentum.px, pion.momentum.py, pion.momentum.pz, pion.mass)
        for s in (1.0, -1.0)
            add!(pion.id, 22, boost(FourMomentum(s * e * x, s * e * y, s * e * z, e), velocity(frame)), 0.0, 1)
        end
    end
    attributes = Dict((0, "generator") => "JetAnalysis toy")
    return Event{Float64}(number, [1.0], attributes, particles, vertices)
end

"""
    toy_events(n; seed=1, energy=250.0) -> Vector{Event{Float64}}

`n` events of a toy, for demonstrations and tests; `energy` is the collision's, in GeV. The same
seed gives the same events, to the last bit.
"""
function toy_events(n::Int; seed::Integer=1, energy::Real=250.0)
    energy >= 50 || throw(ArgumentError("the toy needs at least 50 GeV, got $energy"))
    rng = XorShift(seed)
    return [toy_event(rng, number, Float64(energy)) for number in 0:(n - 1)]
end
