"""
    JetClustering

Sequential recombination of e+e- events into jets, in plain N²: the generalised kt algorithm
[`GenKt`](@ref) and the [`Durham`](@ref) algorithm, with the definitions of FastJet
(M. Cacciari, G. P. Salam, G. Soyez, Eur. Phys. J. C 72 (2012) 1896, sections 4.5 and 4.6).

```julia
sequence = cluster(GenKt(-1.0, 1.0), momenta)
jets = inclusive_jets(sequence; ptmin=5.0)
```
"""
module JetClustering

using FourMomenta

export ClusterSequence, Durham, GenKt, Jet, SequentialAlgorithm
export cluster, constituents, exclusive_jets, inclusive_jets, merge_scale

include("algorithms.jl")
include("sequence.jl")
include("jets.jl")

end
