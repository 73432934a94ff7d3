# Compiles into the first depot every package of the standard library that this Julia's system image does not hold.
for name in sort!(readdir(Sys.STDLIB))
    file = joinpath(Sys.STDLIB, name, "Project.toml")
    isfile(file) || continue
    id = Base.project_file_name_uuid(file, name)
    try
        Base.require(id)
    catch
        println(stderr, "headstart-failed: ", name)
        rethrow()
    end
end
