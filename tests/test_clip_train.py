"""Training CLIP from the command line's point of view: what a run writes, how it goes on, how it fails."""

import json

import numpy as np
import pytest
import torch
from conftest import flags, interrupt_after
from PIL import Image
from processes import kill_and_resume, steps_in, torchrun
from safetensors.torch import load_file
from tensorboard_logs import read_events

from clip import train
from clip.checkpoint import load_clip
from clip.model import CLIPModel
from common.images.cache import CHECKED
from common.training.plots import save_figure


def assert_same_weights(one, other):
    one, other = load_file(one / "last" / "model.safetensors"), load_file(other / "last" / "model.safetensors")
    assert one.keys() == other.keys() and len(one) > 20
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_run_leaves_what_it_promises(clip_arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("common.training.plots.save_figure", save_figure)
    results = train.main(clip_arguments)
    folder = tmp_path / "results"
    written = json.loads((folder / "training_results.json").read_text())
    assert written["history"] == results["history"] and written["settings"]["batch_size"] == 8
    assert written["best"]["val/rsum"] == max(entry["val/rsum"] for entry in results["history"])
    for name in ("training_curves.png", "model_metrics.png"):
        assert min(Image.open(folder / name).size) > 200
    checkpoint = torch.load(tmp_path / "model-checkpoint" / "best_model.pth", weights_only=True)
    model = CLIPModel(**checkpoint["build"])
    model.load_state_dict(checkpoint["model_state_dict"])
    logs = next((tmp_path / "logs").iterdir())
    entries = [json.loads(line) for line in (logs / "log.jsonl").read_text().splitlines()]
    assert sum("train/loss" in entry for entry in entries) == results["steps"] == 6
    assert any("val/t2i_r10" in entry for entry in entries)
    assert "val/rsum" in read_events(tmp_path / "logs", "clip").Tags()["scalars"]
    shown = capsys.readouterr().out
    assert "epoch 2/2" in shown and "truncated to 77 tokens" in shown and "tensorboard --logdir" in shown
    train.main([*clip_arguments, "--num_epochs", "1"])  # a second run moves the first aside, results too
    older = [path for path in folder.iterdir() if path.is_dir()]
    assert len(older) == 1 and json.loads((older[0] / "training_results.json").read_text()) == written


def test_training_learns(clip_arguments):
    history = train.main([*clip_arguments, "--num_epochs", "12", "--learning_rate", "3e-3", "--save_steps", "99"])[
        "history"
    ]
    assert history[-1]["train/loss"] < 0.85 * history[0]["train/loss"]


def wiring(trainer):
    """Values of settings where they take effect."""
    model, dataset, schedule = trainer.unwrapped_model, trainer.loader.dataset, trainer.schedule
    return {
        "multi_positive": model.multi_positive,
        "slices": model.slices,
        "checkpointing": model.model.network.visual.transformer.grad_checkpointing,
        "lowest_rate": min(group["scale"] for group in trainer.optimizer.param_groups),
        "average": trainer.ema_model and trainer.ema_model.decay,
        "crop_scale": dataset.augmentation.crop_scale,
        "flip_prob": dataset.augmentation.flip_prob,
        "rates": (schedule.learning_rate, schedule.min_learning_rate, schedule.warmup_steps, schedule.clip_norm),
        "limits": (schedule.max_nonfinite_steps, schedule.patience),
    }


@pytest.mark.parametrize(
    "options, expected",
    [
        (
            ["--freeze_backbone", *flags(min_learning_rate=1e-5, warmup_steps=3, gradient_clip_norm=0.7)],
            {"rates": (1e-3, 1e-5, 3, 0.7)},
        ),
        (
            ["--lock_image", "--single_positive", *flags(max_nonfinite_steps=9, patience=4)],
            {"multi_positive": False, "limits": (9, 4)},
        ),
        (["--accum_batches", "2", "--layer_decay", "0.7"], {"slices": 2, "lowest_rate": pytest.approx(0.7**3)}),
        (["--ema_decay", "0.9", "--gradient_checkpointing"], {"average": 0.9, "checkpointing": True}),
        (
            ["--cache_images", "false", "--crop_scale", "1", "--flip_prob", "0.1", "--val_split", "0"],
            {"crop_scale": 1, "flip_prob": 0.1},
        ),
    ],
)
def test_options_train(clip_arguments, tmp_path, monkeypatch, options, expected):
    build, built = train.build_trainer, []
    monkeypatch.setattr(train, "build_trainer", lambda *arguments: built.append(build(*arguments)) or built[0])
    results = train.main([*clip_arguments, "--num_epochs", "1", *options])
    assert np.isfinite(results["history"][0]["train/loss"])
    plain = {"multi_positive": True, "slices": 1, "checkpointing": False, "lowest_rate": 1.0, "average": None}
    plain |= {"crop_scale": 0.8, "flip_prob": 0.5, "rates": (1e-3, 1e-6, 2, 1.0), "limits": (5, 0)}
    assert wiring(built[0]) == plain | expected
    before, _ = load_clip(clip_arguments[3])
    after, _ = load_clip(tmp_path / "model-checkpoint" / "best_model.pth")
    changed = {name for name, value in after.named_parameters() if not torch.equal(value, before.get_parameter(name))}
    towers = {name.split(".")[1] for name in changed}
    if "--freeze_backbone" in options:
        assert changed == {"network.visual.proj", "network.text_projection", "network.logit_scale"}
    else:
        assert ("visual" in towers) == ("--lock_image" not in options) and "transformer" in towers


def test_half_precision_trains(clip_arguments, tmp_path, new_accelerate):
    train.main([*clip_arguments, "--num_epochs", "1", "--precision", "bf16"])
    model, _ = load_clip(tmp_path / "model-checkpoint" / "best_model.pth")
    assert model.network.visual.proj.dtype == torch.float32


def test_sigmoid_loss_and_parts_of_a_small_model(clip_arguments, tmp_path):
    small = "--model_name small --image_size 32 --image_tower test_vit --loss siglip --num_epochs 1"
    train.main([*clip_arguments, *small.split()])
    model, content = load_clip(tmp_path / "model-checkpoint" / "best_model.pth")
    assert model.network.logit_bias is not None and content["settings"]["loss"] == "siglip"


def test_stopping_and_resuming_between_epochs_changes_nothing(clip_arguments, tmp_path, monkeypatch):
    arguments = [*clip_arguments, "--num_epochs", "3", "--ema_decay", "0.9"]
    train.main([*arguments, "--checkpoint_dir", str(tmp_path / "whole")])
    with monkeypatch.context() as patch:
        interrupt_after(patch, epoch=1)
        with pytest.raises(KeyboardInterrupt):
            train.main(arguments)
    assert train.main([*arguments, "--resume"])["epochs"] == 3
    assert_same_weights(tmp_path / "whole", tmp_path / "model-checkpoint")


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_weights(clip_arguments, tmp_path):
    arguments = [*clip_arguments, "--num_epochs", "4", "--accum_batches", "2", "--batch_size", "4"]
    elsewhere = ["--checkpoint_dir", str(tmp_path / "whole"), "--log_dir", str(tmp_path / "other")]
    train.main([*arguments, *elsewhere])
    written = steps_in(tmp_path / "logs", tmp_path / "model-checkpoint" / "last")
    assert kill_and_resume("clip/train.py", arguments, written, times=2) == 2
    assert_same_weights(tmp_path / "whole", tmp_path / "model-checkpoint")


def test_a_bad_step_is_left_out_and_names_its_files(clip_arguments, second_step_is_bad, capsys):
    assert train.main([*clip_arguments, "--num_epochs", "1"])["skipped_steps"] == 1
    shown = capsys.readouterr().err
    assert "skipped: step 2, the loss is not finite; its files: " in shown and "/data/images/" in shown


@pytest.mark.slow
def test_two_processes_train_like_one(clip_arguments, tmp_path):
    arguments = [*clip_arguments, "--num_epochs", "1"]
    train.main([*arguments, "--checkpoint_dir", str(tmp_path / "one")])
    error = torchrun("clip/train.py", [*arguments, "--checkpoint_dir", str(tmp_path / "two")])
    assert "Warning" not in error
    one, two = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    "change, words",
    [
        (["--model_name", "ViT-B/3"], "no model here|cannot be read as a CLIP folder"),
        (["--model_name", "ViT-B-23"], "unknown model 'ViT-B-23'; did you mean ViT-B/32"),
        (["--loss", "triplet"], "--loss"),
        (["--loss", "siglip"], "has no bias"),
        (["--image_size", "64"], "--image_size: .* is a complete model"),
        (["--image_weights", "true"], "names weights of --image_tower"),
        (["--batch_size", "0"], "--batch_size"),
        (["--batch_size", "512"], "fewer than one batch of 512"),
        (["--freeze_backbone", "--lock_image"], "give one"),
        (["--resume"], "no state to resume from"),
    ],
)
def test_mistakes(clip_arguments, change, words):
    with pytest.raises((ValueError, OSError), match=words):
        train.main([*clip_arguments, *change])


