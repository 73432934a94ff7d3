# Loaded before a traced script: notes at its end which packages it has loaded, uuid=Name in a line each.
atexit() do
    open(ENV["HEADSTART_LOADED"], "w") do file
        for id in keys(Base.loaded_modules)
            id.uuid === nothing || println(file, id.uuid, "=", id.name)
        end
    end
end
