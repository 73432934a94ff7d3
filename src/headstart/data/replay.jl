# A function that asks for the code of every statement in a file, in the process that writes an image.
# Where a statement says "invoked" in the place of "precompile", it is of the methods that are more general than the
# one that a call chooses: those that invoke() calls go by the same signature (from 1.9 on; else it is skipped).
# staging is the module that names are bound in. While a package is precompiled it must be that package's own: only
# that one is open for evaluation then.
function (file, staging)
    function invoked(signature)
        name = signature.parameters[1]
        f = isdefined(name, :instance) ? name.instance : name.parameters[1]
        more = [method for method in methods(f) if signature <: method.sig && method != which(signature)]
        # Each is asked for; whether it was there already is all that the answer says.
        foreach(method -> precompile(signature, method), more)
        return true
    end
    done = left = 0
    for line in eachline(file)
        try
            asked = Meta.parse(line).args
            signature = nothing
            # A statement names modules that are loaded but not visible here: bind each when it is asked for.
            for attempt in 1:100
                try
                    signature = Core.eval(staging, Expr(:tuple, asked[2:end]...))
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
            ask = asked[1] === :invoked ? invoked : precompile
            ask(signature...) ? (done += 1) : error("no such method")
        catch problem
            left += 1
            println(stderr, "headstart-skipped: ", line)
        end
    end
    println(stderr, "headstart-replayed: ", done, " statements, skipped ", left)
end
