"""Training of BLIP2-gated from the command line: files of a run, resuming, errors."""

import json
import signal

import numpy as np
import pytest
import torch
from conftest import ROOT, flags
from PIL import Image
from processes import start_script, steps_in, torchrun, wait_until
from safetensors.torch import load_file
from tensorboard_logs import read_events

from blip2_gated import config, train
from blip2_gated.checkpoint import load_gated
from common.cli.settings import read_settings
from common.training.plots import save_figure


def assert_same_weights(one, other):
    one, other = load_file(one / "last" / "model.safetensors"), load_file(other / "last" / "model.safetensors")
    assert one.keys() == other.keys() and len(one) > 20
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_run_leaves_what_it_promises(blip2_arguments, tmp_path, tiny_blip2, capsys, monkeypatch):
    monkeypatch.setattr("common.training.plots.save_figure", save_figure)
    results = train.main(blip2_arguments)
    folder = tmp_path / "checkpoints"
    written = json.loads((folder / "results.json").read_text())
    assert written["history"] == results["history"] and written["settings"]["training_batch_size"] == 8
    assert written["best"]["val/main"] == min(entry["val/main"] for entry in results["history"])
    assert min(Image.open(folder / "training_curves.png").size) > 200
    assert (
        sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != ".lock")
        == ["best.pt", "results.json", "run.json", "settings.json", "trained_on.json", "training_curves.png"]
        and not (folder / "last").exists()
    )
    content = torch.load(folder / "best.pt", weights_only=True)
    names = set(content["model_state_dict"])
    assert not [name for name in names if "vision_model" in name or "language_model" in name]
    assert any(".gate.project" in name for name in names) and any(name.startswith("mapper.") for name in names)
    model, _ = load_gated(folder / "best.pt")
    assert content["build"]["blip2"] == {"source": str(tiny_blip2)} and not model.training
    logs = next((tmp_path / "logs").iterdir())
    entries = [json.loads(line) for line in (logs / "log.jsonl").read_text().splitlines()]
    assert sum("train/main" in entry for entry in entries) == results["steps"]
    assert any("val/consistency" in entry for entry in entries)
    assert "val/main" in read_events(tmp_path / "logs", "blip2_gated").Tags()["scalars"]
    shown = capsys.readouterr().out
    assert "epoch 2/2" in shown and "million trainable" in shown and "correct answers, all" in shown


def test_only_trainable_weights_change(blip2_arguments, monkeypatch):
    """BatchNorm statistics too: the whole state before and after, frozen parts and buffers included."""
    states = []

    def whole(model):
        external, model.external_weights = model.external_weights, set()
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.external_weights = external
        return state

    build = train.build_trainer

    def build_and_keep(settings, model, *rest):
        trainer = build(settings, model, *rest)
        states.append((model, whole(model), trainer.optimizer.param_groups))
        return trainer

    monkeypatch.setattr(train, "build_trainer", build_and_keep)
    train.main([*blip2_arguments, "--model.lora.enabled", "--training.epochs", "6", "--training.eval_samples", "0"])
    model, before, (matrices, vectors) = states[0]
    assert matrices["weight_decay"] > vectors["weight_decay"] == 0
    assert {parameter.ndim for parameter in vectors["params"]} <= {0, 1}
    after = whole(model)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert changed == learning and any("running_mean" in name for name in before)


def test_the_best_epoch_is_that_of_the_main_loss(blip2_arguments, tmp_path, monkeypatch):
    """The other losses are regularisers: their weighted sum may fall while the answers get worse."""
    scores = iter([{"main": 1.0, "loss": 2.0}, {"main": 1.5, "loss": 1.0}])
    monkeypatch.setattr(train, "validate", lambda *_: next(scores))
    results = train.main([*blip2_arguments, "--training.eval_samples", "0"])
    assert results["best"]["epoch"] == 1
    assert torch.load(tmp_path / "checkpoints" / "best.pt", weights_only=True)["epoch"] == 1


