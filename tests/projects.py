"""Julia projects of two tiny packages, written where a test wants them."""

from pathlib import Path

LEAF = "11111111-1111-4111-8111-111111111111"
APP = "22222222-2222-4222-8222-222222222222"
PRINTF = "de0858da-6303-5e67-8744-51eddeeeb8d7"
UNICODE = "4ec0a83e-493e-50e2-b9ac-8f72acf5a8f5"

SETTINGS = """\
name = "tiny"
targets = ["x86-64-v2"]
workload = "workload.jl"
smoke = "smoke.jl"
"""
LOCK = f"""\
# This file is machine-generated - editing it directly is not advised

[[App]]
deps = ["Leaf", "Printf"]
path = "packages/App"
uuid = "{APP}"
version = "0.1.0"

[[Leaf]]
path = "packages/Leaf"
uuid = "{LEAF}"
version = "0.1.0"

[[Printf]]
deps = ["Unicode"]
uuid = "{PRINTF}"

[[Unicode]]
uuid = "{UNICODE}"
"""
FILES = {
    "Headstart.toml": SETTINGS,
    "Project.toml": f'[deps]\nApp = "{APP}"\n',
    "Manifest.toml": LOCK,
    "workload.jl": 'using App\nApp.main(["4"])\n',
    "smoke.jl": 'using App\nApp.main(["3"])\n',
    "packages/Leaf/Project.toml": f'name = "Leaf"\nuuid = "{LEAF}"\nversion = "0.1.0"\n',
    "packages/Leaf/src/Leaf.jl": """\
module Leaf
struct Box{T}
    x::T
end
total(boxes) = sum(box.x for box in boxes)
end
""",
    "packages/App/Project.toml": (
        f'name = "App"\nuuid = "{APP}"\nversion = "0.1.0"\n\n[deps]\nLeaf = "{LEAF}"\nPrintf = "{PRINTF}"\n'
    ),
    "packages/App/src/App.jl": """\
module App
using Leaf, Printf
function main(args)
    boxes = [Leaf.Box(i / 2) for i in 1:parse(Int, args[1])]
    groups = Dict{String,Vector{Float64}}()
    for box in boxes
        push!(get!(groups, string(box.x), Float64[]), box.x)
    end
    @printf("total %.3f of %s\\n", Leaf.total(boxes), join(sort(collect(keys(groups))), ' '))
    return 0
end
end
""",
}


def write_project(root: Path, **changed: str) -> Path:
    """Write the project; ``changed`` replaces or adds files: ``packages__App__src__App_jl`` and the like."""
    files = {**FILES, **{_path(name): text for name, text in changed.items()}}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def _path(name: str) -> str:
    text = name.replace("__", "/")
    for ending in ("toml", "jl", "txt"):
        text = text.removesuffix(f"_{ending}") + f".{ending}" if text.endswith(f"_{ending}") else text
    return text
