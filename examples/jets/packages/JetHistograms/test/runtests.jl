using FourMomenta
using JetClustering
using JetHistograms
using Test

@testset "JetHistograms" begin
    @testset "filling" begin
        h = Histogram(4, 0, 2)
        append!(h, [0.0, 0.49, 0.5, 1.9, 2.0, -0.1, 2.1])
        @test h.sums == [2, 1, 0, 2]
        @test (h.underflow, h.overflow) == (1, 1)
        @test entries(h) == 7
        @test integral(h) == 5
        @test average(h) ≈ (0.49 + 0.5 + 1.9 + 2.0) / 5
        @test centers(h) ≈ [0.25, 0.75, 1.25, 1.75]
        @test isempty(Histogram(2, 0, 1)) && !isempty(h)
        @test isnan(average(Histogram(2, 0, 1))) && isnan(deviation(Histogram(2, 0, 1)))
    end

    @testset "weights" begin
        h = Histogram([0.0, 1.0, 10.0])
        push!(h, 0.5; weight=3)
        push!(h, 0.6; weight=4)
        push!(h, 5.0; weight=-1)
        @test h.sums == [7, -1]
        @test errors(h) == [5, 1]
        @test integral(h) == 6
        g = append!(Histogram(10, 0, 1), [0.25, 0.75])
        @test deviation(g) ≈ 0.25
    end

    @testset "merging equals filling at once" begin
        values = [sin(7i) + 0.3 for i in 1:200]
        whole = append!(Histogram(12, -1, 1), values)
        parts = [append!(Histogram(12, -1, 1), values[i:4:end]) for i in 1:4]
        sum_of_parts = merge(parts...)
        @test sum_of_parts == whole
        @test average(sum_of_parts) ≈ average(whole)
        @test entries(parts[1]) == 50   # merge made a new one
        @test_throws DimensionMismatch merge(whole, Histogram(12, -1, 2))
    end

    @testset "refusals" begin
        @test_throws ArgumentError Histogram([1.0])
        @test_throws ArgumentError Histogram([1.0, 1.0])
        @test_throws ArgumentError Histogram([0.0, Inf])
        @test_throws ArgumentError push!(Histogram(2, 0, 1), NaN)
        @test_throws ArgumentError render(devnull, Histogram(2, 0, 1); width=0)
    end

    @testset "rendering" begin
        h = append!(Histogram(2, 0, 1), [0.1, 0.2, 0.3, 0.4, 0.8])
        lines = split(sprint(io -> render(io, h; title="x", unit="GeV", width=4)), '\n')
        @test lines[1] == "x [GeV]"
        @test lines[2] == "        0.0 - 0.5 |████      4.00 ± 2.00"
        @test lines[3] == "        0.5 - 1.0 |█         1.00 ± 1.00"
        @test lines[4] == "                   entries 5, in range 5.00, under 0.00, over 0.00"
        @test startswith(strip(lines[5]), "mean 0.360,")
        @test JetHistograms.bar(2.0, 16.0, 1) == "▏"
        @test JetHistograms.bar(0.0, 16.0, 1) == ""
        @test JetHistograms.bar(8.0, 16.0, 1) == "▌"
        @test [fixed(2.71828, d) for d in 0:3] == ["3", "2.7", "2.72", "2.718"]
        @test_throws ArgumentError fixed(1, 4)
        empty = sprint(io -> render(io, Histogram(3, 0, 1)))
        @test !occursin("mean", empty) && occursin("0.333 - 0.667", empty)
    end

    @testset "a book" begin
        momenta = [FourMomentum(10.0, 0.0, 0.0, 10.0), FourMomentum(-10.0, 0.0, 0.0, 10.0)]
        jets = inclusive_jets(cluster(GenKt(-1.0, 0.4), momenta))
        book = book_jets!(standard_book(250), jets; weight=2.0)
        @test integral(book[:pt]) == 4
        @test average(book[:multiplicity]) == 2
        @test average(book[:dijet_mass]) ≈ 20
        @test keys(book) == [:pt, :multiplicity, :dijet_mass, :rapidity]
        @test_throws KeyError book[:none]
        merge!(book, book_jets!(standard_book(250), jets[1:1]))
        @test integral(book[:pt]) == 5
        @test integral(book[:dijet_mass]) == 2
        text = sprint(render, book)
        @test occursin("mass of the two hardest jets [GeV]", text)
    end
end
