"""
    OutputError(path, message)

What was asked for cannot be written.
"""
struct OutputError <: Exception
    path::String
    message::String
end
Base.showerror(io::IO, e::OutputError) = print(io, e.path, ": cannot be written: ", e.message)

const EXIT_CODES = ((UsageError, 2), (HepMCError, 3), (InputError, 3), (OutputError, 4))

"""
    main(args) -> exit code

The whole application, as the shell starts it:

    julia -e 'using JetAnalysis; exit(JetAnalysis.main(ARGS))' [options] FILE

The report goes to standard output in one piece, when all has gone well; a failure is one sentence
on standard error. Exit codes: 0 done, 2 bad command line, 3 bad input, 4 output cannot be written.
"""
function main(args::Vector{String}=ARGS)
    try
        write(stdout, report(args))
        return 0
    catch e
        for (family, code) in EXIT_CODES
            e isa family || continue
            write(stderr, sentence(e))
            return code
        end
        rethrow()
    end
end

# Not `sprint`: Julia does not keep its specialisations on functions in an image.
function sentence(e)
    io = IOBuffer()
    print(io, "jets: ")
    showerror(io, e)
    println(io)
    return String(take!(io))
end

"""
    report(args) -> String

Do what the command line asks for and return what is to be printed.
"""
function report(args::Vector{String})
    options = parse_options(args)
    options.help && return USAGE
    io = IOBuffer()
    analyse(io, selection(options), options)
    return String(take!(io))
end

function analyse(io::IO, selection::Selection, options::Options)
    collisions = read_collisions(options)
    energy = collision_energy(collisions)
    println(io, basename(options.file), ": ", length(collisions), " events at ",
        fixed(energy, 0), " GeV; ", selection)
    println(io)
    jets = [jets_of(selection, collision.momenta) for collision in collisions]
    print_events(io, collisions, jets; rows=options.rows)
    book = standard_book(energy; bins=options.bins)
    for (collision, list) in zip(collisions, jets)
        book_jets!(book, list; weight=collision.weight)
    end
    render(io, book)
    if options.scan
        println(io)
        print_scan(io, scan(collisions; ptmin=options.ptmin))
    end
    options.json === nothing || save(options.json, jets_json(collisions, jets))
    return nothing
end

function save(path::String, text::String)
    try
        write(path, text)
    catch e
        e isa SystemError || rethrow()
        throw(OutputError(path, Libc.strerror(e.errnum)))
    end
end
