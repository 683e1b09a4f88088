"""A step whose loss or gradient is not finite is left out, counted and named; too many in a row end the run."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from conftest import ROOT, Normalised
from processes import torchrun
from torch import nn
from torch.utils.data import DataLoader

from common.training.samplers import DeterministicBatchSampler
from common.training.schedule import TrainSchedule, set_learning_rate
from common.training.trainer import Trainer

COUNT, WIDTH = 24, 5


class Numbers:
    """Rows of numbers; those of `poisoned` are NaN."""

    def __init__(self, poisoned=()):
        self.rows = torch.randn(COUNT, WIDTH, generator=torch.Generator().manual_seed(0))
        self.rows[list(poisoned)] = math.nan

    def __getitem__(self, key):
        return {"rows": self.rows[key.index]}

    def file_of(self, index):
        return f"row_{index}.png"


class Learner(Normalised):
    def forward(self, rows):
        loss = super().forward(rows)
        return loss, {"part": loss.detach() * 2}


def make(tmp_path, poisoned, accumulation=1, limit=5, epochs=2, ema=0.5, model=None):
    model = model or Learner()
    accelerator = Accelerator(cpu=True)
    batches = DeterministicBatchSampler(COUNT, 4, 1, accelerator.process_index, accelerator.num_processes)
    loader = DataLoader(Numbers(poisoned), batch_sampler=batches)
    logged = []
    (tmp_path / "logs").mkdir(exist_ok=True)
    run = SimpleNamespace(
        log_folder=tmp_path / "logs", trained_on={}, log=lambda step, values: logged.append((step, values))
    )
    plan = TrainSchedule(epochs, 0.01, 0.0, 3, 1.0, accumulation, 1, 1, limit)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    return Trainer(accelerator, model, optimizer, loader, plan, run, tmp_path / "last", ema), logged


class Straight(nn.Module):
    """Without batch normalisation, which would see another batch on each device."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(WIDTH, 1)

    def forward(self, rows):
        return self.line(rows).square().mean(), {}


