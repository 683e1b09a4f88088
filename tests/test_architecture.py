"""The rules of docs/design.md that a test can hold: who imports whom, and how long a file may get."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SYSTEMS = ("clip", "llava", "blip2_gated", "vitp")
ROOT_MODULES = {path.stem for path in ROOT.glob("*.py")}
OURS = ROOT_MODULES | {"common", "retrieval", "tools", "webpage", *SYSTEMS}
EVERY_FILE = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in (".venv", ".git")]
FILES = [path for path in EVERY_FILE if path.relative_to(ROOT).parts[0] not in ("tests", "benchmarks")]


def imported(path):
    """Whole dotted names of the modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole path"
            yield node.module
            for name in node.names:  # `from common.images import io` imports a module, too
                if (ROOT / Path(*node.module.split("."), name.name)).with_suffix(".py").is_file():
                    yield f"{node.module}.{name.name}"


def allowed(path):
    """The top-level rooms of ours that a file may import."""
    room = path.relative_to(ROOT).parts[0]
    if room in ("webpage", "app.py", "tools", "examples"):
        return OURS - {"app"}
    if room in ("multimodal_utils.py", "config.py"):
        return set()
    if room == "common":
        return {"common", "multimodal_utils"}
    if room in SYSTEMS:  # the style encoder is the expert that the others may consult
        return {room, "common", "multimodal_utils", "style_encoder", "model"}
    if room == "retrieval":  # and the modules that open each system's weights: see below
        return {"retrieval", "common", "multimodal_utils", "style_encoder", "clip", "vitp"}
    return ROOT_MODULES - {"app"} | {"common"}


OPENS_WEIGHTS = {
    "clip.checkpoint",
    "clip.image_encoder",
    "vitp.vision_encoder",
}  # what retrieval may import of a system's folder


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_map(path):
    modules = list(imported(path))
    assert {name.split(".")[0] for name in modules} & OURS <= allowed(path)
    if path.relative_to(ROOT).parts[0] == "retrieval":
        assert {name for name in modules if name.split(".")[0] in SYSTEMS} <= OPENS_WEIGHTS
    if path == ROOT / "multimodal_utils.py":
        assert {name.split(".")[0] for name in modules} <= {"torch", "math", "collections", "typing"}


def circles(edges):
    """Modules or rooms that import each other, directly or by way of others: what is left once leaves are taken off."""
    edges = {name: {target for target in targets if target != name} for name, targets in edges.items()}
    while leaves := {name for name, targets in edges.items() if not targets & edges.keys()}:
        edges = {name: targets - leaves for name, targets in edges.items() if name not in leaves}
    return edges


def test_no_module_and_no_room_of_common_imports_in_a_circle():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): set(imported(path)) for path in FILES}
    assert circles(modules) == {}
    rooms = {}
    for name, targets in modules.items():
        if name.startswith("common.") and name.count(".") > 1:
            rooms.setdefault(name.split(".")[1], set()).update(
                target.split(".")[1] for target in targets if target.startswith("common.")
            )
    assert circles(rooms) == {}


def test_nothing_of_ours_is_imported_by_name():
    for path in FILES:
        assert "import_module" not in path.read_text(encoding="utf-8"), path


def test_no_module_hides_a_library():
    names = {path.stem for path in ROOT.glob("*.py")}
    assert names.isdisjoint(sys.stdlib_module_names | {"datasets", "evaluate", "torch", "timm", "accelerate"})


def test_no_file_is_longer_than_300_lines():
    paths = [path for path in EVERY_FILE if path.relative_to(ROOT).parts[0] != "benchmarks"]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {name: count for name, count in lines.items() if count > 300} == {}


def test_no_function_is_longer_than_a_page():
    long = []
    for path in EVERY_FILE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 90:
                long.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert long == []


def test_the_repository_holds_no_weights_or_data():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert not [name for name in tracked if Path(name).suffix in {".pth", ".pt", ".safetensors", ".npz", ".bin"}]
