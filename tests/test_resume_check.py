"""Resuming another run: what must be repeated is compared before anything is written, what may change takes effect."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import draw_styles, flags
from processes import torchrun
from test_nonfinite import make as make_trainer
from tiny.blip2 import write_blip2
from transformers import Blip2ForConditionalGeneration

import train
from blip2_gated import train as train_blip2
from clip import train as train_clip
from common.samples.layouts import create_sample_dataset
from common.training.resume_state import write_checksums
from common.training.schedule import TrainSchedule, set_learning_rate
from common.training.trained_on import TRAINED_ON, check_resume, describe_samples, describe_tensors


def snapshot(folder: Path) -> dict[Path, bytes]:
    """Every file but caches of decoded images, which all runs share."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts}


def refused(main, arguments: list[str], folder: Path) -> str:
    """The error of a run that writes nothing."""
    before = snapshot(folder)
    with pytest.raises(ValueError) as caught:
        main(arguments)
    assert snapshot(folder) == before and "\n" not in str(caught.value)
    return str(caught.value)


def test_differences_are_named_once_and_limited(tmp_path):
    state, trained_on = tmp_path / "last", {"batch_size": 8, "styles": ("a", "b"), "model": "vit"}
    with pytest.raises(FileNotFoundError, match="last: no state to resume from"):
        check_resume(trained_on, state, "--resume")
    older = tmp_path / "last.older"
    older.mkdir()
    (older / TRAINED_ON).write_text(json.dumps({**trained_on, "of_an_older_version": 1}))
    check_resume({**trained_on, "of_a_newer_version": 2}, state, "--resume")  # last/ may be missing after a kill
    with pytest.raises(ValueError, match='last.older: .* batch_size was 8, now 32; styles was .* now ."a".; repeat'):
        check_resume({**trained_on, "batch_size": 32, "styles": ["a"]}, state, "--resume")
    (older / TRAINED_ON).write_text(json.dumps(dict.fromkeys("abcdef", 1)))
    with pytest.raises(ValueError, match="d was 1, now 2; and 2 more; repeat .* without --resume"):
        check_resume(dict.fromkeys("abcdef", 2), state, "--resume")


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_state_of_an_older_version_is_resumed_with_a_word(tmp_path, content, capsys):
    (tmp_path / "last").mkdir()
    if content:
        (tmp_path / "last" / TRAINED_ON).write_text(content)
    check_resume({"batch_size": 8}, tmp_path / "last", "--resume")
    assert f"last: holds no {TRAINED_ON}" in capsys.readouterr().err


def test_descriptions_tell_data_and_architectures_apart():
    rows = [("a.png", 10, "café"), ("b.png", 20, "\udce9")]
    others = (rows[::-1], rows[:1], [("a.png", 11, "café"), rows[1]], [("a.png", 10, "cafe"), rows[1]])
    assert describe_samples(rows) == describe_samples(iter(rows)) not in map(describe_samples, others)
    one, other = (describe_tensors(torch.nn.Linear(*sizes).state_dict()) for sizes in ((3, 4), (4, 3)))
    assert one.startswith("16 weights") and other.startswith("15 weights")
    assert describe_tensors({"a": torch.zeros(2)}) == describe_tensors({"a": torch.ones(2)})


def test_a_cosine_stays_at_its_end():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = TrainSchedule(epochs=2, learning_rate=1.0, min_learning_rate=0.1)
    rates = [set_learning_rate(optimizer, step, 10, schedule) for step in range(60)]
    assert rates[:20] == sorted(rates[:20], reverse=True) and rates[20:] == pytest.approx([0.1] * 40)


def test_another_run_of_the_style_encoder_is_refused(run_arguments, tmp_path):
    train.main([*run_arguments, "--epochs", "1"])
    more = [*run_arguments, "--resume"]
    shown = refused(train.main, [*more, "--batch_size", "12"], tmp_path)
    assert f"{tmp_path}/checkpoints/last: " in shown and "batch_size was 8, now 12; repeat" in shown
    for changes in ({"model_name": "test_efficientnet"}, {"ema_decay": 0.9}):
        assert f"{next(iter(changes))} was " in refused(train.main, [*more, *flags(**changes)], tmp_path)
    other = draw_styles(tmp_path / "other", size=44)  # the same names
    assert "data was " in refused(train.main, [*more, *flags(data_dir=other)], tmp_path)
    shutil.move(tmp_path / "data", tmp_path / "moved")  # the same files elsewhere, and what may change
    changes = {"data_dir": tmp_path / "moved", "epochs": 2, "learning_rate": 0.01, "log_steps": 3, "dropout": 0.2}
    assert train.main([*more, *flags(**changes)])["epochs"] == 2