def test_training_learns(blip2_arguments):
    length = flags("training.", epochs=6, learning_rate=3e-3, save_steps=99, eval_samples=0)
    history = train.main([*blip2_arguments, "--model.train", "all", *length])["history"]
    assert history[-1]["train/main"] < 0.7 * history[0]["train/main"]


@pytest.mark.parametrize("trained, kept", [("gates", {"patches", "pooled"}), ("all", {"pooled"})])
def test_kept_features_train_like_pixels(blip2_arguments, tmp_path, trained, kept):
    arguments = [*blip2_arguments, "--model.train", trained]
    plain = train.main([*arguments, "--training.checkpoint_dir", str(tmp_path / "plain")])["history"]
    cached = train.main([*arguments, "--training.cache_features"])["history"]
    for one, other in zip(plain, cached):  # features are kept in fp16
        assert other["val/main"] == pytest.approx(one["val/main"], rel=1e-3)
    files = [path.name.split(".")[1] for path in (tmp_path / "cache" / "features").glob("*.bin")]
    assert set(files) == kept and len(files) == 2 * len(kept)


SCHEDULE = ("min_learning_rate", "warmup_steps", "clip_norm", "accumulation", "max_nonfinite_steps")


def wiring(trainer):
    """Values of settings where they take effect."""
    training, gates = trainer.unwrapped_model, trainer.unwrapped_model.model.gates
    return {
        "gates": {(type(gate).__name__, gate.units) for gate in gates},  # one number for each channel, or head
        "lora": len(training.model.lora_layers) > 0,
        "style_hit": training.weights["style_hit"],
        "style_where": trainer.loader.dataset.style_where,
        "schedule": [getattr(trainer.schedule, name) for name in SCHEDULE],
        "styles": len(training.model.styles.labels),
    }


