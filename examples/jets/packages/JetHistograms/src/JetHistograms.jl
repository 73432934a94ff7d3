"""
    JetHistograms

One-dimensional weighted histograms, their text rendering, and a [`Book`](@ref) of observables
filled from the jets of each event.
"""
module JetHistograms

using FourMomenta
using JetClustering
using Printf

export Book, Histogram, Observable
export average, book_jets!, centers, deviation, entries, errors, fixed, integral, render, standard_book

include("histogram.jl")
include("render.jl")
include("book.jl")

end
