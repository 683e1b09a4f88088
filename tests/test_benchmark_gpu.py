"""benchmarks/gpu.py at toy sizes: every section measures its rows beside their peers, and none outlives its limit."""

import json
import math
import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from processes import wait_until

from benchmarks.turns import run_limited

QUICK = "clip vitp style search".split()  # seconds each, most of them imports


def check_sections(names, folder):
    command = [
        sys.executable,
        "-W",
        "ignore",
        f"{ROOT}/benchmarks/gpu.py",
        "--toy",
        "--output",
        "out",
        "--only",
        *names,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    report = json.loads((folder / "out" / "gpu.json").read_text())["sections"]
    assert {name: found["failed"] for name, found in report.items() if "failed" in found} == {}
    assert (done.returncode, list(report)) == (0, names)
    table = (folder / "out" / "gpu.md").read_text()
    for name, found in report.items():
        assert found["rows"], name
        for row in found["rows"]:
            assert row["peer"] and row["what"] in table
            for value in (row["value"], row["peer_value"]):
                assert math.isfinite(value) and value > 0, row


def test_sections_have_rows_beside_their_peers(tmp_path):
    check_sections(QUICK, tmp_path)


@pytest.mark.slow
def test_every_other_section_has_rows_beside_their_peers(tmp_path):
    from benchmarks.gpu import SECTIONS  # imports every system

    check_sections([name for name in SECTIONS if name not in QUICK], tmp_path)  # minutes of compiling


def hang(flags):
    child = subprocess.Popen(["sleep", "600"])
    print(json.dumps({"first": [{"rate": 1.0}], "pids": [os.getpid(), child.pid]}), flush=True)
    print('{"second": [{"ra', end="", flush=True)
    time.sleep(600)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_section_that_hangs_ends_with_its_processes_and_keeps_what_it_measured():
    found, failed = run_limited(hang, [], 2)
    assert (found["first"], failed) == ([{"rate": 1.0}], "longer than 2 s")
    assert "second" not in found
    wait_until(lambda: not any(map(is_running, found["pids"])), seconds=10)


def run_out_of_memory(flags):
    print(json.dumps({"first": 1}))
    raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB\nand more")


def test_a_section_that_fails_says_why_and_keeps_what_it_measured():
    found, failed = run_limited(run_out_of_memory, [], 60)
    assert found == {"first": 1}
    assert failed.startswith("RuntimeError: CUDA out of memory.")
