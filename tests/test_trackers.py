"""Names of runs, and trackers besides TensorBoard: installed or refused, resumed without doubles, never in the way."""

import importlib
import json
import sys
from operator import attrgetter

import pytest
from accelerate import PartialState
from conftest import flags
from processes import SINGLE_THREAD, torchrun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny.tracker import calls, write_tracker

import config as style_config
from blip2_gated import config as blip2_config
from clip import config as clip_config
from common.cli.settings import read_settings
from common.training.run import Run, choose_run_name
from common.training.trackers import Trackers, installed_trackers
from llava.config import Logging as LlavaLogging
from vitp.config import Logging as VitpLogging


@pytest.fixture
def tracker(tmp_path, monkeypatch):
    """The folder of a stand-in for trackio, importable."""
    folder = write_tracker(tmp_path / "site")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    monkeypatch.setitem(SINGLE_THREAD, "PYTHONPATH", str(folder))  # of processes that the test starts
    monkeypatch.setenv("TRACKIO_PROJECT", "vision-wrapper")
    PartialState()
    yield folder
    sys.modules.pop("trackio", None)


def test_names_of_trackers(tracker):
    assert installed_trackers(["tensorboard", "none"]) == installed_trackers([]) == []
    assert installed_trackers(["tensorboard,trackio", "trackio"]) == ["trackio"]
    assert "trackio" in installed_trackers(["all"])
    with pytest.raises(ValueError, match="unknown tracker 'trakio'; did you mean trackio"):
        installed_trackers(["trakio"])


