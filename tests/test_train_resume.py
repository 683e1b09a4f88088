"""Stopped, killed, damaged and resumed, alone or in two processes: the weights of a run that nothing happened to."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import flags, flip_a_bit, interrupt_after
from processes import kill_after_a_step, steps_in, torchrun
from tiny.style import assert_same_weights, weights

import train

SAVES = flags(save_steps=1)
DROPOUT = [*SAVES, *flags(dropout=0.2, drop_path=0.1, ema_decay=0.9)]


def test_stopping_and_resuming_between_epochs_changes_nothing(run_arguments, tmp_path, monkeypatch):
    arguments = [*run_arguments, *DROPOUT, "--epochs", "3"]
    train.main([*arguments, "--checkpoint_dir", str(tmp_path / "whole")])
    with monkeypatch.context() as patch:
        interrupt_after(patch, epoch=1)
        with pytest.raises(KeyboardInterrupt):
            train.main(arguments)
    results = train.main([*arguments, "--resume"])
    assert results["epochs"] == 3
    for name in ("best.pth", "model_epoch_3.pth"):
        assert_same_weights(tmp_path / "whole" / name, tmp_path / "checkpoints" / name)


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_resumed_ends_with_the_same_weights(run_arguments, tmp_path, times):
    """SIGKILL, wherever the process then is: in a step, in a save, in validation."""
    arguments = [*run_arguments, *DROPOUT, "--epochs", "4", "--accumulation", "2"]
    arguments[arguments.index("--batch_size") + 1] = "6"
    elsewhere = ["--checkpoint_dir", str(tmp_path / "whole"), "--log_dir", str(tmp_path / "other")]
    train.main([*arguments, *elsewhere])
    written = steps_in(tmp_path / "logs", tmp_path / "checkpoints" / "last")
    for number in range(times):
        assert kill_after_a_step("train.py", [*arguments, *(["--resume"] if number else [])], written)
    train.main([*arguments, "--resume"])
    assert_same_weights(tmp_path / "whole" / "model_epoch_4.pth", tmp_path / "checkpoints" / "model_epoch_4.pth")
    entries = [json.loads(line) for path in (tmp_path / "logs").glob("*/log.jsonl") for line in path.open()]
    steps = [entry["step"] for entry in entries if "train/loss" in entry]
    assert steps == sorted(set(steps))  # steps that were done again after a kill are logged once


def test_a_resumed_run_is_frozen_no_longer_than_asked(run_arguments, tmp_path):
    arguments = [*run_arguments, *SAVES, "--freeze_epochs", "1", "--epochs", "3"]
    train.main([*arguments, "--checkpoint_dir", str(tmp_path / "whole")])
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, epoch=0)
        with pytest.raises(KeyboardInterrupt):
            train.main(arguments)
    train.main([*arguments, "--resume"])
    assert_same_weights(tmp_path / "whole" / "model_epoch_3.pth", tmp_path / "checkpoints" / "model_epoch_3.pth")


@pytest.mark.slow
def test_a_broken_state_gives_way_to_the_one_before(run_arguments, tmp_path, monkeypatch, capsys):
    arguments = [*run_arguments, *DROPOUT, "--epochs", "3"]
    train.main([*arguments, "--checkpoint_dir", str(tmp_path / "whole")])
    with monkeypatch.context() as patch:
        interrupt_after(patch, epoch=1)
        with pytest.raises(KeyboardInterrupt):
            train.main(arguments)
    flip_a_bit(tmp_path / "checkpoints" / "last" / "optimizer.bin")
    train.main([*arguments, "--resume"])
    assert "optimizer.bin is not as it was written; kept as " in capsys.readouterr().err
    assert_same_weights(tmp_path / "whole" / "model_epoch_3.pth", tmp_path / "checkpoints" / "model_epoch_3.pth")


def test_a_full_disk_leaves_the_state_before(run_arguments, tmp_path, monkeypatch):
    train.main([*run_arguments, "--epochs", "1"])
    before = (tmp_path / "checkpoints" / "last" / "progress.json").read_text()

    def half_written(self, folder):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")  # what torch's zip writer says of a full disk

    with monkeypatch.context() as patch:
        patch.setattr(train.Accelerator, "save_state", half_written)
        with pytest.raises(OSError, match="is the disk full.*the state before is untouched"):
            train.main([*run_arguments, "--resume"])
    assert (tmp_path / "checkpoints" / "last" / "progress.json").read_text() == before
    assert not (tmp_path / "checkpoints" / "last.partial").exists()
    assert train.main([*run_arguments, "--resume"])["epochs"] == 2


def test_a_folder_that_becomes_read_only_leaves_the_state_before(run_arguments, monkeypatch):
    train.main([*run_arguments, "--epochs", "1"])

    def refused(partial, last):
        raise PermissionError(1, "Operation not permitted", str(last))

    with monkeypatch.context() as patch:
        patch.setattr("common.training.trainer_state.promote_state", refused)
        with pytest.raises(OSError, match="could not be written.*not permitted.*the state before is untouched"):
            train.main([*run_arguments, "--resume"])
    assert train.main([*run_arguments, "--resume"])["epochs"] == 2


def test_a_kill_between_the_two_renames_of_a_save_is_found(run_arguments, tmp_path):
    train.main([*run_arguments, *SAVES, "--epochs", "1"])
    last = tmp_path / "checkpoints" / "last"
    shutil.rmtree(last.with_name("last.older"))
    last.rename(last.with_name("last.older"))
    assert train.main([*run_arguments, "--resume"])["epochs"] == 2


def test_two_processes_train_like_one(run_arguments, tmp_path):
    """torchrun with two gloo processes ends with the weights of one, dropout and augmentation aside."""
    changes = {"dropout": 0, "epochs": 1, "images_per_style": 2, "batch_size": 12, "remix_share": 0.5}
    arguments = [*run_arguments, *flags(**changes)]
    train.main([*arguments, "--checkpoint_dir", str(tmp_path / "one")])
    torchrun("train.py", [*arguments, "--checkpoint_dir", str(tmp_path / "two")])
    one, two = (weights(tmp_path / folder / "model_epoch_1.pth") for folder in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4, msg=name)
