"""
    HepMCAscii

Reads and writes HepMC3's ASCII format, version 3 (`HepMC::Asciiv3`): events of particles joined by
vertices. What is read is in GeV and mm whatever the file's units are.

A file is trusted with nothing: every count, reference and number is checked, and a fault is a
[`HepMCError`](@ref) that names the file and the line.
"""
module HepMCAscii

using FourMomenta

export Event, EventStream, HepMCError, Particle, Vertex
export each_event, final_state, open_events, read_events, write_events

include("records.jl")
include("reader.jl")
include("sources.jl")
include("writer.jl")

end