@pytest.mark.parametrize(
    "options, expected",
    [
        (
            ["--model.gating.type", "kv", "--model.gating.per_head", "--loss.style_where", "all"],
            {"gates": {("TokenGate", 4)}, "style_where": "all"},
        ),
        (
            ["--model.gating.type", "none", "--model.lora.enabled", "--loss.style_hit", "0"],
            {"gates": set(), "lora": True, "style_hit": 0},
        ),
        (
            [
                *flags("model.", **{"gating.type": "gate"}, train="qformer"),
                *flags("training.", **dict(zip(SCHEDULE, (1e-5, 3, 0.7, 2, 9)))),
            ],
            {"gates": {("SigmoidGate", 48)}, "schedule": [1e-5, 3, 0.7, 2, 9]},
        ),
        (
            [*flags("model.", blip2="small", train="all"), "--training.warm_start_steps", "2", "--data.style_column="],
            {"gates": {("FilmGate", 192)}, "styles": 0},
        ),
    ],
)
def test_options_train(blip2_arguments, tmp_path, monkeypatch, capsys, options, expected):
    build, built = train.build_trainer, []
    monkeypatch.setattr(train, "build_trainer", lambda *arguments: built.append(build(*arguments)) or built[0])
    results = train.main([*blip2_arguments, "--training.epochs", "1", "--training.eval_samples", "0", *options])
    assert np.isfinite(results["history"][0]["val/main"])
    plain = {"lora": False, "style_hit": 0.1, "style_where": "answers", "schedule": [1e-6, 2, 1.0, 1, 5], "styles": 12}
    assert wiring(built[0]) == plain | expected
    assert capsys.readouterr().out.count("warm start") == 2 * ("small" in options)
    model, content = load_gated(tmp_path / "checkpoints" / "best.pt")
    assert content["epoch"] == 1 and model.trained == content["settings"]["model_train"]


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_weights(blip2_arguments, tmp_path):
    length = {"epochs": 3, "accumulation": 2, "batch_size": 4, "save_last": True, "eval_samples": 0}
    arguments = [*blip2_arguments, "--model.lora.enabled", *flags("training.", **length)]
    folders = {"checkpoint_dir": tmp_path / "whole", "log_dir": tmp_path / "other"}
    train.main([*arguments, *flags("training.", **folders)])
    process = start_script("blip2_gated/train.py", arguments)
    written = steps_in(tmp_path / "logs", tmp_path / "checkpoints" / "last")
    wait_until(lambda: written() >= 4, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    results = train.main([*arguments, "--training.resume"])
    assert results["epochs"] == 3
    assert_same_weights(tmp_path / "whole", tmp_path / "checkpoints")


def test_a_bad_step_is_left_out_and_names_its_files(blip2_arguments, second_step_is_bad, capsys):
    results = train.main([*blip2_arguments, "--training.epochs", "1", "--training.eval_samples", "0"])
    assert results["skipped_steps"] == 1
    shown = capsys.readouterr().err
    assert "skipped: step 2, the loss is not finite; its files: images/" in shown and "(row " in shown


@pytest.mark.slow
def test_two_processes_train_like_one(blip2_arguments, tmp_path):
    length = flags("training.", epochs=1, save_last=True, eval_samples=0)
    arguments = [*blip2_arguments, *length, "--model.prompt_mapper.dropout", "0"]
    train.main([*arguments, "--training.checkpoint_dir", str(tmp_path / "one")])
    torchrun("blip2_gated/train.py", [*arguments, "--training.checkpoint_dir", str(tmp_path / "two")])
    one, two = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    "change, words",
    [
        (["--model.blip2", "nowhere"], "--model.blip2 nowhere"),
        (["--model.blip2", "small"], "--model.train gates"),
        (["--model.gating.type", "none"], "--model.gating.type none"),
        (["--model.gating.type", "fim"], "--model.gating.type fim: expected"),
        (["--model.efficientnet.name", "efficientnet_b33"], "did you mean"),
        (["--model.efficientnet.output_dim", "768"], "output_dim 768: the Q-Former's width is 48"),
        (["--model.train=all", "--model.gating.type=none", "--training.cache_features"], "--training.cache_features"),
        (["--model.frozen_dtype", "fp16"], "--model.frozen_dtype: "),
        (["--model.lora.rank", "0"], "--model.lora.rank: "),
        (["--data.root", "typo"], "typo: no such folder"),
        (["--data.style_column", "stile"], "unknown column 'stile'; did you mean style.*--data.style_column"),
        (["--data.dataset_name", "artqest"], "unknown --data.dataset_name 'artqest'; did you mean artquest"),
        (["--data.prompt", "Question:"], "--data.prompt"),
        (["--loss.style_where", "here"], "--loss.style_where: "),
        (["--training.batch_size", "0"], "--training.batch_size: "),
        (["--training.batch_size", "4096"], "fewer than one batch of 4096"),
        (["--training.resume"], "--training.save_last"),
        (["--training.resume", "--training.save_last"], "no state to resume from"),
    ],
)
def test_mistakes(blip2_arguments, change, words):
    with pytest.raises((ValueError, OSError), match=words):
        train.main([*blip2_arguments, *change])


def test_files_of_settings():
    folder = ROOT / "blip2_gated" / "configs"
    default = read_settings(config, [])
    assert len(vars(default)) > 60 and default.training_learning_rate == 1e-4
    artquest = read_settings(config, ["--config", "artquest", "--training.batch_size", "4"])
    assert (artquest.data_dataset_name, artquest.data_type_column, artquest.training_batch_size) == (
        "artquest",
        "question_type",
        4,
    )
    for name in ("artquest", "demo"):  # differences only
        changed = vars(read_settings(config, ["--config", name]))
        lines = (folder / f"{name}.yaml").read_text().splitlines()
        written = [line for line in lines if not line.startswith("#") and line.partition(":")[2].split("#")[0].strip()]
        assert sum(changed[key] != value for key, value in vars(default).items()) == len(written)
