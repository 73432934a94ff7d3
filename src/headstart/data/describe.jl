# Prints what this Julia compares caches with; headstart.session.Session reads it. Runs on Julia 1.5 and newer, and
# loads nothing: what is loaded here is what the system image brings.
const MARK = "headstart-session:"
say(key, value...) = println(MARK, " ", key, " ", join(value, " "))
say("version", unsafe_string(ccall(:jl_ver_string, Cstring, ())))
say("pointer", sizeof(Ptr{Cvoid}))
say("uname", Sys.KERNEL)
say("arch", Sys.ARCH)
say("branch", Base.GIT_VERSION_INFO.branch)
say("commit", Base.GIT_VERSION_INFO.commit)
say("image", realpath(unsafe_string(Base.JLOptions().image_file)))
say("stdlib", Sys.STDLIB)
say("build_stdlib", isdefined(Sys, :BUILD_STDLIB_PATH) ? Sys.BUILD_STDLIB_PATH : Sys.STDLIB)
say("flags", VERSION < v"1.9-" ? 0 : Int(ccall(:jl_cache_flags, UInt8, ())))
say("pkgimages", VERSION < v"1.9-" ? 0 : Int(Base.JLOptions().use_pkgimages))
say("targets", VERSION < v"1.10-" ? "" : bytes2hex(ccall(:jl_reflect_clone_targets, Any, ())::Vector{UInt8}))
for (id, m) in Base.loaded_modules
    uuid = id.uuid === nothing ? UInt128(0) : UInt128(id.uuid)
    say("module", string(uuid, base = 16), string(Base.module_build_id(m), base = 16), id.name)
end
