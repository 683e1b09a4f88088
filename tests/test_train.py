"""Training from the command line's point of view: what a run writes, how it goes on, how it fails."""

import json
import sys

import pytest
import timm
import torch
from conftest import draw_styles, flags
from PIL import Image
from processes import start_script
from safetensors.torch import load_file
from tensorboard_logs import read_events
from tiny.style import weights

import config
import model
import train
from common.cli.errors import run_script
from common.images.transforms import Augmentation
from common.training.schedule import TrainSchedule, set_learning_rate
from evaluate_style import METRICS
from style_encoder import load_encoder


def test_a_run_leaves_what_it_promises(run_arguments, tmp_path, capsys):
    results = train.main([*run_arguments, "--save_epochs", "1"])
    folder = tmp_path / "checkpoints"
    assert {path.name for path in folder.iterdir()} >= {
        "best.pth",
        "model_epoch_1.pth",
        "model_epoch_2.pth",
        "last",
        "settings.json",
        "run.json",
        "results.json",
        "training_curves.png",
    }
    assert json.loads((folder / "results.json").read_text())["history"] == results["history"]
    methods = ["style encoder", "colour histogram", "Gram matrices", "backbone before training", "histogram + Gram"]
    assert [name.split(",")[0] for name in results["validation"]] == methods
    assert json.loads((folder / "settings.json").read_text())["epochs"] == 2
    logs = next((tmp_path / "logs").iterdir())
    entries = [json.loads(line) for line in (logs / "log.jsonl").read_text().splitlines()]
    losses = [entry["train/loss"] for entry in entries if "train/loss" in entry]
    assert len(losses) == results["steps"]
    events = read_events(tmp_path / "logs", "style")
    sheets = events.Images("nearest neighbours")  # of epochs that were the best
    assert sheets[-1].step == results["best"]["step"] and len(sheets) <= 2 and sheets[-1].width > 300
    parts = ("embed_mse", "embed_cosine", "pooled_mse", "pooled_cosine", "mask", "style", "anchors_without_positives")
    assert all(f"train/{part}" in entries[0] for part in parts)
    encoder, content = load_encoder(folder / "best.pth", torch.device("cpu"))
    assert content["styles"] == ["style_0", "style_1", "style_2"]
    assert content["validation"]["bank"].shape[1] == encoder.style_head.width
    shown = capsys.readouterr().out
    assert "epoch 2/2" in shown and "colour histogram" in shown and "tensorboard --logdir" in shown


def test_two_epochs_lower_the_loss(run_arguments):
    history = train.main([*run_arguments, "--epochs", "4", "--learning_rate", "3e-3"])["history"]
    assert history[-1]["train/loss"] < 0.8 * history[0]["train/loss"]


@pytest.mark.parametrize("options", [{}, {"patience": 1}, {"ema_decay": 0.5}])
def test_the_closing_table_is_of_the_best_model(run_arguments, options, monkeypatch, capsys):
    """The file that people use, not the last epoch; of a run that is resumed after its end, too."""
    validate = train.validate

    def lose_everything(trainer, val_set):
        if trainer.progress.epoch:
            for tensor in trainer.eval_model.state_dict().values():
                tensor.zero_()
        return validate(trainer, val_set)

    monkeypatch.setattr(train, "validate", lose_everything)
    arguments = [*run_arguments, *flags(epochs=2, **options)]
    for words in (arguments, [*arguments, "--resume"]):
        results = train.main(words)
        last, best = results["history"][-1], results["best"]
        assert results["best_epoch"] == 1 and last["val/style_auc"] == 0.5 < best["val/style_auc"]
        found = results["validation"]["style encoder"]["style"]
        assert all(found[name] == pytest.approx(best[f"val/style_{name}"]) for name in METRICS)
        shown = capsys.readouterr().out
        assert "the model of epoch 1 (best.pth):\n" in shown
        assert f"epoch {last['epoch']}, the last one, was not the best: " in shown


def test_constants_of_config_are_used(run_arguments, monkeypatch):
    position = run_arguments.index("--epochs")
    monkeypatch.setattr(config, "EPOCHS", 1)
    assert train.main(run_arguments[:position] + run_arguments[position + 2 :])["epochs"] == 1


def test_style_contrast_alone_is_enough(tmp_path, run_arguments):
    draw_styles(tmp_path / "bare", targets=False)
    results = train.main(
        [*run_arguments, "--data_dir", str(tmp_path / "bare"), "--epochs", "1", "--cache_images", "false"]
    )
    assert "train/style" in results["history"][0] and "train/embed_mse" not in results["history"][0]


def test_ignored_targets_train_no_head(run_arguments, tmp_path):
    train.main([*run_arguments, "--epochs", "1", "--ignore_targets", "pooled", "mask"])
    encoder, _ = load_encoder(tmp_path / "checkpoints" / "best.pth", torch.device("cpu"))
    assert encoder.pooled_head is None and encoder.sequence_head.mask_head is None
    assert encoder.build["embed_width"] == 12


