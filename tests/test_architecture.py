"""The house stands as docs/architecture.md draws it: five layers, imports only downward."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "headstart"

LAYERS = (
    # 1 values
    {"errors", "names", "release", "dsse", "ed25519", "channel", "reference", "microarchitecture", "julia",
     "project", "gittree", "image", "script", "record", "tomltable", "route", "juliasource", "lint",
     "cacheheader", "juliahash", "session", "projectfiles", "environment", "reasons", "staleness", "verdicts",
     "openscript", "opensession", "compiled", "shellcode", "versionspec", "lockcheck", "lockchoice",
     "overrides", "nodefacts", "mountinfo",
     "clock", "bundle",
     "s3place",
     "launchfiles", "releasestatement", "wording", "httphead"},
    # 2 format
    {"cvmfs"},
    # 3 edges
    {"process", "namespace", "machine", "keys", "store", "stratum", "snapshot", "published", "cache", "tree",
     "arrival", "console", "datafiles", "inflating", "loopback", "deflating", "ingest", "stage",
     "publickeys", "webstratum", "wire", "fetching", "source", "shortcut", "parallel", "directories",
     "failover", "siteconfig", "official", "juliahost", "depotfiles", "blacklists", "tokens", "supervise",
     "treestate", "bounded", "surroundings", "probing",
     "memory", "objectfiles", "smallfiles", "largefiles", "workbench", "workshop",
     "crew", "webserver",
     "bucket", "lease", "s3store",
     "holders", "holdername", "locking", "leases", "ownership", "usage", "neighbours", "namedfile"},
    # 4 verbs
    {"build", "repository", "hydrate", "launch", "inspect", "demo", "init", "explain", "diff", "status",
     "doctor",
     "channelhistory",
     "prune", "cachecheck"},
    # 5 command line
    {"cli", "__main__"},
)  # fmt: skip

NODE = {
    "errors", "names", "release", "dsse", "ed25519", "channel", "reference", "microarchitecture", "namespace",
    "webstratum", "wire", "httphead", "publickeys", "arrival", "route", "failover", "siteconfig", "tomltable",
    "stratum", "fetching", "snapshot", "published", "cache", "inflating", "hydrate", "launch", "inspect",
    "process", "record", "script", "source", "shortcut", "parallel", "directories", "cli.starting",
    "cli.reading", "cvmfs.entry", "cvmfs.rows", "cvmfs.database", "cvmfs.check", "cvmfs.faults",
    "cvmfs.rowrules", "cvmfs.examine", "cvmfs.examined", "cvmfs.rowwalk",
    "cvmfs.objects", "cvmfs.catalog", "cvmfs.der", "cvmfs.signature", "cvmfs.manifest", "cvmfs.whitelist",
    "cvmfs.trust", "cvmfs.history", "cvmfs.past", "blacklists", "cli", "cli.run", "cli.list", "cli.show",
    "cli.verify", "cli.diff", "diff", "status", "openscript", "compiled", "opensession", "shellcode",
    "supervise",
    "julia", "datafiles", "cli.checking", "cli.shell", "cli.env", "nodefacts", "mountinfo", "bounded",
    "surroundings", "probing", "doctor", "doctor.finding", "doctor.gather", "doctor.here", "doctor.there",
    "cli.doctor", "clock", "memory", "channelhistory", "cli.history",
     "launchfiles", "holders", "holdername", "locking", "leases", "ownership", "usage", "neighbours", "prune",
     "cachecheck", "cli.cache", "releasestatement", "wording",
    "namedfile", "cli.streams",
}  # fmt: skip

PURE_FORBIDDEN_MODULES = {
    "os", "pathlib", "subprocess", "socket", "urllib", "http", "time", "random", "tempfile", "shutil", "ctypes",
}  # fmt: skip
PURE_FORBIDDEN_NAMES = {"open", "print", "input"}
OPTIONAL = {"inflating": {"isal"}}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
del MODULES[""]


def layer(module: str) -> int:
    top = module.split(".", maxsplit=1)[0]
    found = [number for number, names in enumerate(LAYERS, start=1) if top in names]
    assert len(found) == 1, f"{module} is in no layer of tests/test_architecture.py"
    return found[0]


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def imports_of(module: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            base = node.module or ""
            names |= {
                f"{base}.{alias.name}" if f"{base}.{alias.name}".removeprefix("headstart.") in MODULES else base
                for alias in node.names
            }
    return names


def own(names: set[str]) -> set[str]:
    return {name.removeprefix("headstart.") for name in names if name.startswith("headstart.")}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_to_the_same_layer_or_down(module: str) -> None:
    for imported in own(imports_of(module)):
        assert layer(imported) <= layer(module), f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if layer(name) == 4))
def test_verbs_do_not_import_each_other(module: str) -> None:
    # The demo is the one verb made of the others.
    if module.split(".", maxsplit=1)[0] != "demo":
        others = {name for name in own(imports_of(module)) if layer(name) == 4}
        assert {name for name in others if name.split(".")[0] != module.split(".", maxsplit=1)[0]} == set()


@pytest.mark.parametrize("module", sorted(name for name in MODULES if layer(name) <= 2))
def test_values_and_format_touch_nothing(module: str) -> None:
    tops = {name.split(".")[0] for name in imports_of(module)}
    assert tops & PURE_FORBIDDEN_MODULES == set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Name):
            assert node.id not in PURE_FORBIDDEN_NAMES, f"{module}:{node.lineno} names {node.id}"
        if isinstance(node, ast.Attribute):
            assert not (node.attr == "now" and ast.unparse(node.value).endswith("datetime"))


@pytest.mark.parametrize("module", sorted(name for name in MODULES if layer(name) <= 4))
def test_only_the_command_line_reads_the_environment_the_arguments_and_the_clock(module: str) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            # namespace.main is a program of its own: it passes its environment on to what it becomes.
            allowed = module == "namespace" and text == "os.environ"
            assert allowed or text not in (
                "os.environ",
                "os.getenv",
                "sys.argv",
                "time.time",
                "datetime.now",
            ), f"{module}:{node.lineno} reads {text}"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if layer(name) <= 4))
def test_imports_stand_at_the_head_of_the_module(module: str) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [part for part in ast.walk(node) if isinstance(part, ast.Import | ast.ImportFrom)]
            assert not inner, f"{module}:{inner[0].lineno} imports inside {node.name}"


def test_imports_have_no_cycles() -> None:
    graph = {module: {name for name in own(imports_of(module)) if name in MODULES} for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", sorted(NODE & set(MODULES)))
def test_a_node_needs_the_standard_library_only(module: str) -> None:
    standard = sys.stdlib_module_names
    foreign = {name.split(".")[0] for name in imports_of(module)} - standard - {"headstart"}
    assert foreign <= OPTIONAL.get(module, set())
    inner = own(imports_of(module))
    assert {name for name in inner if name in MODULES} <= NODE | {"cli", "console", "keys", "cvmfs"}


def test_every_module_is_of_a_readable_size() -> None:
    sizes = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: size for name, size in sizes.items() if size > 500} == {}
    for name in MODULES:
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= 80, f"{name}.{node.name} has {lines} lines"


def test_every_exit_code_stands_once() -> None:
    tree = tree_of("errors")
    codes = [
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "exit_code"
        if isinstance(node.value, ast.Constant)
    ]
    assert len(codes) == len(set(codes)) >= 10
    assert not set(codes) & {0, 1, 2, *range(126, 256)}
