# Compiles packages into the first depot, each after those that it depends on, so that no worker starts another.
# Arguments: uuid=Name for each package, leaf first.
for word in ARGS
    uuid, name = split(word, '='; limit = 2)
    try
        Base.require(Base.PkgId(Base.UUID(String(uuid)), String(name)))
    catch
        println(stderr, "headstart-failed: ", name)
        rethrow()
    end
end
