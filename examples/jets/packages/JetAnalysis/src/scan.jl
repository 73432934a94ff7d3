const SCAN_POWERS = (-1.0, -0.5, 0.0, 0.5, 1.0)
const SCAN_RADII = 0.2:0.05:1.5

"""
    ScanPoint{T}

What one pair of p and R does to all events: the average number of jets, and the average and spread
of the mass of the two hardest jets over the events that have two.
"""
struct ScanPoint{T<:AbstractFloat}
    p::T
    R::T
    multiplicity::T
    mass::T
    spread::T
end

"""
    resolution(point)

Relative spread of the mass; infinite where no event has two jets, so that it never looks best.
"""
resolution(point::ScanPoint{T}) where {T} = point.mass > 0 ? point.spread / point.mass : T(Inf)

function scan_point(selection::Inclusive, collisions::Vector{Collision{T}}) where {T}
    weights, jets_seen = zero(T), zero(T)
    pairs, mass, mass_squared = zero(T), zero(T), zero(T)
    for collision in collisions
        jets = jets_of(selection, collision.momenta)
        w = collision.weight
        weights += w
        jets_seen += w * length(jets)
        length(jets) >= 2 || continue
        m = invariant_mass(jets[1].momentum, jets[2].momentum)
        pairs += w
        mass += w * m
        mass_squared += w * m * m
    end
    mean = pairs > 0 ? mass / pairs : zero(T)
    spread = pairs > 0 ? sqrt(max(zero(T), mass_squared / pairs - mean * mean)) : zero(T)
    algorithm = selection.algorithm
    return ScanPoint{T}(algorithm.p, algorithm.R, weights > 0 ? jets_seen / weights : zero(T), mean, spread)
end

"""
    scan(collisions; ptmin) -> Matrix{ScanPoint}

Cluster all events with every radius (rows) and every power of the energy (columns) of the scan.
"""
scan(collisions::Vector{Collision{T}}; ptmin::T) where {T} = ScanPoint{T}[
    scan_point(Inclusive(GenKt{T}(p, R), ptmin), collisions) for R in SCAN_RADII, p in SCAN_POWERS
]

function scan_cell(point::ScanPoint)
    isfinite(resolution(point)) || return string(fixed(point.multiplicity, 2), "      -")
    return string(fixed(point.multiplicity, 2), " ", lpad(fixed(100 * resolution(point), 1), 5), "%")
end

"""
    print_scan(io, points)

Write the scan as a table, and which point measures the mass of the two hardest jets best.
"""
function print_scan(io::IO, points::Matrix{<:ScanPoint})
    println(io, "scan: jets in an event, and resolution of the mass of the two hardest")
    columns = [Column("R", 4, i -> fixed(points[i, 1].R, 2))]
    for j in 1:size(points, 2)
        push!(columns, Column(string("p = ", points[1, j].p), 12, i -> scan_cell(points[i, j])))
    end
    print_table(io, columns, collect(1:size(points, 1)))
    best = points[1]
    for point in points
        resolution(point) < resolution(best) && (best = point)
    end
    isfinite(resolution(best)) && println(io, "best resolution: ", fixed(100 * resolution(best), 2),
        "% with p = ", best.p, ", R = ", fixed(best.R, 2))
    return nothing
end
