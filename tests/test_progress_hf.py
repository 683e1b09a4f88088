"""What Hugging Face's Trainer shows of a run: lines for epochs and evaluations, no dicts, no carriage returns."""

import re
from pathlib import Path

import pytest
from conftest import ROOT
from test_hf_trainer import Numbers, make
from transformers.utils import logging

from common.cli import progress_bar
from common.training.closing import print_closing
from common.training.hf_arguments import TrackedArguments


def test_lines_of_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0)
    trainer = make(tmp_path, [9])
    trainer.args.disable_tqdm = False
    trainer.args.logging_steps = 100  # longer than the run
    trainer.eval_dataset, trainer.can_return_loss = Numbers([]), True
    trainer.train()
    trainer.evaluate()
    shown, progress = capsys.readouterr()
    lines = shown.splitlines()
    assert [re.sub(r"\d+\.\d\d\d", "x", line) for line in lines] == [
        "epoch 1/2  step 6  0:00:00",
        "epoch 2/2  step 12  loss x  0:00:00",
        "step 12/12  eval loss x",
    ]
    assert "{" not in shown + progress and "\r" not in progress
    assert re.search(r"^epoch 2/2: \d+/12 step, .* elapsed, .* left", progress, re.MULTILINE)
    assert trainer.reached().startswith("step 12 of 12: loss ")
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [12]  # a curve nevertheless


def test_the_level_of_messages_switches_no_bar_off(tmp_path):
    before = logging.get_verbosity()
    try:
        logging.set_verbosity_error()  # as ViTP does
        assert not TrackedArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[]).disable_tqdm
    finally:
        logging.set_verbosity(before)


@pytest.mark.parametrize("inside", [True, False])
def test_commands_of_the_closing_lines_can_be_pasted(capsys, tmp_path, monkeypatch, inside):
    """Where the environment is not activated, and from another folder than the repository's."""
    installed = tmp_path / ".venv" / "bin"
    installed.mkdir(parents=True)
    for name in ("python", "tensorboard"):
        (installed / name).touch()
    monkeypatch.setattr("sys.executable", str(installed / "python3"))
    monkeypatch.chdir(tmp_path if inside else "/")
    if not inside:
        monkeypatch.setattr("sys.executable", "/no/such/folder/python3")
    start = ".venv/bin/" if inside else ""
    folder = Path("my runs")
    commands = [["clip/evaluate.py", folder], ["b.py", "What is this?"]]
    print_closing("step 2", folder / "model", folder / "results.json", folder / "run", commands)
    *_, logs, first, second = capsys.readouterr().out.splitlines()
    assert logs.endswith(f"; {start}tensorboard --logdir 'my runs'")
    assert first == f"next       {start}python {ROOT}/clip/evaluate.py 'my runs'"
    assert second.strip() == f"{start}python b.py 'What is this?'"
