const EIGHTHS = ('▏', '▎', '▍', '▌', '▋', '▊', '▉', '█')

"""
    render(io, h; title="", unit="", width=48)

Write a histogram as text, one bar a bin, at most `width` columns wide, with the bins' contents and
errors, and a line of statistics.
"""
function render(io::IO, h::Histogram; title::AbstractString="", unit::AbstractString="", width::Int=48)
    width > 0 || throw(ArgumentError("a bar needs a width, got $width"))
    isempty(title) || println(io, title, isempty(unit) ? "" : " [$unit]")
    top = maximum(h.sums)
    digits = decimals(edges(h))
    err = errors(h)
    for bin in 1:length(h)
        label = string(fixed(edges(h)[bin], digits), " - ", fixed(edges(h)[bin + 1], digits))
        line = rpad(bar(h.sums[bin], top, width), width)
        contents = string(lpad(fixed(h.sums[bin], 2), 9), " ± ", fixed(err[bin], 2))
        println(io, lpad(label, 17), " |", line, " ", contents)
    end
    indent = " "^19
    println(io, indent, "entries ", entries(h), ", in range ", fixed(integral(h), 2), ", under ",
        fixed(h.underflow, 2), ", over ", fixed(h.overflow, 2))
    integral(h) > 0 && println(
        io, indent, "mean ", fixed(average(h), 3), ", standard deviation ", fixed(deviation(h), 3)
    )
    return nothing
end

# A bar to an eighth of a column.
function bar(content::T, top::T, width::Int) where {T}
    (top > 0 && content > 0) || return ""
    eighths = round(Int, 8 * width * min(one(T), content / top))
    full, rest = divrem(eighths, 8)
    return rest == 0 ? string('█')^full : string('█')^full * EIGHTHS[rest]
end

# How many decimals the edges need, to a thousandth of a bin; at most three.
function decimals(edges)
    tolerance = minimum(edges[i + 1] - edges[i] for i in 1:(length(edges) - 1)) / 1000
    for digits in 0:2
        all(x -> abs(round(x; digits=digits) - x) <= tolerance, edges) && return digits
    end
    return 3
end

"""
    fixed(x, digits) -> String

`x` with a fixed number of decimals, from 0 to 3. (A format must be a literal in Julia.)
"""
function fixed(x::Float64, digits::Int)
    digits == 0 && return @sprintf("%.0f", x)
    digits == 1 && return @sprintf("%.1f", x)
    digits == 2 && return @sprintf("%.2f", x)
    digits == 3 && return @sprintf("%.3f", x)
    throw(ArgumentError("from 0 to 3 decimals, not $digits"))
end
fixed(x::Real, digits::Int) = fixed(Float64(x), digits)