@pytest.mark.parametrize(
    "script, flag",
    [
        ("train", "--checkpoint_dir"),
        ("clip.train", "--checkpoint_dir"),
        ("blip2_gated.train", "--training.checkpoint_dir"),
        ("vitp.train", "--output_dir"),
        ("llava.train", "--output_dir"),
    ],
)
def test_a_tracker_that_is_not_installed_is_said_before_anything_is_written(script, flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="report_to: mlflow is not installed; pip install mlflow"):
        importlib.import_module(script).main(["--demo", flag, "run", "--report_to", "mlflow"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words, name",
    [
        (("", "clip", "small"), "clip-small-2"),
        ((None, "clip", "ViT-B/32"), "clip-ViT-B-32-2"),
        (("", "style", "hf-hub:timm/vit_tiny.augreg"), "style-hf-hub-timm-vit_tiny.augreg-2"),
        (("", "llava", "/data/models/llava-1.5-7b-hf/"), "llava-1.5-7b-hf-2"),
        (("", "llava", "checkpoints/llava_demo/start"), "llava-demo-2"),
        (("", "vitp", None, "data/vitp_demo/parts/vision.json", "data/vitp_demo/parts/config.json"), "vitp-demo-2"),
        (("", "vitp", None, "resnet50:weights/r-1a2b.pth", "work/llm/checkpoint-50"), "vitp-resnet50-llm-2"),
        (("", "vitp", None, "vit_small", "./Qwen2.5-0.5B"), "vitp-vit_small-Qwen2.5-0.5B-2"),
        (("my first try", "clip", "small"), "my first try"),
    ],
)
def test_names_of_runs(words, name):
    found = choose_run_name(*words)
    assert found.startswith(name) and (words[0] or found.removeprefix(name[:-1]).isdigit())


@pytest.mark.parametrize("name", ["a/b", "..", "last", "checkpoint-5", ".hidden"])
def test_names_that_are_no_folder_of_a_run(name):
    with pytest.raises(ValueError, match="run_name"):
        choose_run_name(name, "clip", "small")


def test_runs_of_a_day_have_names_of_their_own(tmp_path):
    names = []
    for system in ("one", "two", "two"):
        run = Run(tmp_path / system, tmp_path / "logs", {}, False, "clip-small-20261129")
        names.append(run.log_folder.name)
        run.start_logging(0)
        run.close()
    assert names == ["clip-small-20261129", "clip-small-20261129-2", "clip-small-20261129-3"]
    assert (tmp_path / "two" / "clip-small-20261129-2" / "run.json").is_file()  # moved aside


def test_all_systems_log_below_one_folder():
    blip2 = read_settings(blip2_config, [], quiet=True).training_log_dir
    folders = [style_config.LOG_DIR, clip_config.LOG_DIR, blip2, VitpLogging.logging_dir, LlavaLogging.logging_dir]
    assert folders == ["./logs"] * 5


def start(folder, steps, resumed_at=None, settings=None):
    run = Run(folder, folder / "logs", settings or {"epochs": 2}, resumed_at is not None, "clip-small", ["trackio"])
    run.start_logging(resumed_at or 0)
    for step in steps:
        run.log(step, {"train/loss": 1 / step})
    return run


def test_a_resumed_run_continues_the_trackers_run_and_sends_no_step_twice(tracker, tmp_path):
    killed = start(tmp_path / "run", range(1, 8))
    killed.lock.close()
    start(tmp_path / "run", range(5, 11), resumed_at=4, settings={"epochs": 3}).close()
    found = calls(tracker)
    assert [call["init"] for call in found if "init" in call] == [
        {"project": "vision-wrapper", "name": "clip-small", "resume": resume} for resume in ("never", "allow")
    ]
    assert [call["step"] for call in found if "step" in call] == list(range(1, 11))
    assert [call["config"] for call in found if "config" in call] == [{"epochs": 2}]  # mlflow refuses to change it
    assert found[-1]["finish"] and killed.log_folder == tmp_path / "run" / "logs" / "clip-small"
    log = [json.loads(line)["step"] for line in (killed.log_folder / "log.jsonl").read_text().splitlines()]
    assert log == list(range(1, 11))
    events = EventAccumulator(str(killed.log_folder)).Reload()
    found = sorted(events.Tensors("settings/text_summary"), key=attrgetter("wall_time"))  # two files of one second
    texts = [event.tensor_proto.string_val[0].decode() for event in found]
    assert '"epochs": 2' in texts[0] and '"epochs": 3' in texts[-1]


def test_a_tracker_that_fails_does_not_end_the_run(tracker, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError("no\nnetwork")

    run = start(tmp_path / "run", [1])
    monkeypatch.setattr(type(run.trackers.open[0].run), "log", fail)
    run.log(2, {"train/loss": 0.5})
    run.log(3, {"train/loss": 0.4})
    run.close()
    assert capsys.readouterr().err == "trackio: closed, the run continues without it: no network\n"
    assert len((run.log_folder / "log.jsonl").read_text().splitlines()) == 3


def test_a_tracker_that_fails_at_the_end_or_does_not_start(tracker, tmp_path, monkeypatch, capsys):
    run = start(tmp_path / "run", [1])
    monkeypatch.setattr(type(run.trackers.open[0].run), "finish", lambda self: 1 / 0)
    run.close()
    assert "trackio: closed" in capsys.readouterr().err
    monkeypatch.setattr(sys.modules["trackio"], "init", lambda **_: {}["api\nkey"])
    with pytest.raises(ValueError, match="report_to: trackio does not start: .*api") as caught:
        Trackers(["trackio"], "name", {}, {})
    assert "\n" not in str(caught.value)


def test_trainer_and_run_do_not_both_log(tracker, llava_arguments, tmp_path):
    from llava import train

    more = [*llava_arguments, *flags(report_to=["trackio", "tensorboard"], run_name="mine", project="pictures")]
    train.main([*more, "--max_steps", "2"])
    train.main([*more, "--max_steps", "4", "--resume"])
    found = calls(tracker)
    assert [call["init"]["project"] for call in found if "init" in call] == ["pictures"] * 2
    losses = [call["step"] for call in found if "train/loss" in call.get("values", {})]
    assert losses == [1, 2, 3, 4]
    assert list((tmp_path / "run" / "logs").iterdir()) == [tmp_path / "run" / "logs" / "mine"]
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["report_to"] == ["trackio"]
    assert not list(tmp_path.rglob("runs"))  # Trainer's own folder of TensorBoard


@pytest.mark.slow
def test_the_main_process_alone_reports(tracker, llava_arguments):
    words = flags(per_device_train_batch_size=2, ddp_backend="gloo", report_to="trackio")
    torchrun("llava/train.py", [*llava_arguments, *words])
    found = calls(tracker)
    assert {call["rank"] for call in found} == {"0"} and sum("init" in call for call in found) == 1
