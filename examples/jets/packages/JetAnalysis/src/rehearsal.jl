"""
    rehearse(file)

Start the application once in every way there is, on a copy of `file` and with throw-away output: what
an image has to hold compiled. Returns 0; throws `ErrorException` when an exit code is not what it
should be.
"""
function rehearse(file::String)
    mktempdir() do dir
        sample = joinpath(dir, "events.hepmc3")
        cp(file, sample)
        json = joinpath(dir, "jets.json")
        expect(0, ["--max-events", "20", sample])
        expect(0, [sample])
        expect(0, ["--scan", "--max-events=20", sample])
        expect(0, ["--scan", sample])
        expect(0, ["--p", "0", "--R=0.7", "--ptmin", "10", "--rows", "3", "--bins=10", "--json", json, sample])
        expect(0, ["--p=0.5", "--json=$json", sample])
        expect(0, ["--algorithm", "durham", "--njets", "3", sample])
        expect(0, ["--algorithm=durham", "--json=$json", sample])
        expect(0, ["--help"])
        expect(2, String[])
        expect(2, ["--R", "-1", sample])
        expect(2, ["--what"])
        expect(3, [joinpath(dir, "none")])
        expect(4, ["--json", joinpath(dir, "none", "jets.json"), sample])
        cut = joinpath(dir, "cut.hepmc3")
        write(cut, read(sample)[1:5000])
        expect(3, [cut])
        if Sys.which("gzip") !== nothing
            run(`gzip $sample`)
            expect(0, [sample * ".gz"])
            expect(0, ["--max-events", "5", sample * ".gz"])
        end
        through_pipes(cut)
    end
    return 0
end

# Writing to a pipe is code of its own; the rest of the rehearsal may well write to a file.
function through_pipes(cut::String)
    out, err = stdout, stderr
    from_out, to_out = redirect_stdout()
    from_err, to_err = redirect_stderr()
    try
        expect(0, ["--help"])
        expect(3, [cut])
    finally
        redirect_stdout(out)
        redirect_stderr(err)
        close(to_out)
        close(to_err)
    end
    read(from_out, String) == USAGE || error("standard output is damaged by a pipe")
    occursin("line", read(from_err, String)) || error("standard error is damaged by a pipe")
    return nothing
end

function expect(code::Int, args::Vector{String})
    found = main(args)
    found == code || error("jets ", join(args, " "), ": exit code $found, expected $code")
    return nothing
end
