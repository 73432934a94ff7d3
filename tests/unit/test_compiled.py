"""What Julia says about compiling, in its own words of several versions."""

import pytest

from headstart.compiled import (
    Cost,
    Miss,
    failed_extensions,
    listed,
    miss,
    only_julias,
    rejection,
    statements,
)

# As 1.5.3 says it; which package it was it does not say.
OLD = """\
ERROR: LoadError: IOError: mkdir: file already exists (EEXIST)
Stacktrace:
 [1] uv_error at ./libuv.jl:97 [inlined]
 [2] mkdir(::String; mode::UInt16) at ./file.jl:177
 [6] compilecache_path(::Base.PkgId) at ./loading.jl:1228
 [7] compilecache(::Base.PkgId, ::String) at ./loading.jl:1258
in expression starting at /cvmfs/x.org/p/src/P.jl:1
in expression starting at /work dir/job.jl:2
"""
# As 1.10 says it, on a read-only depot.
READ_ONLY = """\
before
ERROR: LoadError: IOError: mkdir("/cvmfs/x.org/images/x86-64-v3/compiled/v1.10/Foreign"; mode=0o777): \
read-only file system (EROFS)
Stacktrace:
  [1] uv_error(prefix::String, c::Int32)
  [9] maybe_cachefile_lock(f::Base.var"#968#969"{Base.PkgId}, pkg::Base.PkgId, srcpath::String)
in expression starting at /job.jl:7
"""
STRICT = """\
ERROR: LoadError: Precompiled image Base.PkgId(Base.UUID("33333333-3333-4333-8333-333333333333"), "Foreign") \
not available with flags CacheFlags(; use_pkgimages=true, debug_level=1)
Stacktrace:
  [1] error(s::String)
in expression starting at /job.jl:1
"""
PLAIN = "ERROR: Precompiled image Foreign [33333333-3333-4333-8333-333333333333] not available with flags x\n"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (OLD, Miss(name="", uuid="", place="/work dir/job.jl:2")),
        (READ_ONLY, Miss(name="Foreign", uuid="", place="/job.jl:7")),
        (STRICT, Miss(name="Foreign", uuid="33333333-3333-4333-8333-333333333333", place="/job.jl:1")),
        (PLAIN, Miss(name="Foreign", uuid="33333333-3333-4333-8333-333333333333", place="")),
        ("", None),
        ('ERROR: LoadError: IOError: open("/x"): permission denied\nStacktrace:\n [1] read at x\n', None),
        ("the words: Precompiled image Foreign [x] not available with flags\n", None),
        ("ERROR: LoadError: UndefVarError: x not defined\n", None),
    ],
)
def test_the_end_of_a_julia_that_may_not_compile(said: str, found: Miss | None) -> None:
    assert miss(said) == found


def test_a_miss_is_named_as_well_as_can_be() -> None:
    assert Miss(name="A", uuid="", place="x:1").what == "A"
    assert Miss(name="", uuid="", place="x:1").what == "a package that x:1 asks for"
    assert Miss(name="", uuid="", place="").what == "a package"


@pytest.mark.parametrize(
    ("said", "clause"),
    [
        (
            "Rejecting cache file /d/A/x.ji for A [1] since the flags are mismatched\n│   requested flags: x\n",
            "the flags are mismatched",
        ),
        (
            "Rejecting cache file /d/x.ji because it is for file /a/A.jl not file /b/A.jl\n└ @ Base x\n",
            "it is for file /a/A.jl not file /b/A.jl",
        ),
        (
            "Rejecting stale cache file /d/x.ji (mtime 1.0) because file /a b/A.jl (mtime 2) has changed\n",
            "file /a b/A.jl (mtime 2) has changed",
        ),
        (
            "Rejecting cache file /d/x.ji due to it containing an invalid cache header\n└ @ Base\n",
            "it contains an invalid cache header",
        ),
        (
            "Rejecting cache file /d/x.ji for A [1]:\n│   Reasons =\n│    1-element Vector{String}:\n",
            "it is for another CPU",
        ),
        ("Rejecting cache file /d/x.ji for A [1]:\n│   Reasons = Target\n", "it is for another CPU (Target)"),
        ("nothing\n", ""),
    ],
)  # fmt: skip
def test_why_a_cache_was_not_taken(said: str, clause: str) -> None:
    assert rejection(said) == clause


def test_the_last_rejection_counts() -> None:
    first = "Rejecting cache file /d/a.ji because it has an invalid checksum\n"
    last = "Rejecting cache file /d/b.ji because preferences hash does not match 0x1 != 0x2\n"
    assert rejection(first + last) == "preferences hash does not match 0x1 != 0x2"


def test_extensions_that_failed() -> None:
    line = (
        "┌ Error: Error during loading of extension TwoExt of One, use `Base.retry_load_extensions()` to ...\n"
    )
    assert failed_extensions(line + line) == ("TwoExt of One",)
    assert failed_extensions("fine\n") == ()


def test_statements_are_told_apart_by_the_modules_they_name() -> None:
    own = (
        "precompile(Tuple{typeof(Base.print), Base.IOBuffer, UInt16})",
        "precompile(Tuple{typeof(exit), Int64})",
    )
    standard = frozenset({"Dates"})
    assert only_julias(own, standard)
    assert only_julias(("precompile(Tuple{typeof(Dates.now)})",), standard)
    for foreign in ("Main.f", "App.main", 'Base.var"#1#2"}, Main.T', "App.Inner.f"):
        assert not only_julias((f"precompile(Tuple{{typeof({foreign})}})",), standard)


def test_what_was_compiled_is_listed_briefly() -> None:
    trace = "".join(f"precompile(Tuple{{typeof(Main.f{number})}})\n" for number in range(5))
    assert len(statements(trace)) == 5
    said = listed(statements(f"on a line {trace}"))
    assert said.startswith("5 methods: precompile(Tuple{typeof(Main.f0)}); ")
    assert said.endswith("; ...")
    assert listed(("precompile(Tuple{typeof(f)})",)) == "1 method: precompile(Tuple{typeof(f)})"


def test_figures_are_the_last_ones() -> None:
    assert Cost.parse("") is None
    cost = Cost.parse("headstart-compiled: 1 2\nx\nheadstart-compiled: 12300000 84000\n")
    assert cost == Cost(nanoseconds=12_300_000, code_bytes=84_000)
    assert str(cost) == "84,000 bytes of machine code in 12.3 ms"
    assert not cost.beyond(cost)
    assert cost.beyond(Cost(nanoseconds=12_300_000, code_bytes=0))
