# Prints what this Julia is and where its parts are; headstart.julia.JuliaProbe reads it.
import Libdl
const MARK = "headstart-probe:"
println(MARK, " version ", VERSION)
println(MARK, " bindir ", realpath(Sys.BINDIR))
println(MARK, " image ", realpath(unsafe_string(Base.JLOptions().image_file)))
println(MARK, " stdlib ", realpath(Sys.STDLIB))
println(MARK, " locks ", join(Base.manifest_names, ' '))
println(MARK, " workspaces ", isdefined(Base, :base_project))
for path in Libdl.dllist()
    isfile(path) && println(MARK, " library ", realpath(path))
end
