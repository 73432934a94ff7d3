"""What real Julias have ready after statements were replayed, of methods that are called past others too."""

from pathlib import Path

import pytest

from headstart.datafiles import data_path
from juliahelp import StockJulia

pytestmark = pytest.mark.slow

CODE = """
f(x::Integer) = string(x)
f(x::Int64) = 1
include(ARGS[1])(ARGS[2], Module())
if VERSION >= v"1.9"
    Base.cumulative_compile_timing(true)
    before = Base.cumulative_compile_time_ns()[1]
    Base.invokelatest(invoke, f, Tuple{Integer}, length(ARGS))
    println(Base.cumulative_compile_time_ns()[1] - before)
end
"""
CHOSEN = "precompile(Tuple{typeof(Main.f), Int64})\n"
BEHIND = "invoked(Tuple{typeof(Main.f), Int64})\n"


@pytest.mark.parametrize("statements", [CHOSEN, CHOSEN + BEHIND, BEHIND + CHOSEN])
def test_what_is_called_past_a_more_specific_method_is_ready_when_it_is_asked_for(
    julia: StockJulia, tmp_path: Path, statements: str
) -> None:
    (tmp_path / "code.jl").write_text(CODE)
    (tmp_path / "statements").write_text(statements)
    done = julia.run(str(tmp_path / "code.jl"), data_path("replay.jl"), str(tmp_path / "statements"))
    assert done.returncode == 0, done.stderr
    known = (julia.version.major, julia.version.minor) >= (1, 9)
    skipped = 0 if known else statements.count(BEHIND)
    count = len(statements.splitlines())
    assert f"headstart-replayed: {count - skipped} statements, skipped {skipped}" in done.stderr
    if known:
        assert (int(done.stdout) == 0) is (BEHIND in statements)


def test_a_statement_that_no_method_fits_is_skipped(julia: StockJulia, tmp_path: Path) -> None:
    (tmp_path / "code.jl").write_text(CODE)
    (tmp_path / "statements").write_text(
        "precompile(Tuple{typeof(Main.f), String})\ninvoked(Tuple{Nowhere.g})\n"
    )
    done = julia.run(str(tmp_path / "code.jl"), data_path("replay.jl"), str(tmp_path / "statements"))
    assert "headstart-replayed: 0 statements, skipped 2" in done.stderr
