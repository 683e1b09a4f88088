"""Every script answers --help and mistakes in its command line, as a file from any folder and as a module, before it
imports what takes seconds."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from processes import SINGLE_THREAD
from test_architecture import FILES

SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for path in FILES if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
WHAT_IS_NEEDED = {"llava/train.py": "--data", "vitp/train.py": "--meta_path"}  # beyond what their usage says
# Scripts whose other flags are those of a system's train.py: what they need of their own, so that these are read.
TAKES_SETTINGS = {"blip2_gated/evaluate.py": ["--checkpoint", "best.pt"], "tools/estimate/estimate.py": ["style"]}

# A Python that has imported what a parser needs: a script starts in a fork of it several times as fast, with the
# sys.argv, sys.path and working folder of a new Python, and with none of our modules loaded.
STARTER = """
import os, runpy, sys, traceback
import jsonargparse.typing
HEAVY = {"accelerate", "faiss", "matplotlib", "numpy", "scipy", "sklearn", "timm", "torch", "transformers"}
clean = list(sys.path)
for line in sys.stdin:
    how, script, folder, output, *words = line.rstrip("\\n").split("\\t")
    if not os.fork():
        stream = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        os.chdir(folder)
        sys.argv = [script, *words]
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
        print(*sorted(HEAVY & set(sys.modules)), sep=", ", flush=True)
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """(script, *words) -> exit status, output, large libraries that were imported."""
    output = tmp_path_factory.mktemp("start") / "output"
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd="/", env=SINGLE_THREAD, text=True, stdin=-1, stdout=-1
    )

    def run(script, *words, how="file", folder="/"):
        output.unlink(missing_ok=True)
        print(how, script, folder, output, *words, sep="\t", file=starter.stdin, flush=True)
        status = int(starter.stdout.readline())
        *lines, imported, _ = output.read_text().split("\n")
        return status, "\n".join(lines), imported

    yield run
    starter.communicate()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_answered_at_once(script, start):
    status, text, imported = start(ROOT / script, "--help")
    assert (status, imported) == (0, "") and text.lstrip().startswith("usage:"), text
    module = ".".join(Path(script).with_suffix("").parts)
    assert start(module, "--help", how="module", folder=ROOT) == (0, text, "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_mistakes_are_answered_at_once(script, start):
    status, text, imported = start(ROOT / script, *TAKES_SETTINGS.get(script, ()), "--no_such_flag", "1")
    assert status == 2 and "unknown flag '--no_such_flag'" in text and "\n" not in text, text
    assert imported == "" or script == "tools/estimate/estimate.py"
    usage = start(ROOT / script, "--help")[1].partition("\n\n")[0].partition(" ")[2]
    needs = " --" in usage.replace("[--name", "").replace("[--", "[") or WHAT_IS_NEEDED.get(script)
    if needs:
        status, text, imported = start(ROOT / script)
        assert (status, imported) == (2, "") and "\n" not in text, text
        assert WHAT_IS_NEEDED.get(script, "required") in text


def test_there_are_scripts():
    assert len(SCRIPTS) > 25 and {"train.py", "retrieval/search.py", "tools/push_to_hub.py"} <= set(SCRIPTS)


@pytest.mark.parametrize("script", sorted(path for path in ROOT.glob("benchmarks/*.py")), ids=lambda path: path.name)
def test_no_flag_can_be_abbreviated(script):
    """Those with a parser of argparse's own."""
    text = script.read_text(encoding="utf-8")
    assert text.count("ArgumentParser(") == text.count("allow_abbrev=False")


def test_another_package_named_clip_is_never_loaded(tmp_path):
    """One start of a Python of its own."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "__init__.py").write_text("raise SystemExit('the wrong clip')")
    done = subprocess.run(
        [sys.executable, str(ROOT / "clip" / "inference.py"), "--data_root", ".", "--model", "none.pth"],
        cwd=tmp_path,
        env={**SINGLE_THREAD, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "--metadata or --query" in done.stderr, done.stderr
