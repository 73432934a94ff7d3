# A function that asks for the code of every statement in a file, in the process that writes an image.
# staging is the module that names are bound in. While a package is precompiled it must be that package's own: only
# that one is open for evaluation then.
function (file, staging)
    done = left = 0
    for line in eachline(file)
        try
            types = Meta.parse(line).args[2:end]
            signature = nothing
            # A statement names modules that are loaded but not visible here: bind each when it is asked for.
            for attempt in 1:100
                try
                    signature = Core.eval(staging, Expr(:tuple, types...))
                    break
                catch problem
                    problem isa UndefVarError || rethrow()
                    found = nothing
                    for (id, loaded) in Base.loaded_modules
                        id.name == String(problem.var) && (found = loaded)
                    end
                    found === nothing && rethrow()
                    Core.eval(staging, Expr(:const, Expr(:(=), problem.var, found)))
                end
            end
            precompile(signature...) ? (done += 1) : error("no such method")
        catch problem
            left += 1
            println(stderr, "headstart-skipped: ", line)
        end
    end
    println(stderr, "headstart-replayed: ", done, " statements, skipped ", left)
end
