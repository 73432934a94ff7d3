"""
    Histogram(edges)

A weighted histogram over the bins `[edges[i], edges[i + 1])`; the last bin includes its upper
edge. Besides the bins it keeps underflow, overflow, and the moments of all that was filled in range.
"""
mutable struct Histogram{T<:AbstractFloat,E<:AbstractVector{T}}
    edges::E
    sums::Vector{T}       # of weights, per bin
    squares::Vector{T}    # of squared weights, per bin
    underflow::T
    overflow::T
    entries::Int          # fills, in range or not
    weight::T             # in range: Σw, Σwx, Σwx²
    first_moment::T
    second_moment::T

    function Histogram{T,E}(edges::E) where {T<:AbstractFloat,E<:AbstractVector{T}}
        n = length(edges) - 1
        n >= 1 || throw(ArgumentError("a histogram has at least two edges, got $(length(edges))"))
        all(isfinite, edges) || throw(ArgumentError("the edges of a histogram must be finite"))
        all(i -> edges[i] < edges[i + 1], 1:n) || throw(ArgumentError("the edges of a histogram must ascend"))
        return new{T,E}(edges, zeros(T, n), zeros(T, n), 0, 0, 0, 0, 0, 0)
    end
end
Histogram(edges::E) where {T<:AbstractFloat,E<:AbstractVector{T}} = Histogram{T,E}(edges)

"""
    Histogram(nbins, low, high)

`nbins` bins of equal width.
"""
Histogram(nbins::Integer, low::Real, high::Real) =
    Histogram(range(float(low), float(high); length=Int(nbins) + 1))

"""
    UniformHistogram

A histogram of bins of equal width, as `Histogram(nbins, low, high)` makes it.
"""
const UniformHistogram = typeof(Histogram(1, 0.0, 1.0))

edges(h::Histogram) = h.edges

Base.length(h::Histogram) = length(h.sums)
Base.isempty(h::Histogram) = h.entries == 0

function Base.:(==)(a::Histogram, b::Histogram)
    return edges(a) == edges(b) && a.sums == b.sums && a.squares == b.squares &&
        a.underflow == b.underflow && a.overflow == b.overflow && a.entries == b.entries
end

"""
    push!(h::Histogram, x; weight=1)

Fill `x`. Throws `ArgumentError` for a NaN.
"""
function Base.push!(h::Histogram{T}, x::Real; weight::Real=one(T)) where {T}
    isnan(x) && throw(ArgumentError("cannot fill NaN"))
    h.entries += 1
    e = edges(h)
    if x < first(e)
        h.underflow += weight
    elseif x > last(e)
        h.overflow += weight
    else
        bin = min(searchsortedlast(e, x), length(h))
        h.sums[bin] += weight
        h.squares[bin] += weight * weight
        h.weight += weight
        h.first_moment += weight * x
        h.second_moment += weight * x * x
    end
    return h
end

"""
    append!(h::Histogram, values; weight=1)

Fill each of `values`.
"""
function Base.append!(h::Histogram{T}, values; weight::Real=one(T)) where {T}
    for x in values
        push!(h, x; weight=weight)
    end
    return h
end

"""
    merge!(h::Histogram, others...)

Add histograms of the same edges to `h`. Throws `DimensionMismatch` for other edges.
"""
function Base.merge!(h::Histogram, others::Histogram...)
    for other in others
        edges(h) == edges(other) || throw(DimensionMismatch("only histograms of the same edges can be merged"))
        h.sums .+= other.sums
        h.squares .+= other.squares
        h.underflow += other.underflow
        h.overflow += other.overflow
        h.entries += other.entries
        h.weight += other.weight
        h.first_moment += other.first_moment
        h.second_moment += other.second_moment
    end
    return h
end

"""
    merge(h::Histogram, others...)

The sum of histograms, as a new one.
"""
Base.merge(h::Histogram, others::Histogram...) = merge!(Histogram(edges(h)), h, others...)

"""
    entries(h)

Number of fills, in range or not.
"""
entries(h::Histogram) = h.entries

"""
    integral(h)

Sum of weights in range.
"""
integral(h::Histogram) = h.weight

"""
    average(h)

Weighted average of what was filled in range, not of bin centres; NaN when that is nothing.
"""
average(h::Histogram) = h.first_moment / h.weight

"""
    deviation(h)

Standard deviation of what was filled in range; NaN when that is nothing.
"""
deviation(h::Histogram{T}) where {T} =
    h.weight == 0 ? T(NaN) : sqrt(max(zero(T), h.second_moment / h.weight - average(h)^2))

"""
    centers(h)

Middle of each bin.
"""
centers(h::Histogram) = (edges(h)[1:(end - 1)] .+ edges(h)[2:end]) ./ 2

"""
    errors(h)

Statistical error of each bin, the root of the sum of squared weights.
"""
errors(h::Histogram) = sqrt.(h.squares)
