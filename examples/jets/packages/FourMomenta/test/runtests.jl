using FourMomenta
using Test

@testset "FourMomenta" begin
    p = FourMomentum(3.0, 4.0, 12.0, 14.0)

    @testset "observables" begin
        @test pt(p) == 5.0
        @test momentum2(p) == 169.0
        @test mass2(p) ≈ 27.0
        @test mass(p) ≈ sqrt(27.0)
        @test mass(FourMomentum(3.0, 0.0, 0.0, 1.0)) ≈ -sqrt(8.0)
        @test rapidity(p) ≈ 0.5 * log((14 + 12) / (14 - 12))
        @test rapidity(FourMomentum(3.0, 4.0, -12.0, 14.0)) ≈ -rapidity(p)
        @test pseudorapidity(p) ≈ asinh(12 / 5)
        @test rapidity(FourMomentum(0.0, 0.0, 7.0, 7.0)) == 100007.0
        @test rapidity(FourMomentum(0.0, 0.0, -7.0, 7.0)) == -100007.0
    end

    @testset "azimuth lies in [0, 2π)" begin
        for degrees in 0:15:345
            a = deg2rad(degrees)
            @test azimuth(FourMomentum(cos(a), sin(a), 0.0, 1.0)) ≈ a atol = 1e-12
        end
        @test azimuth(FourMomentum(1.0, -1e-300, 0.0, 1.0)) < 2π
        @test azimuth(FourMomentum(0.0, 0.0, 1.0, 1.0)) == 0.0
        left = FourMomentum(1.0, 0.1, 0.0, 2.0)
        right = FourMomentum(1.0, -0.1, 0.0, 2.0)
        @test delta_phi(left, right) ≈ 2 * atan(0.1)
    end

    @testset "arithmetic" begin
        @test p + p == 2 * p
        @test p - p == zero(p)
        @test -p + p == zero(FourMomentum{Float64})
        @test FourMomentum(1, 2, 3, 4) isa FourMomentum{Float64}
        @test FourMomentum{Float32}(p) isa FourMomentum{Float32}
        @test invariant_mass(FourMomentum(0.0, 0.0, 45.6, 45.6),
                             FourMomentum(0.0, 0.0, -45.6, 45.6)) ≈ 91.2
        @test cos_angle(p, p) ≈ 1.0
        @test cos_angle(p, -p) ≈ -1.0
        @test repr(p) == "FourMomentum(3.0, 4.0, 12.0, 14.0)"
    end

    @testset "boosts" begin
        at_rest = boost_to_rest(p, p)
        @test at_rest ≈ FourMomentum(0.0, 0.0, 0.0, mass(p)) atol = 1e-12
        @test boost(at_rest, velocity(p)) ≈ p
        q = from_mass(0.3, -0.2, 5.0, 0.13957)
        @test mass(boost(q, (0.1, 0.7, -0.4))) ≈ 0.13957 rtol = 1e-9
        @test boost(q, (0.0, 0.0, 0.0)) == q
        @test_throws ArgumentError boost(q, (1.0, 0.0, 0.0))
        @test_throws ArgumentError from_mass(0.0, 0.0, 1.0, -1.0)
    end
end
