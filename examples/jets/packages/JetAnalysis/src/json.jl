"""
    write_json(io, value)

Write numbers, strings, vectors, and named tuples (as objects) as JSON. JSON has no infinite
numbers: those become null.
"""
write_json(io::IO, x::Integer) = print(io, x)
write_json(io::IO, x::AbstractFloat) = isfinite(x) ? print(io, x) : print(io, "null")
write_json(io::IO, ::Nothing) = print(io, "null")

function write_json(io::IO, text::AbstractString)
    print(io, '"')
    for c in text
        if c == '"' || c == '\\'
            print(io, '\\', c)
        elseif c < ' '
            print(io, "\\u", string(UInt16(c); base=16, pad=4))
        else
            print(io, c)
        end
    end
    print(io, '"')
end

function write_json(io::IO, values::AbstractVector)
    print(io, '[')
    for (i, value) in enumerate(values)
        i > 1 && print(io, ',')
        write_json(io, value)
    end
    print(io, ']')
end

function write_json(io::IO, object::NamedTuple)
    print(io, '{')
    for (i, key) in enumerate(keys(object))
        i > 1 && print(io, ',')
        write_json(io, String(key))
        print(io, ':')
        write_json(io, object[key])
    end
    print(io, '}')
end

"""
    jets_json(collisions, jets) -> String

All jets, an object for each event, counted from 1 as FastJet's test data are.
"""
function jets_json(collisions::Vector{<:Collision}, jets)
    events = [
        (
            jetid=i,
            event=collision.number,
            jets=[
                (
                    rap=rapidity(jet.momentum), phi=azimuth(jet.momentum), pt=pt(jet.momentum),
                    mass=mass(jet.momentum),
                ) for jet in list
            ],
        ) for (i, (collision, list)) in enumerate(zip(collisions, jets))
    ]
    io = IOBuffer()
    write_json(io, events)
    println(io)
    return String(take!(io))
end
