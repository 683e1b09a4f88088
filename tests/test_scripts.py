"""Every script starts, as a file from any folder and as a module, and prints its usage."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from processes import SINGLE_THREAD
from test_architecture import FILES

SCRIPTS = [
    str(path.relative_to(ROOT)) for path in FILES if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
]

# A Python that has imported the large libraries: a script starts in a fork of it ten times as fast, with the sys.argv,
# sys.path and working folder of a new Python, and with none of our modules loaded.
STARTER = """
import os, runpy, sys, traceback
import accelerate, faiss, jsonargparse, matplotlib.pyplot, open_clip, peft, timm, torch, torchvision, transformers
import scipy.optimize, sklearn.metrics, torch.utils.tensorboard
clean = list(sys.path)
for line in sys.stdin:
    how, script, folder, output = line.rstrip("\\n").split("\\t")
    if not os.fork():
        stream = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        os.chdir(folder)
        sys.argv = [script, "--help"]
        try:
            if how == "file":
                sys.path[:] = [os.path.dirname(script), *clean[1:]]
                runpy.run_path(script, run_name="__main__")
            else:
                sys.path[:] = [folder, *clean[1:]]
                runpy.run_module(script, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """(how, script, folder) -> exit status and output of its --help."""
    output = tmp_path_factory.mktemp("start") / "output"
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd="/", env=SINGLE_THREAD, text=True, stdin=-1, stdout=-1
    )

    def run(how, script, folder):
        output.unlink(missing_ok=True)
        print(how, script, folder, output, sep="\t", file=starter.stdin, flush=True)
        return int(starter.stdout.readline()), output.read_text()

    yield run
    starter.communicate()


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_starts(script, start):
    status, file = start("file", ROOT / script, "/")
    assert status == 0 and file.lstrip().startswith("usage:"), file
    module = ".".join(Path(script).with_suffix("").parts)
    assert start("module", module, ROOT) == (0, file)


def test_there_are_scripts():
    assert len(SCRIPTS) > 25 and {"train.py", "retrieval/search.py", "tools/push_to_hub.py"} <= set(SCRIPTS)


def test_another_package_named_clip_is_never_loaded(tmp_path):
    """One start of a Python of its own."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "__init__.py").write_text("raise SystemExit('the wrong clip')")
    done = subprocess.run(
        [sys.executable, str(ROOT / "clip" / "inference.py"), "--help"],
        cwd=tmp_path,
        env={**SINGLE_THREAD, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "heatmap_method" in done.stdout and done.stderr == "", done.stderr
