# Runs in the Julia that writes a system image (--output-o): loads the packages, then compiles what was traced.
# Arguments: a file with precompile statements, then uuid=Name for each package, leaf first.
# No __init__ has run here, so the state that a start sets up is set up by hand, and taken down again at the end.
Base.reinit_stdio()
@eval Sys BINDIR = ccall(:jl_get_julia_bindir, Any, ())::String
@eval Sys STDLIB = $(abspath(Sys.BINDIR, ENV["HEADSTART_SHARE"], "stdlib", "v$(VERSION.major).$(VERSION.minor)"))
copy!(LOAD_PATH, [ENV["JULIA_PROJECT"], "@stdlib"])
Base.init_depot_path()

for word in ARGS[2:end]
    uuid, name = split(word, '='; limit = 2)
    try
        Base.require(Base.PkgId(Base.UUID(String(uuid)), String(name)))
    catch
        println(stderr, "headstart-failed: ", name)
        rethrow()
    end
end

Base.invokelatest(include(joinpath(@__DIR__, "replay.jl")), ARGS[1], Module())

empty!(Core.ARGS)
empty!(Base.ARGS)
empty!(LOAD_PATH)
empty!(DEPOT_PATH)
if isdefined(Base, :TOML_CACHE)
    empty!(Base.TOML_CACHE.d)
    Base.TOML.reinit!(Base.TOML_CACHE.p, "")
end
@eval Sys begin
    BINDIR = ""
    STDLIB = ""
end