def test_too_many_bad_samples_stop_a_run_and_few_do_not(clip_arguments, tmp_path, capsys):
    (next((tmp_path / "data" / "images").iterdir())).write_bytes(b"junk")
    with pytest.raises(ValueError, match="1 of 40 samples cannot be used, more than MAX_SKIPPED 1%"):
        train.main([*clip_arguments, "--max_skipped", "0.01"])
    train.main([*clip_arguments, "--num_epochs", "1"])
    skipped = next((tmp_path / "logs").glob("*/skipped.jsonl")).read_text()
    assert "not an image that Pillow can read" in skipped and "skipped: " in capsys.readouterr().err


def write_many(folder, count=300):
    """More images than are checked at the start; three of the others cannot be read."""
    checked = {number * count // CHECKED for number in range(CHECKED)}
    broken = sorted(set(range(count)) - checked)[5::15]
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        path = folder / "images" / f"{number}.png"
        if number in broken:
            path.write_bytes(b"junk")
        else:
            Image.new("RGB", (40, 40), (number % 250, 9 * number % 250, 99)).save(path)
    lines = [json.dumps({"file_name": f"images/{number}.png", "text": f"image {number}"}) for number in range(count)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return sorted(str(folder / "images" / f"{number}.png") for number in broken)


def named_in(logs):
    lines = (next(logs.iterdir()) / "skipped.jsonl").read_text().splitlines()
    return sorted(json.loads(line)["file"] for line in lines)


def test_images_that_turn_out_to_be_broken_are_replaced_named_and_the_same_after_a_resume(
    clip_arguments, tmp_path, monkeypatch, capsys
):
    broken = write_many(tmp_path / "many")
    arguments = [*clip_arguments, "--data_dir", str(tmp_path / "many"), "--batch_size", "64", "--num_epochs", "2"]
    train.main([*arguments, "--checkpoint_dir", str(tmp_path / "whole"), "--log_dir", str(tmp_path / "whole_logs")])
    assert named_in(tmp_path / "whole_logs") == broken
    shown = capsys.readouterr().err
    assert all(shown.count(f"{name}: ") == 1 for name in broken)
    with monkeypatch.context() as patch:
        interrupt_after(patch, epoch=0)
        with pytest.raises(KeyboardInterrupt):
            train.main(arguments)
    train.main([*arguments, "--resume"])
    assert_same_weights(tmp_path / "whole", tmp_path / "model-checkpoint")
    assert named_in(tmp_path / "logs") == broken
    with pytest.raises(ValueError, match="2 of 300 samples cannot be used"):
        train.main([*arguments, "--max_skipped", "0.001", "--cache_images", "false"])


@pytest.mark.slow
def test_two_processes_replace_broken_images_by_the_same_ones(clip_arguments, tmp_path):
    broken = write_many(tmp_path / "many")
    arguments = [*clip_arguments, "--data_dir", str(tmp_path / "many"), "--batch_size", "64", "--num_epochs", "1"]
    train.main([*arguments, "--checkpoint_dir", str(tmp_path / "one"), "--log_dir", str(tmp_path / "one_logs")])
    more = ["--checkpoint_dir", str(tmp_path / "two"), "--num_workers", "2"]
    torchrun("clip/train.py", [*arguments, *more])
    named = named_in(tmp_path / "one_logs")  # the last batch of an epoch is not full, and not read
    assert named_in(tmp_path / "logs") == named and len(named) >= 2 and set(named) <= set(broken)
    one, two = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4, msg=name)


def test_patience_ends_a_run(clip_arguments, monkeypatch, capsys):
    scores = iter([100.0, 90, 80, 70])
    monkeypatch.setattr(train, "retrieval_scores", lambda *vectors: {"rsum": next(scores)})
    results = train.main([*clip_arguments, "--num_epochs", "4", "--patience", "2"])
    assert results["epochs"] == 3 and results["best_epoch"] == 1
    assert "no better validation for 2 epochs" in capsys.readouterr().out
