using FourMomenta
using HepMCAscii
using Test

const HEAD = "HepMC::Version 3.02.06\nHepMC::Asciiv3-START_EVENT_LISTING\nW Weight\n"
const TAIL = "HepMC::Asciiv3-END_EVENT_LISTING\n"
const BODY = """
E 7 2 4
U GEV MM
W 0.5
A 0 event_scale 250
A 0 note two\\|lines and a \\\\
P 1 0 11 0 0 1.25e+02 1.25e+02 5.11e-04 4
P 2 0 -11 0 0 -1.25e+02 1.25e+02 5.11e-04 4
V -1 0 [1,2] @ 1 2 3 4
P 3 -1 23 0 0 0 250 250 22
P 4 3 22 3 4 0 5 0 1
"""

parse_text(text) = collect(each_event(IOBuffer(text); source="test"))

function fault_of(text)
    try
        parse_text(text)
    catch e
        e isa HepMCError || rethrow()
        return (e.line, e.message)
    end
    return (0, "no fault")
end

@testset "HepMCAscii" begin
    @testset "an event" begin
        event, = parse_text(HEAD * BODY * TAIL)
        @test event.number == 7
        @test event.weights == [0.5]
        @test event.attributes[(0, "event_scale")] == "250"
        @test event.attributes[(0, "note")] == "two\nlines and a \\"
        @test [p.id for p in event.particles] == 1:4
        @test event.particles[4].momentum == FourMomentum(3.0, 4.0, 0.0, 5.0)
        @test event.particles[4].origin == 3
        @test only(event.vertices).incoming == [1, 2]
        @test only(event.vertices).position == (1.0, 2.0, 3.0, 4.0)
        @test final_state(event) == [FourMomentum(3.0, 4.0, 0.0, 5.0)]
    end

    @testset "kinds of input" begin
        text = HEAD * BODY * TAIL
        @test length(parse_text(HEAD * BODY * BODY * TAIL)) == 2
        @test isempty(parse_text(HEAD * TAIL))
        @test length(parse_text(replace(text, "\n" => "\r\n"))) == 1
        @test length(parse_text(replace(text, "\n" => "\n\n"))) == 1
        narrow, = collect(each_event(Float32, IOBuffer(text)))
        @test narrow isa Event{Float32}
    end

    @testset "a vertex may come before the particles that enter it" begin
        vertex = "V -1 0 [1,2] @ 1 2 3 4\n"
        body = replace(replace(BODY, vertex => ""), "P 1 0" => vertex * "P 1 0")
        event, = parse_text(HEAD * body * TAIL)
        @test only(event.vertices).incoming == [1, 2]
    end

    @testset "units" begin
        event, = parse_text(HEAD * replace(BODY, "GEV MM" => "MEV CM") * TAIL)
        @test event.particles[4].momentum ≈ FourMomentum(0.003, 0.004, 0.0, 0.005)
        @test event.particles[3].mass ≈ 0.25
        @test only(event.vertices).position == (10.0, 20.0, 30.0, 40.0)
    end

    @testset "what is written reads back the same" begin
        events = parse_text(HEAD * BODY * TAIL)
        text = sprint(write_events, events)
        again, = parse_text(text)
        event, = events
        for name in (:number, :weights, :attributes, :particles)
            @test getfield(again, name) == getfield(event, name)
        end
        @test only(again.vertices).position == only(event.vertices).position
        @test sprint(write_events, [again]) == text
    end

    @testset "faults name the line" begin
        whole = HEAD * BODY * TAIL
        @test fault_of(whole) == (0, "no fault")
        @test fault_of("") == (0, "the file is empty")
        @test fault_of("hello\n")[1] == 1
        @test occursin("version 3", fault_of("HepMC::Version 2.06\nHepMC::IO_GenEvent\n")[2])
        @test fault_of(HEAD) == (3, "the file ends in its header")
        @test fault_of(HEAD * "X\n") == (4, "a line \"X\" before the first event")
        @test fault_of(HEAD * BODY) == (13, "the file is truncated: it ends inside event 7")
        @test fault_of(whole * "E 1 0 0\n") == (15, "text after the end of the listing")
        for (from, to, line, message) in (
            ("3 4 0 5 0 1", "3 4 0 5 0", 13, "a particle has 10 fields, this line has 9"),
            ("3 4 0 5 0 1", "3 4x 0 5 0 1", 13, "py should be a finite number, not \"4x\""),
            ("3 4 0 5 0 1", "3 4 NaN 5 0 1", 13, "pz should be a finite number, not \"NaN\""),
            ("3 4 0 5 0 1", "3 4 0 5 0 1.0", 13, "the status should be a whole number, not \"1.0\""),
            ("P 4 3", "P 5 3", 13, "particle 5 comes where 4 should"),
            ("P 4 3", "P 4 4", 13, "particle 4 comes from particle 4, not read yet"),
            ("P 4 3", "P 4 -9", 13, "particle 4 comes from vertex -9, not read yet"),
            ("[1,2]", "[1,9]", 11, "vertex -1 takes particle 9, there is none"),
            ("[1,2]", "1,2", 11, "incoming particles are written [1,2,3], not \"1,2\""),
            ("V -1", "V 1", 11, "a vertex number is negative, not 1"),
            ("@ 1 2 3 4", "@ 1 2 3", 11, "a vertex has 4 fields, or 9 with its position; this line has 8"),
            ("U GEV", "U KEV", 5, "the unit of energy should be GEV or MEV, not \"KEV\""),
            ("MM", "INCH", 5, "the unit of length should be MM or CM, not \"INCH\""),
            ("W 0.5", "W 0.5 0.5", 6, "2 weights, and the header names 1"),
            ("A 0 event_scale", "Q 0 event_scale", 7, "unknown kind of line \"Q\""),
            ("E 7 2 4", "E 7 2", 4, "an event line has at least 4 fields"),
            ("E 7 2 4", "E 7 2 5", 14, "event 7 ends here with 4 particles, it declared 5"),
            ("E 7 2 4", "E 7 3 4", 14, "event 7 ends here with 2 vertices, it declared 3"),
        )
            @test fault_of(HEAD * replace(BODY, from => to) * TAIL) == (line, message)
        end
        # cut anywhere, a file is refused: in its last line of text at the latest
        for n in 0:(length(whole) - 2)
            @test fault_of(whole[1:n])[2] != "no fault"
        end
    end

    @testset "files" begin
        mktempdir() do dir
            path = joinpath(dir, "events.hepmc3")
            write(path, HEAD, BODY, BODY, TAIL)
            @test length(read_events(path)) == 2
            @test length(read_events(path; limit=1)) == 1
            @test isempty(read_events(path; limit=0))
            @test_throws HepMCError read_events(joinpath(dir, "none"))
            if Sys.which("gzip") !== nothing
                run(`gzip -k $path`)
                @test length(read_events(path * ".gz")) == 2
                @test length(read_events(path * ".gz"; limit=1)) == 1
                whole = read(path * ".gz")
                write(path * ".gz", whole[1:(end - 20)])
                @test_throws HepMCError read_events(path * ".gz")
                whole[end - 5] ⊻= 0xff   # the checksum is near the end
                write(path * ".gz", whole)
                @test_throws HepMCError read_events(path * ".gz")
                write(path * ".gz", "not compressed")
                @test_throws HepMCError read_events(path * ".gz")
            end
        end
    end

    @test sprint(showerror, HepMCError("a.hepmc3", 3, "bad")) == "a.hepmc3, line 3: bad"
    @test sprint(showerror, HepMCError("a.hepmc3", 0, "no such file")) == "a.hepmc3: no such file"
end
