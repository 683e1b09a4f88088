"""SIGTERM, SIGUSR1 and Ctrl-C at any step: the state is saved, one line says how to resume, and resuming is exact."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, flags
from processes import SINGLE_THREAD, start_script, wait_until
from test_hf_trainer import make as make_hf
from test_nonfinite import Numbers, Straight, make

from common.cli.errors import Stopped
from common.training.hf_trainer import find_resume_checkpoint
from common.training.loader import in_processes
from common.training.run import provenance
from common.training.stop_signals import StopSignals, resume_advice

SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


def signal_at_read(monkeypatch, count, number):
    """The process gets a signal while its data set is read for the `count`-th time."""
    read, seen = Numbers.__getitem__, []

    def getitem(numbers, key):
        seen.append(key)
        if len(seen) == count:
            os.kill(os.getpid(), number)
        return read(numbers, key)

    monkeypatch.setattr(Numbers, "__getitem__", getitem)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("read, step", [(1, 1), (18, 5), (24, 6), (25, 7)], ids=["first", "within", "last", "second"])
def test_our_trainer_saves_at_the_next_step_and_resumes_exactly(tmp_path, monkeypatch, number, read, step):
    (tmp_path / "whole").mkdir()
    whole, _ = make(tmp_path / "whole", [7])
    list(whole.epochs())
    handlers = [signal.getsignal(each) for each in SIGNALS]
    trainer, _ = make(tmp_path, [7])
    trainer.schedule = type(trainer.schedule)(**{**vars(trainer.schedule), "save_steps": 100})
    trainer.run.close = lambda: None
    with monkeypatch.context() as patch, pytest.raises(Stopped) as caught:
        signal_at_read(patch, read, number)
        list(trainer.epochs())
    assert [signal.getsignal(each) for each in SIGNALS] == handlers
    line = r"stopped by {} at step (\d+): saved in \S+last; to resume: .* --resume"
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    stopped_at = int(re.fullmatch(line.format(name), caught.value.words)[1])
    assert step <= stopped_at <= step + 1  # not after a skipped step
    resumed, _ = make(tmp_path, [7])
    resumed.resume(seed=0)
    assert resumed.progress.step == stopped_at
    list(resumed.epochs())
    for name, value in whole.unwrapped_model.state_dict().items():
        assert torch.equal(resumed.unwrapped_model.state_dict()[name], value), name


def test_hugging_faces_trainer(tmp_path, monkeypatch):
    import test_hf_trainer

    whole = make_hf(tmp_path / "whole", [])
    whole.train()
    read = test_hf_trainer.Numbers.__getitem__

    def getitem(numbers, index):
        if index == 14:  # of the fourth step, read while the third is taken
            os.kill(os.getpid(), signal.SIGUSR1)
        return read(numbers, index)

    trainer = make_hf(tmp_path / "run", [])
    trainer.args.save_strategy = "no"
    with monkeypatch.context() as patch, pytest.raises(Stopped, match=r"stopped by SIGUSR1 at step 3: saved in \S+-3;"):
        patch.setattr(test_hf_trainer.Numbers, "__getitem__", getitem)
        trainer.train()
    resumed = make_hf(tmp_path / "run", [])
    resumed.train(resume_from_checkpoint=str(find_resume_checkpoint(tmp_path / "run", "true")))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_twice_at_once_and_a_launchers_double_is_one():
    code = (
        "import signal, sys, time; sys.path.insert(0, '.')\n"
        "from common.training.stop_signals import StopSignals\n"
        "with StopSignals() as signals:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        time.sleep(0.01)\n"
        "        if signals.number: print(int(signals.number), flush=True); signals.number\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # as timeout(1) does
    assert process.stdout.readline() == "2\n"
    time.sleep(0.6)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT


def test_resume_advice(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--data_dir", "my data"])
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert resume_advice("--resume") == "to resume: python train.py --data_dir 'my data' --resume"
    monkeypatch.setattr(sys, "argv", ["llava/train.py", "--resume_from_checkpoint=true"])
    assert resume_advice("--resume_from_checkpoint", "true").endswith("train.py --resume_from_checkpoint=true")


def test_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance()["commit"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_the_group_spares_the_loader_processes(run_arguments, tmp_path, number):
    words = [*run_arguments, *flags(epochs=500, num_workers=1, save_steps=1000, log_steps=1000)]
    process = start_script("train.py", words, start_new_session=True)
    line = process.stdout.readline()
    while "epoch 2/500" not in line:
        line = process.stdout.readline()
        assert line
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    (line,) = error.strip().splitlines()
    assert "train.py: stopped by " in line and line.endswith("--resume")
    assert (tmp_path / "checkpoints" / "last" / "checksums.json").is_file()


def test_before_the_first_step_nothing_is_moved(run_arguments, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "run.json").write_text('{"name": "earlier"}')
    process = start_script("train.py", [*run_arguments, "--epochs", "500"])
    catches = r"SigCgt:\t(.*)"  # a bit for each signal with a handler
    status = Path(f"/proc/{process.pid}/status")
    wait_until(lambda: int(re.search(catches, status.read_text())[1], 16) >> 14 & 1, process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143 and error == "train.py: stopped by SIGTERM\n"
    assert (folder / "run.json").is_file()


@pytest.mark.slow
def test_one_process_of_two_gets_the_signal_and_both_save_the_same_step(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path[:0] = ['{ROOT}', '{ROOT / 'tests'}']\n"
        "import os, pathlib, signal, test_nonfinite as here\n"
        "from common.cli.errors import run_script\n"
        "def main(_):\n"
        f"    trainer, _ = here.make(pathlib.Path('{tmp_path}'), [], ema=0, model=here.Straight(), epochs=9)\n"
        "    trainer.run.close = lambda: None\n"
        "    for epoch, _ in trainer.epochs():\n"
        "        if epoch == 1 and trainer.accelerator.process_index == 1: os.kill(os.getpid(), signal.SIGUSR1)\n"
        "run_script(main)\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(launcher, cwd="/", env=SINGLE_THREAD, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if "script.py: stopped by" in line]
    assert len(lines) == 1 and "SIGUSR1 at step 13: saved in" in lines[0], done.stderr
    assert "the same command with --resume" in lines[0] and done.stderr.count("exitcode  : 138") >= 1
    resumed, _ = make(tmp_path, [], ema=0, model=Straight(), epochs=9)
    resumed.resume(seed=0)
    assert resumed.progress.step == 13


def test_handlers_are_restored_and_only_of_the_main_thread():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert signals.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_script_that_has_said_why_it_ends_says_no_more():
    code = (
        "import atexit, os, signal, sys; sys.path.insert(0, '.')\n"
        "from common.cli.errors import exit_at_signals, run_script\n"
        "def main(_): raise ValueError('wrong')\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
        "exit_at_signals(); run_script(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "-c: error: wrong\n")


def test_loader_processes_where_the_system_lacks_calls_of_linux(monkeypatch):
    """As on macOS: no list of usable cores, no sender of a signal."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(signal, "sigwaitinfo")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    owners = list(in_processes(process_of, range(4)))
    assert len(owners) == 4 and len(set(owners)) == 2 and os.getpid() not in owners


def process_of(_):
    return os.getpid()