def test_options_are_read_where_they_take_effect(run_arguments, tmp_path, monkeypatch):
    """Traced by dynamo, but run by its eager backend: the code generator takes half a minute and is not ours."""
    build, trainers, compiled = train.build_trainer, [], []
    monkeypatch.setattr(train, "build_trainer", lambda *arguments: trainers.append(build(*arguments)) or trainers[0])
    monkeypatch.setattr(
        train.VisionStyleEncoder,
        "compile",
        lambda encoder: compiled.append(True) or torch.nn.Module.compile(encoder, backend="eager"),
    )
    of_model = {"style_width": 24, "frozen_maps": 1, "sequence_head": "linear", "dropout": 0.3}
    of_schedule = {"epochs": 1, "min_learning_rate": 1e-6, "warmup_steps": 3, "clip_norm": 0.7, "save_steps": 9}
    of_batches = {"remix_share": 0.5, "drawn_share": 0, "grey_prob": 0.1, "seed": 5}
    of_views = {"crop_scale": 0.9, "flip_prob": 0.2}
    of_loss = {"mask_weight": 0.4, "style_weight": 0.6, "temperature": 0.2, "backbone_lr_scale": 0.3}
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")  # of random weights no map is frozen
    more = {"compile": True, "ema_decay": 0.9, "gradient_checkpointing": True, "pretrained": tmp_path / "vit.pth"}
    train.main([*run_arguments, *flags(**of_model, **of_schedule, **of_batches, **of_views, **of_loss, **more)])
    (trainer,), model, sampler = trainers, trainers[0].unwrapped_model, trainers[0].batch_sampler
    assert compiled == [True] and model.encoder.tower.backbone.grad_checkpointing
    assert {name: model.encoder.build[name] for name in of_model} == of_model
    assert {name: getattr(trainer.schedule, name) for name in of_schedule} == of_schedule
    assert (sampler.plain, sampler.remixed, sampler.drawn, sampler.grey_prob, sampler.seed) == (2, 2, 0, 0.1, 5)
    assert trainer.loader.dataset.augmentation == Augmentation(0.9, 0.2, 5)
    assert (model.weights["mask"], model.weights["style"], model.temperature) == (0.4, 0.6, 0.2)
    assert {group.get("scale") for group in trainer.optimizer.param_groups} == {0.3, None}
    folder, name = tmp_path / "checkpoints", "tower.backbone.blocks.5.attn.qkv.weight"
    best, average = weights(folder / "best.pth"), torch.load(folder / "last" / "average.pth", weights_only=True)
    assert torch.equal(best[name], average[f"module.encoder.{name}"])
    assert not torch.equal(best[name], load_file(folder / "last" / "model.safetensors")[f"encoder.{name}"])


def test_held_out_styles_are_never_trained_on(run_arguments, tmp_path):
    draw_styles(tmp_path / "more", styles=5)
    results = train.main([*run_arguments, "--data_dir", str(tmp_path / "more"), "--val_styles", "style_1", "style_3"])
    per_style = results["validation"]["style encoder"]["style"]["per_style"]
    content = torch.load(tmp_path / "checkpoints" / "best.pth", weights_only=True)
    assert set(per_style) == {"style_1", "style_3"} and content["styles"] == ["style_0", "style_2", "style_4"]


def test_frozen_epochs_leave_the_backbone_as_it_was(run_arguments, tmp_path):
    train.main([*run_arguments, "--freeze_epochs", "1", "--save_epochs", "1", "--weight_decay", "0.1"])
    train.main([*run_arguments, "--freeze_epochs", "2", "--save_epochs", "1", "--checkpoint_dir", str(tmp_path / "b")])
    one, two = (weights(tmp_path / "checkpoints" / f"model_epoch_{n}.pth") for n in (1, 2))
    three = weights(tmp_path / "b" / "model_epoch_2.pth")
    name = "tower.backbone.blocks.0.attn.qkv.weight"
    assert torch.equal(one[name], three[name]) and not torch.equal(one[name], two[name])
    assert not torch.equal(one["style_head.mix.2.weight"], three["style_head.mix.2.weight"])


def test_an_older_run_is_moved_aside(run_arguments, tmp_path, capsys):
    for _ in range(3):
        train.main([*run_arguments, "--epochs", "1"])
    folder = tmp_path / "checkpoints"
    older = [path for path in folder.iterdir() if (path / "run.json").is_file()]
    assert len(older) == 2 and (folder / "best.pth").is_file()
    for path in older:
        assert (path / "best.pth").is_file() and (path / "last" / "progress.json").is_file()
        assert not [inner for inner in path.iterdir() if (inner / "run.json").is_file()]
    assert "was moved to" in capsys.readouterr().out


