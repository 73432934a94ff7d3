"""
    Observable(name, title, unit, values, histogram)

`values(jets)` gives the numbers, as a `Vector{Float64}`, to fill for the jets of one event, which
come in descending order.
"""
struct Observable
    name::Symbol
    title::String
    unit::String
    values::Function
    histogram::UniformHistogram
end

"""
    Book(observables)

Observables that are filled together, event by event.
"""
struct Book
    pages::Vector{Observable}
end

"""
    book[name]

The histogram of an observable. Throws `KeyError`.
"""
function Base.getindex(book::Book, name::Symbol)
    i = findfirst(page -> page.name === name, book.pages)
    i === nothing && throw(KeyError(name))
    return book.pages[i].histogram
end

Base.keys(book::Book) = [page.name for page in book.pages]

"""
    book_jets!(book, jets; weight=1)

Fill every histogram of the book from the jets of one event.
"""
function book_jets!(book::Book, jets::Vector{<:Jet}; weight::Float64=1.0)
    for page in book.pages
        append!(page.histogram, page.values(jets)::Vector{Float64}; weight=weight)
    end
    return book
end

function Base.merge!(book::Book, others::Book...)
    for other in others
        keys(book) == keys(other) || throw(DimensionMismatch("only books of the same pages can be merged"))
        for (mine, its) in zip(book.pages, other.pages)
            merge!(mine.histogram, its.histogram)
        end
    end
    return book
end

function render(io::IO, book::Book; width::Int=48)
    for page in book.pages
        println(io)
        render(io, page.histogram; title=page.title, unit=page.unit, width=width)
    end
    return nothing
end

jet_pt(jets) = Float64[pt(jet.momentum) for jet in jets]
jet_rapidity(jets) = Float64[rapidity(jet.momentum) for jet in jets]
multiplicity(jets) = Float64[length(jets)]
dijet_mass(jets) =
    length(jets) < 2 ? Float64[] : Float64[invariant_mass(jets[1].momentum, jets[2].momentum)]

"""
    standard_book(energy; bins=20)

The observables of a first look at collisions of centre-of-mass energy `energy` in GeV: transverse
momentum of each jet, number of jets, invariant mass of the two hardest, rapidity.
"""
function standard_book(energy::Real; bins::Int=20)
    energy > 0 || throw(ArgumentError("the collision energy must be positive, got $energy"))
    page(name, title, unit, values, n, low, high) =
        Observable(name, title, unit, values, Histogram(n, low, high))
    return Book([
        page(:pt, "jet transverse momentum", "GeV", jet_pt, bins, 0.0, 0.6 * energy),
        page(:multiplicity, "jets in an event", "", multiplicity, 10, -0.5, 9.5),
        page(:dijet_mass, "mass of the two hardest jets", "GeV", dijet_mass, bins, 0.0, 1.2 * energy),
        page(:rapidity, "jet rapidity", "", jet_rapidity, bins, -4.0, 4.0),
    ])
end
