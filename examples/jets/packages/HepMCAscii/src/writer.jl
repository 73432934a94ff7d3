"""
    write_events(io, events; weight_names=["Weight"])

Write events in GeV and mm. Numbers are written with the fewest digits that read back as the same
number, so nothing is lost, and the bytes do not depend on the version of Julia.
"""
function write_events(io::IO, events; weight_names::Vector{String}=["Weight"])
    print(io, VERSION_MARK, " 3.02.06\n", START_MARK, "\n")
    isempty(weight_names) || print(io, "W ", join(map(escape, weight_names), "\\|"), "\n")
    for event in events
        write_event(io, event)
    end
    print(io, END_MARK, "\n\n")
end

escape(text::AbstractString) = replace(replace(text, "\\" => "\\\\"), "\n" => "\\|")

function write_event(io::IO, event::Event)
    lone = Set(p.origin for p in event.particles if p.origin > 0)
    vertices = length(event.vertices) + length(lone)
    print(io, "E ", event.number, " ", vertices, " ", length(event.particles), "\nU GEV MM\n")
    isempty(event.weights) || print(io, "W ", join(event.weights, " "), "\n")
    for ((object, name), text) in sort!(collect(event.attributes); by=first)
        print(io, "A ", object, " ", name, " ", escape(text), "\n")
    end
    # a vertex is written before its first particle, and after the last one that enters it
    vertices_left = Dict(v.id => v for v in event.vertices)
    for p in event.particles
        v = pop!(vertices_left, p.origin, nothing)
        v === nothing || write_vertex(io, v)
        write_particle(io, p)
    end
    for v in event.vertices
        haskey(vertices_left, v.id) && write_vertex(io, v)
    end
end

function write_vertex(io::IO, v::Vertex)
    print(io, "V ", v.id, " ", v.status, " [", join(v.incoming, ","), "]")
    v.position === nothing || print(io, " @ ", join(v.position, " "))
    print(io, "\n")
end

function write_particle(io::IO, p::Particle)
    m = p.momentum
    print(io, "P ", p.id, " ", p.origin, " ", p.pdg, " ", m.px, " ", m.py, " ", m.pz, " ", m.E, " ",
        p.mass, " ", p.status, "\n")
end
