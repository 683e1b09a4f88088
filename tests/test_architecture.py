"""The rules of docs/design.md that a test can hold: who imports whom, and that every script starts."""

import ast
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT

FOLDERS = ("clip", "llava", "blip2_gated", "vitp")
OURS = {path.stem for path in ROOT.glob("*.py")} | {"common", "webpage", *FOLDERS}
FILES = [
    path for path in ROOT.rglob("*.py") if not {".venv", "tests", "benchmarks"} & set(path.relative_to(ROOT).parts)
]
SCRIPTS = [path for path in FILES if "__main__" in path.read_text(encoding="utf-8")]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole path"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_map(path):
    ours = {name for name in imported(path) if name in OURS}
    place = path.relative_to(ROOT).parts[0]
    if place in ("webpage", "app.py"):  # shows all systems; nobody imports it
        return
    if path.name == "multimodal_utils.py":
        assert set(imported(path)) <= {"torch", "math", "collections", "typing"}
    elif path.name == "config.py" and len(path.relative_to(ROOT).parts) == 1:
        assert set(imported(path)) == set()
    elif place == "common":
        assert ours <= {"common", "multimodal_utils"}
    elif place in FOLDERS:
        assert ours <= {place, "common", "multimodal_utils"}
    else:
        assert ours.isdisjoint({*FOLDERS, "webpage", "app"})


def test_no_module_hides_a_library():
    names = {path.stem for path in ROOT.glob("*.py")}
    assert names.isdisjoint(sys.stdlib_module_names | {"datasets", "evaluate", "torch", "timm", "accelerate"})


@pytest.mark.parametrize("start", ["from the root", "from /", "as a module"])
def test_scripts_start(start):
    def begin(path):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        command = [sys.executable, "-m", module] if start == "as a module" else [sys.executable, str(path)]
        where = "/" if start == "from /" else ROOT
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run([*command, "--help"], cwd=where, capture_output=True, text=True, env=environment)

    assert len(SCRIPTS) >= 5
    with ThreadPoolExecutor(2) as pool:
        for path, done in zip(SCRIPTS, pool.map(begin, SCRIPTS)):
            assert done.returncode == 0 and "usage:" in done.stdout and done.stderr == "", f"{path}: {done.stderr}"


def test_no_function_is_longer_than_a_page():
    long = []
    for path in FILES + list((ROOT / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert long == []


def test_the_repository_holds_no_weights_or_data():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert not [name for name in tracked if Path(name).suffix in {".pth", ".pt", ".safetensors", ".npz", ".bin"}]


def test_another_package_named_clip_is_never_loaded(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "__init__.py").write_text("raise SystemExit('the wrong clip')")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    script = str(ROOT / "clip" / "inference.py")
    for command, where in (([script], "/"), ([script], tmp_path), (["-m", "clip.inference"], ROOT)):
        done = subprocess.run(
            [sys.executable, *command, "--help"], cwd=where, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 and "heatmap_method" in done.stdout, done.stderr
