# Prints the artifacts that packages take on this machine's platform: mark, git-tree-sha1, eager or lazy, name,
# package. Those that HEADSTART_WANTED names by their trees are fetched into the first depot instead.
# Arguments: the packages' directories. A package may choose by a program of its own (since Julia 1.7).
import Pkg

const WANTED = split(get(ENV, "HEADSTART_WANTED", ""))

function selection(folder)
    for file in (joinpath(folder, "JuliaArtifacts.toml"), joinpath(folder, "Artifacts.toml"))
        isfile(file) || continue
        found = Dict{String,Any}()
        for name in keys(Pkg.Artifacts.load_artifacts_toml(file))
            found[name] = Pkg.Artifacts.artifact_meta(name, file)
        end
        if isfile(joinpath(folder, ".pkg", "select_artifacts.jl")) && isdefined(Pkg.Operations, :collect_artifacts)
            chosen = Dict{String,Any}(Pkg.Operations.collect_artifacts(folder)[1][2])
            for (name, meta) in found
                lazy = meta !== nothing && get(meta, "lazy", false)
                haskey(chosen, name) || lazy || delete!(found, name)
            end
            merge!(found, chosen)
        end
        return file, found
    end
    return "", Dict{String,Any}()
end

for folder in ARGS
    file, found = selection(folder)
    for name in sort!(collect(keys(found)))
        meta = found[name]
        meta === nothing && continue
        tree = meta["git-tree-sha1"]
        if tree in WANTED
            try
                Pkg.Artifacts.ensure_artifact_installed(name, meta, file)
            catch problem
                # The others may be had.
                println(stderr, "ERROR: ", sprint(showerror, problem))
            end
        elseif isempty(WANTED)
            println("headstart-artifact: ", tree, " ", get(meta, "lazy", false) ? "lazy" : "eager", " ", name, " ", folder)
        end
    end
end
