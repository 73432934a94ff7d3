using FourMomenta
using HepMCAscii
using JetAnalysis
using JetClustering
using Test

const JA = JetAnalysis

# The sentence and the code of a failed command line, or the report and 0.
function outcome(args...)
    try
        return JA.report(collect(String, args)), 0
    catch e
        code = only(c for (family, c) in JA.EXIT_CODES if e isa family)
        return JA.sentence(e), code
    end
end

with_toy(f; n=5) = mktempdir() do dir
    path = joinpath(dir, "toy.hepmc3")
    open(io -> write_events(io, toy_events(n; seed=3)), path, "w")
    f(path)
end

@testset "JetAnalysis" begin
    @testset "the toy" begin
        events = toy_events(20; seed=11)
        for event in events
            momenta = final_state(event)
            @test sum(momenta) ≈ FourMomentum(0.0, 0.0, 0.0, 250.0) atol = 1e-3
            @test all(p -> energy(p) > 0, momenta)
            @test length(momenta) >= 10
        end
        text = sprint(write_events, events)
        @test sprint(write_events, toy_events(20; seed=11)) == text
        @test sprint(write_events, toy_events(20; seed=12)) != text
        again = collect(each_event(IOBuffer(text)))
        @test [e.particles for e in again] == [e.particles for e in events]
        at_z, = toy_events(1; energy=91.2)
        @test sum(final_state(at_z)) ≈ FourMomentum(0.0, 0.0, 0.0, 91.2) atol = 1e-3
        @test_throws ArgumentError toy_events(1; seed=0)
        @test_throws ArgumentError toy_events(1; energy=10)
    end

    @testset "options" begin
        o = JA.parse_options(["--p=0.5", "--R", "0.7", "--scan", "--json", "x=y", "--rows=3", "a.hepmc3"])
        @test (o.p, o.R, o.scan, o.json, o.rows, o.file) == (0.5, 0.7, true, "x=y", 3, "a.hepmc3")
        @test JA.parse_options(["--p", "-1", "f"]).p == -1
        @test JA.parse_options(["--help"]).help
        @test outcome("--help") == (JA.USAGE, 0)
        for (args, message) in (
            (String[], "one FILE is needed, 0 are given"),
            (["a", "b"], "one FILE is needed, 2 are given"),
            (["--R"], "--R needs a value"),
            (["--R", "0", "f"], "--R should be a number above 0 and at most 2π, not \"0\""),
            (["--R", "NaN", "f"], "--R should be a number above 0 and at most 2π, not \"NaN\""),
            (["--p", "much", "f"], "--p should be a number from -10 to 10, not \"much\""),
            (["--ptmin=-1", "f"], "--ptmin should be a number of at least 0, not \"-1\""),
            (["--njets=0", "f"], "--njets should be a whole number of at least 1, not \"0\""),
            (["--max-events=1.5", "f"], "--max-events should be a whole number of at least 1, not \"1.5\""),
            (["--rows=-1", "f"], "--rows should be a whole number of at least 0, not \"-1\""),
            (["--bins=0", "f"], "--bins should be a whole number from 1 to 1000, not \"0\""),
            (["--algorithm=cone", "f"], "--algorithm should be genkt or durham, not \"cone\""),
            (["--json=", "f"], "--json needs a file name"),
            (["--scan=1", "f"], "--scan takes no value"),
            (["--scan", "--algorithm=durham", "f"], "--scan is for the genkt algorithm"),
            (["--colour", "f"], "unknown option --colour"),
        )
            @test outcome(args...) == ("jets: $message; --help lists the options\n", 2)
        end
    end

    @testset "reports" begin
        with_toy() do path
            text, code = outcome(path)
            @test code == 0
            @test startswith(text, "toy.hepmc3: 5 events at 250 GeV; generalised kt, p = -1.0, R = 1.0")
            @test occursin("mass of the two hardest jets [GeV]", text)
            @test !occursin("scan", text)
            @test occursin("   ... and 3 more", first(outcome("--rows=2", path)))
            @test occursin(": 2 events", first(outcome("--max-events=2", path)))
            @test occursin("Durham, 3 jets an event", first(outcome("--algorithm=durham", "--njets=3", path)))
            @test occursin("best resolution", first(outcome("--scan", path)))
            @test occursin("      -", first(outcome("--scan", "--ptmin=500", path)))
        end
    end

    @testset "jets as JSON" begin
        with_toy() do path
            out = path * ".json"
            @test last(outcome("--json", out, path)) == 0
            text = read(out, String)
            @test startswith(text, "[{\"jetid\":1,\"event\":0,\"jets\":[{\"rap\":")
            @test count("\"jetid\"", text) == 5
            jets = sum(
                length(inclusive_jets(cluster(GenKt(-1.0, 1.0), final_state(e)); ptmin=5.0)) for
                e in toy_events(5; seed=3)
            )
            @test count("\"pt\"", text) == jets
            message, code = outcome("--json", joinpath(path, "none"), path)
            @test code == 4
            @test endswith(message, "none: cannot be written: Not a directory\n")
        end
        json(x) = sprint(JA.write_json, x)
        @test json("a\"b\\c\n") == "\"a\\\"b\\\\c\\u000a\""
        @test json([1.5, Inf, NaN]) == "[1.5,null,null]"
        @test json((a=1, b=nothing, c=Int[])) == "{\"a\":1,\"b\":null,\"c\":[]}"
    end

    @testset "bad input" begin
        mktempdir() do dir
            none = joinpath(dir, "none.hepmc3")
            @test outcome(none) == ("jets: $none: no such file\n", 3)
            header = "HepMC::Version 3\nHepMC::Asciiv3-START_EVENT_LISTING\n"
            footer = "HepMC::Asciiv3-END_EVENT_LISTING\n"
            for (body, message) in (
                ("", ": there are no events in it"),
                ("E 5 0 1\nP 1 0 22 1 0 0 1 0 4\n", ": event 5 has no particle of status 1"),
                ("E 5 0 1\nP 1 0 22 1 0 0 0 0 1\n", ": event 5 has a particle of status 1 and no energy"),
                ("E 5 0 2\nP 1 0 22 1 0 0 1 0 1\n",
                    ", line 5: event 5 ends here with 1 particles, it declared 2"),
            )
                path = joinpath(dir, "bad.hepmc3")
                write(path, header, body, footer)
                @test outcome(path) == ("jets: $path$message\n", 3)
            end
        end
    end

    @testset "the whole application" begin
        with_toy() do path
            @test JA.rehearse(path) == 0
        end
    end
end
