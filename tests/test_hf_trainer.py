"""Hugging Face's Trainer as ViTP and LLaVA use it: bad steps left out and named, broken checkpoints noticed."""

import json
import math

import pytest
import torch
from conftest import Normalised
from torch import nn
from transformers import TrainingArguments

from common.training.hf_trainer import FaultTolerantTrainer
from common.training.resume_state import find_damage, latest_valid_checkpoint

COUNT, WIDTH, BATCH = 24, 5, 4
ROWS = torch.randn(COUNT, WIDTH, generator=torch.Generator().manual_seed(0))


class Numbers(torch.utils.data.Dataset):
    def __init__(self, poisoned):
        self.rows = ROWS.clone()
        self.rows[list(poisoned)] = math.nan

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return index, self.rows[index]


class Learner(Normalised):
    def forward(self, rows):
        return {"loss": super().forward(rows)}


def collate(items):
    return {"rows": torch.stack([row for _, row in items])}


def name_of(item):
    return f"row_{item[0]}.png"


def make(folder, poisoned, accumulation=1, limit=5, model=None, **more):
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=accumulation,
        learning_rate=0.01,
        weight_decay=0.1,
        max_grad_norm=1.0,
        num_train_epochs=2,
        logging_steps=1,
        save_steps=1,
        use_cpu=True,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        **more,
    )
    return FaultTolerantTrainer(
        model or Learner(),
        arguments,
        train_dataset=Numbers(poisoned),
        data_collator=collate,
        file_of=name_of,
        max_nonfinite_steps=limit,
    )


def by_hand(poisoned, accumulation):
    """The same training, written out; a step with a poisoned row does not take place."""
    model, step = Learner(), 0
    decayed = [model.line.weight]
    others = [parameter for parameter in model.parameters() if parameter is not decayed[0]]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0}])
    groups = [range(start, start + BATCH * accumulation) for start in range(0, COUNT, BATCH * accumulation)] * 2
    for step, group in enumerate(groups):
        if set(poisoned) & set(group):
            continue
        for part in optimizer.param_groups:
            part["lr"] = 0.01 * (len(groups) - step) / len(groups)
        for start in range(group.start, group.stop, BATCH):
            (model(ROWS[start : start + BATCH])["loss"] / accumulation).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model, [step + 1 for step, group in enumerate(groups) if set(poisoned) & set(group)]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("infinite_gradient", [False, True], ids=["loss", "gradient"])
def test_weights_are_those_of_a_run_without_the_step(tmp_path, accumulation, infinite_gradient, capsys):
    trainer = make(tmp_path, [9], accumulation, model=Learner(infinite_gradient))
    trainer.train()
    model, bad = by_hand([9], accumulation)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "skipped_steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == bad and len(bad) == trainer.nonfinite_guard.total == 2
    assert all("row_9.png" in line["files"] and len(line["files"]) == BATCH * accumulation for line in lines)
    history = trainer.state.log_history
    assert history[-1]["skipped_steps"] == 2 and "train_loss" in history[-1] and "NaN" not in json.dumps(history)
    what = "the gradient" if infinite_gradient else "the loss"
    assert f"skipped: step {bad[0]}, {what} is not finite; its files: row_" in capsys.readouterr().err
    saved = {int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*")}
    assert saved == set(range(1, 2 * 6 // accumulation + 1)) - set(bad)


def test_too_many_in_a_row_end_the_run_with_names(tmp_path):
    trainer = make(tmp_path, range(4, COUNT), limit=3)
    with pytest.raises(ValueError) as caught:
        trainer.train()
    words = str(caught.value)
    assert "the loss is not finite at step 4, the last of 3 such steps in a row; its files: row_12.png, row_13" in words
    assert "\n" not in words and latest_valid_checkpoint(tmp_path).name == "checkpoint-1"


def test_a_resumed_run_goes_on_counting_from_the_newest_whole_checkpoint(tmp_path, capsys):
    whole = make(tmp_path / "whole", [9])
    whole.train()
    make(tmp_path / "run", [9]).train()
    for number, name in ((12, "model.safetensors"), (11, "optimizer.pt"), (10, "rng_state.pth")):
        path = tmp_path / "run" / f"checkpoint-{number}" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert find_damage(path.parent) == f"{name} is not as it was written"
    found = latest_valid_checkpoint(tmp_path / "run")
    assert found.name == "checkpoint-8"  # of the step that was left out, the 9th, none was written
    assert "checkpoint-12: model.safetensors is not as it was written" in capsys.readouterr().err
    resumed = make(tmp_path / "run", [9])
    resumed.train(resume_from_checkpoint=str(found))
    assert resumed.nonfinite_guard.total == 2
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
