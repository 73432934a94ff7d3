# Prints the artifacts that this machine's platform takes from Artifacts.toml files: mark, git-tree-sha1, name.
# Arguments: the files. Artifacts that are fetched on first use are left out: nothing is fetched on a node.
import Pkg
for file in ARGS
    for name in sort!(collect(keys(Pkg.Artifacts.load_artifacts_toml(file))))
        meta = Pkg.Artifacts.artifact_meta(name, file)
        if meta !== nothing && !get(meta, "lazy", false)
            println("headstart-artifact: ", meta["git-tree-sha1"], " ", name)
        end
    end
end
