"""Failures of memory, of data loader processes and of shared memory are told apart, with the remedy."""

import os
import signal
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
from conftest import ROOT
from torch.utils.data import Dataset

from common.cli.errors import run_script
from common.cli.failures import batch_hint, explain_failure
from common.training.loader import make_loader

Key = namedtuple("Key", "index")


def fill_shared_memory():
    """What torch raises in a worker, or what the kernel sends it, depending on who allocates."""
    raise RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)")


FAULTS = {
    "value": lambda: (_ for _ in ()).throw(ValueError("no picture\nof a cat")),
    "key": lambda: {}["wheels"],
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "bus": lambda: os.kill(os.getpid(), signal.SIGBUS),
    "full": fill_shared_memory,
    "files": lambda: (_ for _ in ()).throw(OSError(24, "Too many open files")),
    "memory": lambda: torch.empty(10**15),
}
EXPECTED = {
    "value": "ValueError: no picture of a cat in images/7.png (in a data loader process)",
    "key": "KeyError: 'wheels' in images/7.png (in a data loader process)",
    "killed": "a data loader process was killed, usually for lack of memory (DataLoader worker (pid",
    "bus": "shared memory is full",
    "full": "shared memory is full",
    "files": "too many open files",
    "memory": "out of memory (",
}


class Faulty(Dataset):
    def __init__(self, fault):
        self.fault = fault

    def __len__(self):
        return 8

    def __getitem__(self, key):
        if key.index == 7:
            FAULTS[self.fault]()
        return key.index

    def file_of(self, index):
        return f"images/{index}.png"


def run(monkeypatch, capsys, main, hint=""):
    """-> exit code and the one line on stderr."""
    monkeypatch.setattr(sys, "argv", ["train.py", "--batch_size", "8"])
    with pytest.raises(SystemExit) as caught:
        run_script(main, hint)
    shown = capsys.readouterr().err.strip().splitlines()
    return caught.value.code, [line for line in shown if line.startswith("train.py: error: ")][-1]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_loader_process(fault, monkeypatch, capsys):
    def main(_):
        loader = make_loader(Faulty(fault), [[Key(6), Key(7)]], torch.device("cpu"), 1)
        try:
            list(loader)
        finally:
            loader._iterator._shutdown_workers()  # when left to the garbage collector, torch waits for five seconds

    code, line = run(monkeypatch, capsys, main)
    assert code == 1 and line.startswith(f"train.py: error: {EXPECTED[fault]}")
    remedies = {"bus": "/dev/shm", "full": "/dev/shm", "files": "ulimit -n", "killed": "lower NUM_WORKERS"}
    assert remedies.get(fault, "") in line and ("/dev/shm" in line) == (fault in ("bus", "full"))


def test_a_loader_process_that_dies_while_it_hands_over_a_batch(monkeypatch, capsys):
    def reset(*_, **__):
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data", reset)

    def main(_):
        loader = make_loader(Faulty("value"), [[Key(6)]], torch.device("cpu"), 1)
        try:
            list(loader)
        finally:
            loader._iterator._shutdown_workers()

    assert "a data loader process was killed" in run(monkeypatch, capsys, main)[1]


def test_without_loader_processes_the_file_is_named_too(monkeypatch, capsys):
    def main(_):
        list(make_loader(Faulty("value"), [[Key(7)]], torch.device("cpu"), 0))

    assert run(monkeypatch, capsys, main)[1] == "train.py: error: no picture of a cat in images/7.png"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB). Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_the_flag_and_the_estimate(error, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--batch_size", "8"])
    hint = batch_hint("style", "lower --batch_size")

    def main(_):
        raise error

    code, line = run(monkeypatch, capsys, main, hint)
    assert code == 1 and line.startswith("train.py: error: out of memory (") and "lower --batch_size" in line
    assert line.endswith("python tools/estimate/estimate.py style --batch_size 8 --gpu_memory_gib GIB")


def test_the_cpus_allocator():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert explain_failure(caught.value).startswith("out of memory (")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("a.csv: row 3 speaks of memory"),
        RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos 64 vs 0"),
    ],
)
def test_other_errors_are_what_they_are(error):
    assert explain_failure(error) == ""


def test_a_dead_process_of_several():
    error = RuntimeError("[/pytorch/third_party/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.1]:4")
    assert explain_failure(error).startswith("another process of this run has ended (Connection closed by peer")


@pytest.mark.parametrize(
    "error, line",
    [
        ("MemoryError", "s: error: out of memory (MemoryError); the libraries alone need more\n"),
        ("ImportError('b.so: failed to map segment from shared object')", "the libraries alone need more\n"),
        ("ImportError('no module')", "ImportError: no module\n"),
    ],
)
def test_no_memory_while_libraries_are_imported(error, line):
    code = f"import sys; sys.argv[0] = 's'; from common.cli import errors; errors.exit_at_signals(); raise {error}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.endswith(line)
    assert ("Traceback" in done.stderr) == ("no module" in error)


def test_a_dead_loader_process_told_where_nothing_can_be_raised_is_not_shown():
    code = (
        "from common.cli import errors; errors.exit_at_signals()\n"
        "class Odd:\n"
        "    def __init__(self, text): self.text = text\n"
        "    def __del__(self): raise RuntimeError(self.text)\n"
        "Odd('DataLoader worker (pid 7) is killed by signal: Killed. '); Odd('another')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.count("RuntimeError") == 1 and "RuntimeError: another" in done.stderr
