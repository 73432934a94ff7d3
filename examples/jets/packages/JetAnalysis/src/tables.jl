"""
    Column(title, width, text)

A column of a table: `text(row)` is what stands in it, set to the right.
"""
struct Column
    title::String
    width::Int
    text::Function
end

"""
    print_table(io, columns, rows)

Write a table with a ruled header.
"""
function print_table(io::IO, columns::Vector{Column}, rows::Vector)
    println(io, join([lpad(c.title, c.width) for c in columns], " "))
    println(io, join(["─"^c.width for c in columns], " "))
    for row in rows
        println(io, join([lpad(c.text(row)::String, c.width) for c in columns], " "))
    end
    return nothing
end

"""
    EventRow{T}

An event as the table shows it.
"""
struct EventRow{T<:AbstractFloat}
    number::Int
    particles::Int
    jets::Vector{Jet{T}}
end

momentum_or_dash(jets, i) = i <= length(jets) ? fixed(pt(jets[i].momentum), 2) : "-"

function event_columns()
    return [
        Column("event", 6, r -> string(r.number)),
        Column("particles", 9, r -> string(r.particles)),
        Column("jets", 4, r -> string(length(r.jets))),
        Column("pt1 [GeV]", 10, r -> momentum_or_dash(r.jets, 1)),
        Column("pt2 [GeV]", 10, r -> momentum_or_dash(r.jets, 2)),
        Column("rapidity1", 9, r -> isempty(r.jets) ? "-" : fixed(rapidity(r.jets[1].momentum), 3)),
        Column("azimuth1", 8, r -> isempty(r.jets) ? "-" : fixed(azimuth(r.jets[1].momentum), 3)),
        Column("mass12 [GeV]", 12, r -> length(r.jets) < 2 ? "-" :
            fixed(invariant_mass(r.jets[1].momentum, r.jets[2].momentum), 2)),
    ]
end

"""
    print_events(io, collisions, jets; rows)

List the first events with their hardest jets.
"""
function print_events(
    io::IO, collisions::Vector{Collision{T}}, jets::Vector{Vector{Jet{T}}}; rows::Int
) where {T}
    shown = [
        EventRow{T}(collisions[i].number, length(collisions[i].momenta), jets[i]) for
        i in 1:min(rows, length(collisions))
    ]
    isempty(shown) && return nothing
    print_table(io, event_columns(), shown)
    left = length(collisions) - length(shown)
    left > 0 && println(io, "   ... and ", left, " more")
    return nothing
end