def by_hand(poisoned, accumulation=1, epochs=2, ema=0.5):
    """The same training, written out; a step with a poisoned row does not take place."""
    data, model, batches = Numbers(), Learner(), DeterministicBatchSampler(COUNT, 4, seed=1)
    average = {name: value.clone().float() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    per_epoch, step, taken = 6 // accumulation, 0, 0
    for epoch in range(epochs):
        batches.set_position(epoch)
        rows = [[key.index for key in batch] for batch in batches]
        for first in range(0, per_epoch * accumulation, accumulation):
            group = rows[first : first + accumulation]
            set_learning_rate(optimizer, step, per_epoch, TrainSchedule(epochs, 0.01, 0.0, 3))
            step += 1
            if set(poisoned) & {index for batch in group for index in batch}:
                continue
            taken += 1
            for batch in group:
                (model(data.rows[batch])[0] / accumulation).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            for name, value in model.state_dict().items():  # the first update copies
                average[name] = value.clone().float() if taken == 1 else average[name] * ema + value * (1 - ema)
    return model, average, step, taken


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("infinite_gradient", [False, True], ids=["loss", "gradient"])
def test_weights_are_those_of_a_run_without_the_step(tmp_path, accumulation, infinite_gradient, capsys):
    trainer, logged = make(tmp_path, [7], accumulation, model=Learner(infinite_gradient))
    epochs = list(trainer.epochs())
    model, average, steps, taken = by_hand([7], accumulation)
    assert steps - taken == trainer.progress.skipped_steps == 2 and trainer.progress.step == steps
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trainer.unwrapped_model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
        if value.is_floating_point():
            torch.testing.assert_close(trainer.eval_model.state_dict()[name], average[name], rtol=1e-4, atol=1e-5)
    states = trainer.optimizer.state_dict()["state"].values()
    assert all(state["step"] == taken and state["exp_avg"].isfinite().all() for state in states)
    assert all(math.isfinite(value) for _, means in epochs for value in means.values())
    assert [step for step, _ in logged] == list(range(1, steps + 1))
    assert logged[-1][1]["train/skipped_steps"] == 2 and "NaN" not in json.dumps(logged)
    bad = [step for step, values in logged if "train/loss" not in values]
    lines = [json.loads(line) for line in (tmp_path / "logs" / "skipped_steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == bad and len(bad) == 2
    assert all("row_7.png" in line["files"] and len(line["files"]) == 4 * accumulation for line in lines)
    what = "the gradient" if infinite_gradient else "the loss"
    shown = capsys.readouterr().err
    assert f"skipped: step {bad[0]}, {what} is not finite; its files: row_" in shown


def test_means_are_over_the_steps_that_were_taken(tmp_path):
    trainer, logged = make(tmp_path, [7], epochs=1)
    ((_, means),) = trainer.epochs()
    losses = [values["train/loss"] for _, values in logged if "train/loss" in values]
    assert len(losses) == 5 and means["loss"] == pytest.approx(sum(losses) / 5)


def test_too_many_in_a_row_end_the_run_with_names(tmp_path):
    trainer, _ = make(tmp_path, range(COUNT), limit=3)
    with pytest.raises(ValueError) as caught:
        list(trainer.epochs())
    words = str(caught.value)
    assert "the loss is not finite at step 3, the last of 3 such steps in a row; its files: row_" in words
    assert "\n" not in words and "learning rate" in words
    assert not (tmp_path / "last").exists()  # nothing is written after a bad step
    first = Learner().state_dict()
    assert all(torch.equal(first[name], value) for name, value in trainer.unwrapped_model.state_dict().items())


def test_a_good_step_in_between_starts_the_count_again(tmp_path):
    batches = DeterministicBatchSampler(COUNT, 4, seed=1)
    order = [[key.index for key in batch] for batch in batches]
    trainer, _ = make(tmp_path, order[0] + order[2] + order[4], limit=2, epochs=1)
    list(trainer.epochs())
    assert trainer.progress.skipped_steps == 3


def test_an_epoch_without_a_good_step_ends_the_run(tmp_path):
    trainer, _ = make(tmp_path, range(COUNT), limit=50)
    with pytest.raises(ValueError, match="epoch 1: no step with a finite loss"):
        list(trainer.epochs())


def test_a_resumed_run_goes_on_counting(tmp_path):
    (tmp_path / "whole").mkdir()
    whole, _ = make(tmp_path / "whole", [7])
    list(whole.epochs())
    stopped, _ = make(tmp_path, [7])
    for epoch, _ in stopped.epochs():
        if epoch == 1:
            break  # before the second epoch's end is written; last/ is of one of its steps
    resumed, _ = make(tmp_path, [7])
    resumed.resume(seed=0)
    assert 6 < resumed.progress.step <= 12
    list(resumed.epochs())
    assert resumed.progress.skipped_steps == whole.progress.skipped_steps == 2
    for name, value in whole.unwrapped_model.state_dict().items():
        assert torch.equal(resumed.unwrapped_model.state_dict()[name], value), name


@pytest.mark.slow
def test_two_processes_decide_alike(tmp_path):
    """The bad row is in one process's share of its batch; both leave the step out, and name all of its files."""
    (tmp_path / "one").mkdir()
    alone, _ = make(tmp_path / "one", [7], ema=0, model=Straight())
    list(alone.epochs())
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys; sys.path[:0] = ['{ROOT}', '{ROOT / 'tests'}']\n"
        "import pathlib, torch, test_nonfinite as here\n"
        f"folder = pathlib.Path('{tmp_path}')\n"
        "trainer, _ = here.make(folder, [7], ema=0, model=here.Straight())\n"
        "list(trainer.epochs())\n"
        "found = {'weights': trainer.unwrapped_model.state_dict(), 'skipped': trainer.progress.skipped_steps}\n"
        "torch.save(found, folder / f'rank_{trainer.accelerator.process_index}.pt')\n"
        "trainer.accelerator.end_training()\n"
    )
    torchrun(str(script), [])
    for rank in (0, 1):
        found = torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True)
        assert found["skipped"] == alone.progress.skipped_steps == 2
        for name, value in alone.unwrapped_model.state_dict().items():
            torch.testing.assert_close(found["weights"][name], value, rtol=1e-5, atol=1e-6)
    logs = [(folder / "logs" / "skipped_steps.jsonl").read_text() for folder in (tmp_path, tmp_path / "one")]
    assert set(logs[0].splitlines()) == set(logs[1].splitlines())