def test_another_run_of_clip_is_refused(clip_arguments, tmp_path):
    train_clip.main([*clip_arguments, "--num_epochs", "1"])
    more = [*clip_arguments, "--resume"]
    assert "batch_size * accum_batches was 8, now 16" in refused(
        train_clip.main, [*more, *flags(batch_size=16)], tmp_path
    )
    assert "loss was" in refused(train_clip.main, [*more, "--model_name", "small", "--loss", "siglip"], tmp_path)
    create_sample_dataset(tmp_path / "other", 40, layout="captions", size=48, seed=1)
    assert "pairs was " in refused(train_clip.main, [*more, *flags(data_dir=tmp_path / "other")], tmp_path)
    shared = flags(batch_size=4, accum_batches=2, num_epochs=2)  # the same pairs a step
    assert train_clip.main([*more, *shared])["epochs"] == 2


def test_another_run_of_blip2_gated_is_refused(blip2_arguments, vqa_data, tiny_blip2, tmp_path):
    shorter = flags("training.", save_last=True, eval_samples=0)
    train_blip2.main([*blip2_arguments, *shorter, "--training.epochs", "1"])
    more = [*blip2_arguments, *shorter, "--training.resume"]
    assert 'type was "film", now "kv"' in refused(train_blip2.main, [*more, "--model.gating.type", "kv"], tmp_path)
    assert "training.batch_size was 8, now 4" in refused(
        train_blip2.main, [*more, "--training.batch_size", "4"], tmp_path
    )
    assert "data.prompt was" in refused(train_blip2.main, [*more, "--data.prompt", "Q: {} A:"], tmp_path)
    (tmp_path / "other").mkdir()
    base = write_blip2(tmp_path / "other" / tiny_blip2.name, vqa_data)  # the same name and shapes
    model = Blip2ForConditionalGeneration.from_pretrained(base)
    model.vision_model.post_layernorm.weight.data += 1
    model.save_pretrained(base)
    shown = refused(train_blip2.main, [*more, "--model.blip2", str(base)], tmp_path)
    assert "differs: weights of BLIP-2 and EfficientNet was" in shown
    assert train_blip2.main(more)["epochs"] == 2


def test_weight_decay_and_scales_are_those_of_the_resumed_run(tmp_path):
    """torch's optimizers load their options with their state: pytorch/examples 816, transformers 28867."""
    stopped, _ = make_trainer(tmp_path, [], epochs=1)
    list(stopped.epochs())
    resumed, _ = make_trainer(tmp_path, [], epochs=2)
    resumed.optimizer.param_groups[0].update(weight_decay=0.3, scale=0.5)
    resumed.resume(seed=0)
    (group,) = resumed.optimizer.param_groups
    assert (group["weight_decay"], group["scale"]) == (0.3, 0.5) and resumed.optimizer.state


def test_a_state_of_another_model_is_one_line(tmp_path):
    stopped, _ = make_trainer(tmp_path, [], epochs=1, ema=0)
    list(stopped.epochs())
    other = torch.nn.Sequential(torch.nn.Linear(7, 1))
    resumed, _ = make_trainer(tmp_path, [], epochs=2, ema=0, model=other)
    with pytest.raises(ValueError, match="last: is of another model or optimizer") as caught:
        resumed.resume(seed=0)
    assert "\n" not in str(caught.value)


def test_another_number_of_processes_draws_new_random_numbers(tmp_path, capsys):
    """accelerate 4283: without a file of its own a process goes on with the generators as they are."""
    stopped, _ = make_trainer(tmp_path, [], epochs=1)
    list(stopped.epochs())
    state = tmp_path / "last"
    shutil.copy(state / "random_states_0.pkl", state / "random_states_1.pkl")
    write_checksums(state)
    drawn = []
    for seed in (1, 1, 2):
        resumed, _ = make_trainer(tmp_path, [], epochs=2)
        resumed.resume(seed)
        drawn.append(torch.rand(3).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert "last: saved by 2 process(es), resumed by 1: the same batches" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_one_process_is_continued_by_two(run_arguments, tmp_path):
    """The batch is that of all devices together."""
    arguments = [*run_arguments, *flags(images_per_style=2, batch_size=12, remix_share=0.5, dropout=0.2)]
    train.main([*arguments, "--epochs", "1"])
    said = torchrun("train.py", [*arguments, "--epochs", "2", "--resume"])
    assert "saved by 1 process(es), resumed by 2" in said and (tmp_path / "checkpoints" / "model_epoch_2.pth").is_file()