def failure(arguments, monkeypatch, capsys) -> str:
    """What the script writes to stderr as it exits."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        run_script(train.main)
    shown = capsys.readouterr().err
    assert stop.value.code == (2 if "--batch_sise" in shown or "--precision" in shown else 1)
    return shown


@pytest.mark.parametrize(
    "change, words",
    [
        (["--data_dir", "/no/such"], "/no/such: no such folder"),
        (["--model_name", "vit_tinny_patch16_224"], "did you mean vit_tiny_patch16_224"),
        (["--batch_sise", "3"], "did you mean --batch_size"),
        (["--device", "cuda:9"], "--device cuda:9"),
        (["--precision", "fp8"], "--precision: 'fp8'"),
        (["--resume"], "no state to resume from"),
    ],
)
def test_mistakes_end_in_one_line(run_arguments, change, words, monkeypatch, capsys):
    line = failure([*run_arguments, *change], monkeypatch, capsys)
    assert words in line and line.startswith("train.py: error: ") and line.count("\n") == 1


@pytest.mark.slow
def test_a_mistake_as_the_shell_sees_it(run_arguments):
    process = start_script("train.py", [*run_arguments, "--data_dir", "/no/such"])
    _, error = process.communicate()
    assert process.returncode == 1 and "Traceback" not in error
    assert error.strip().splitlines()[-1].startswith("train.py: error: /no/such: no such folder")


def test_debug_shows_where(run_arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *run_arguments, "--data_dir", "/no/such", "--debug"])
    with pytest.raises(FileNotFoundError, match="/no/such"):
        run_script(train.main)


def test_bad_images_are_named_and_too_many_stop_the_run(run_arguments, style_data, tmp_path, capsys):
    (style_data / "style_0" / "item1_img.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="1 of 24 samples cannot be used, more than MAX_SKIPPED 1%.*item1_img.png"):
        train.main([*run_arguments, "--max_skipped", "0.01"])
    train.main([*run_arguments, "--epochs", "1", "--max_skipped", "0.05"])
    assert "item1_img.png: not an image" in capsys.readouterr().err
    skipped = max((tmp_path / "logs").glob("*/skipped.jsonl")).read_text()
    assert json.loads(skipped)["file"].endswith("item1_img.png")


def test_patience_ends_a_run_with_its_model_written(run_arguments, tmp_path, capsys):
    results = train.main([*run_arguments, "--epochs", "9", "--patience", "1", "--learning_rate", "0"])
    assert len(results["history"]) == 2 and results["best_epoch"] == 1  # nothing learns, so nothing gets better
    assert (
        tmp_path / "checkpoints" / "model_epoch_2.pth"
    ).is_file() and "stopped: no better" in capsys.readouterr().out


def test_a_bad_start_leaves_the_older_run_in_place(run_arguments, style_data, tmp_path):
    train.main([*run_arguments, "--epochs", "1"])
    for path in style_data.glob("*/*_img.png"):
        path.write_bytes(b"broken")
    with pytest.raises(ValueError, match="24 of 24 samples cannot be used"):
        train.main(run_arguments)
    assert (tmp_path / "checkpoints" / "best.pth").is_file()


def test_a_style_of_one_image_is_left_out_and_said(run_arguments, style_data, capsys):
    (style_data / "lonely").mkdir()
    Image.new("RGB", (40, 40)).save(style_data / "lonely" / "a_img.png")
    train.main([*run_arguments, "--epochs", "1"])
    assert "style 'lonely' has 1 image; 2 are needed" in capsys.readouterr().err


def test_two_runs_cannot_share_a_folder(run_arguments, tmp_path):
    import fcntl

    (tmp_path / "checkpoints").mkdir()
    with (tmp_path / "checkpoints" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another run is writing here"):
            train.main(run_arguments)


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(run_arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "style_contrast", lambda style, *_: (style.sum() * torch.nan, torch.zeros(())))
    with pytest.raises(ValueError, match="the loss is not finite at step .*learning rate"):
        train.main([*run_arguments, *flags(max_nonfinite_steps=2)])
    assert not (tmp_path / "checkpoints" / "best.pth").exists()


def test_a_bad_step_is_left_out_and_names_its_files(run_arguments, second_step_is_bad, capsys):
    results = train.main([*run_arguments, "--epochs", "1"])
    assert results["skipped_steps"] == 1
    shown = capsys.readouterr()
    assert "skipped: step 2, the loss is not finite; its files: " in shown.err and "_img.png" in shown.err
    assert f"skipped    1 of {results['steps']} steps" in shown.out


def test_learning_rate_warms_up_and_falls_to_its_end():
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "scale": 0.1}], lr=1.0)
    plan = TrainSchedule(epochs=10, learning_rate=2.0, min_learning_rate=0.5, warmup_steps=4)
    rates = [set_learning_rate(optimizer, step, 10, plan) for step in range(100)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0] and rates[4] == 2.0 and rates[99] < 0.502
    assert all(one >= two for one, two in zip(rates[4:], rates[5:]))
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.1 * optimizer.param_groups[0]["lr"])
