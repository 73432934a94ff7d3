using FourMomenta
using JetClustering
using Test

# Deterministic momenta without a library: a multiplicative generator, its high bits.
function momenta(n, seed)
    state = UInt64(seed)
    draw() = (state = state * 0x5851f42d4c957f2d + 0x14057b7ef767814f; (state >> 11) / 2.0^53)
    return [from_mass(10draw() - 5, 10draw() - 5, 10draw() - 5, 0.14) for _ in 1:n]
end

# The definition itself: all pairs, every step.
function by_definition(algorithm, particles; ptmin)
    left, jets = copy(particles), eltype(particles)[]
    norm = JetClustering.separation_norm(algorithm)
    weight(p) = JetClustering.energy_weight(algorithm, energy(p))
    while !isempty(left)
        best = (Inf, 0, 0)
        for i in eachindex(left)
            best = min(best, (JetClustering.beam_distance(algorithm, weight(left[i])), i, 0))
            for j in 1:(i - 1)
                d = min(weight(left[i]), weight(left[j])) * (1 - cos_angle(left[i], left[j])) * norm
                best = min(best, (d, i, j))
            end
        end
        _, i, j = best
        i == 0 && (push!(jets, only(left)); break)
        if j == 0
            push!(jets, left[i])
        else
            left[j] += left[i]
        end
        deleteat!(left, i)
    end
    return sort!(filter!(p -> pt(p) >= ptmin, jets); by=pt, rev=true)
end

@testset "JetClustering" begin
    @testset "equals the definition: $algorithm" for algorithm in (
        GenKt(-1.0, 1.0), GenKt(-1.0, 0.4), GenKt(0.0, 0.7), GenKt(1.0, 1.5), GenKt(0.5, 3.5),
    )
        for n in (1, 2, 3, 10, 60), seed in 1:5
            particles = momenta(n, seed)
            jets = inclusive_jets(cluster(algorithm, particles); ptmin=1.0)
            expected = by_definition(algorithm, particles; ptmin=1.0)
            @test length(jets) == length(expected)
            @test all(jets[i].momentum ≈ expected[i] for i in eachindex(jets))
        end
    end

    @testset "nothing is lost" begin
        particles = momenta(80, 7)
        sequence = cluster(GenKt(-1.0, 0.5), particles)
        jets = inclusive_jets(sequence)
        @test sum(j.momentum for j in jets) ≈ sum(particles)
        @test sort!(reduce(vcat, [constituents(sequence, j) for j in jets])) == 1:80
        @test issorted(jets; by=j -> -pt(j.momentum))
        for jet in jets
            @test sum(particles[i] for i in constituents(sequence, jet)) ≈ jet.momentum
        end
    end

    @testset "Durham" begin
        particles = momenta(40, 3)
        sequence = cluster(Durham(), particles)
        @test all(s -> s.second != 0, sequence.steps[1:39])
        for n in 1:5
            jets = exclusive_jets(sequence; njets=n)
            @test length(jets) == n
            @test sum(j.momentum for j in jets) ≈ sum(particles)
        end
        @test length(exclusive_jets(sequence; njets=99)) == 40
        y34, y23 = merge_scale(sequence, 3), merge_scale(sequence, 2)
        @test y23 >= y34 > 0
        @test length(exclusive_jets(sequence; dcut=(y23 + y34) / 2)) == 3
        @test merge_scale(sequence, 40) == 0
        pair = cluster(Durham(), [FourMomentum(0.0, 3.0, 0.0, 3.0), FourMomentum(4.0, 0.0, 0.0, 4.0)])
        @test merge_scale(pair, 1) ≈ 2 * 9
    end

    @testset "edges" begin
        none = cluster(GenKt(-1.0, 1.0), FourMomentum{Float64}[])
        @test isempty(inclusive_jets(none))
        one_only = cluster(GenKt(-1.0, 1.0), [FourMomentum(0.0, 0.0, 0.0, 1.0)])
        @test length(inclusive_jets(one_only)) == 1
        same = fill(FourMomentum(1.0, 0.0, 0.0, 1.0), 4)
        @test only(inclusive_jets(cluster(GenKt(1.0, 0.4), same))).momentum == FourMomentum(4.0, 0.0, 0.0, 4.0)
        narrow = [FourMomentum{Float32}(p) for p in momenta(20, 1)]
        @test inclusive_jets(cluster(GenKt(-1.0, 1.0), narrow)) isa Vector{Jet{Float32}}
        @test_throws ArgumentError GenKt(-1.0, 0.0)
        @test_throws ArgumentError GenKt(NaN, 1.0)
        @test_throws ArgumentError cluster(Durham(), [FourMomentum(1.0, 0.0, 0.0, 0.0)])
        @test_throws ArgumentError exclusive_jets(none)
        @test_throws ArgumentError exclusive_jets(none; njets=0)
    end

    @test string(GenKt(-1, 1)) == "generalised kt, p = -1.0, R = 1.0"
end
