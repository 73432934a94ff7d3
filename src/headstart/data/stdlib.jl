# Compiles into the first depot every package of the standard library that this Julia's system image does not hold.
# What is compiled and then cannot be initialised, such as a library that this Julia was built without, is no worse
# here than in stock Julia.
for name in sort!(readdir(Sys.STDLIB))
    file = joinpath(Sys.STDLIB, name, "Project.toml")
    isfile(file) || continue
    id = Base.project_file_name_uuid(file, name)
    try
        Base.require(id)
    catch problem
        if problem isa InitError
            println(stderr, "headstart-skipped: ", name, " does not start: ", problem.error)
        else
            println(stderr, "headstart-failed: ", name)
            rethrow()
        end
    end
end
