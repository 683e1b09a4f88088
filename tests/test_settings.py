"""Constants of a config module, overridden by flags: typed, named, explained."""

import importlib
import types
from pathlib import Path

import pytest

from common.cli.settings import read_settings

SOURCE = """
from typing import Final
# --- what it is ---
NAME = "a"  # what it is called
SIZE = 3
# --- how it runs ---
RATE = 0.5
ON = False
PRETRAINED = True
# a comment above
ITEMS = []
PLAIN: int = 8  # declared where it stands
TEXT: Final = "no setting"
DEMO = {"SIZE": 7, "RATE": 0.25}
TYPES = {"NAME": str, "SIZE": int, "RATE": float, "ON": bool, "PRETRAINED": bool | str, "ITEMS": list[str]}
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    path = tmp_path / "some_config.py"
    path.write_text(SOURCE)
    module = types.ModuleType("some_config")
    module.__file__ = str(path)
    exec(compile(SOURCE, str(path), "exec"), module.__dict__)
    return module


def test_defaults_and_overrides(module):
    assert read_settings(module, []).size == 3
    settings = read_settings(
        module,
        [
            "--size",
            "5",
            "--rate",
            "1e-4",
            "--on",
            "--name=b",
            "--pretrained",
            "false",
            "--items",
            "x",
            "y",
            "--items",
            "z",
            "w",
        ],
    )
    assert (settings.size, settings.rate, settings.on, settings.name) == (5, 1e-4, True, "b")
    assert settings.pretrained is False and settings.items == ["z", "w"]
    assert read_settings(module, ["--pretrained", "weights.pth"]).pretrained == "weights.pth"
    assert read_settings(module, ["--on", "false"]).on is False
    assert read_settings(module, ["--items", "['x', 'y']"]).items == ["x", "y"]
    assert read_settings(module, ["--items"]).items == []
    assert read_settings(module, ["--items=x", "y", "-z"]).items == ["x", "y", "-z"]


def test_an_annotation_declares_a_setting(module):
    assert read_settings(module, []).plain == 8 and read_settings(module, ["--plain", "9"]).plain == 9
    with pytest.raises(ValueError, match="plain"):
        read_settings(module, ["--plain", "x"])
    with pytest.raises(ValueError, match="unknown flag"):
        read_settings(module, ["--text", "x"])


def test_constants_are_read_when_called(module):
    module.SIZE = 11
    assert read_settings(module, []).size == 11


def test_demo_values_stand_below_flags(module):
    settings = read_settings(module, ["--demo", "--rate", "0.9"])
    assert (settings.demo, settings.size, settings.rate) == (True, 7, 0.9)


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--sise", "3"], r"unknown flag '--sise'; did you mean --size"),
        (["--size", "many"], r"size"),
        (["--rate", "fast"], r"rate"),
        (["--size"], r"--size.*one argument"),
        (["--size", "1", "2"], r"'2' has no flag"),
        (["stray"], r"'stray' has no flag"),
    ],
)
def test_mistakes_are_explained(module, argv, words):
    with pytest.raises(ValueError, match=words):
        read_settings(module, argv)


def test_help_shows_the_comments(module, capsys):
    with pytest.raises(SystemExit) as stop:
        read_settings(module, ["--help"], "demo.py: does something")
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and "what it is called" in shown and "a comment above" in shown


def write(module, name, text):
    path = Path(module.__file__).with_name(name)
    path.write_text(text)
    return str(path)


def test_a_file_beside_the_module_lies_between_constants_and_flags(module):
    write(module, "config.json", '{"size": 5, "some": {"rate": 1e-4}}')
    settings = read_settings(module, ["--rate", "0.1"])
    assert (settings.size, settings.rate, settings.name) == (5, 0.1, "a")
    assert read_settings(module, []).rate == 1e-4
    assert read_settings(module, ["--demo"]).size == 7  # the demo is what it says, whatever the file holds


def test_another_file_by_name_and_sections(module):
    yaml = write(module, "other.yaml", "items: [b, c]\npretrained: w.pth\nmodel:\n  rate: 1e-4\n")
    settings = read_settings(module, ["--config", yaml])
    assert settings.items == ["b", "c"] and settings.rate == 1e-4 and settings.pretrained == "w.pth"
    assert read_settings(module, [f"--config={yaml}", "--items", "d"]).items == ["d"]


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"sise": 5}', "unknown setting 'sise'; did you mean size"),
        ('{"model": {"sise": 5}}', "unknown setting 'model_sise'"),
        ('{"size": 5, "x": {"size": 6}}', "'size' is set twice"),
        ("[1]", "expected names and values"),
        ("{", "cannot be read as JSON or YAML"),
        ('{"size": "many"}', "mine.json: size: 'many', expected INT"),
        ('{"items": "b"}', "mine.json: items: 'b'"),
        ('{"name": null}', "mine.json: name: 'None', expected TEXT"),
        ('{"size": 5, "size": 6}', "'size' is set twice"),
    ],
)
def test_mistakes_in_files(module, text, message):
    path = write(module, "mine.json", text)
    with pytest.raises(ValueError, match=message):
        read_settings(module, ["--config", path])
    with pytest.raises(FileNotFoundError, match="none.json: no such file"):
        read_settings(module, ["--config", "none.json"])


def test_clips_file_says_what_its_module_says():
    from clip import config

    for name, value in vars(read_settings(config, [])).items():
        assert name == "demo" or value == getattr(config, name.upper())


SECTIONED = """
TYPES = {
    "data": {"root": str},
    "model": {"lora": {"enabled": bool, "rank": int}, "opt_model": str},
    "training": {"batch_size": int, "rate": float},
}
"""
DEFAULT = """
data:
  root: ./data  # where the files lie
model:
  lora:
    enabled: false
    rank: 8
  # a comment above
  opt_model: "opt"
training:
  batch_size: 32
  rate: 1e-4
"""


@pytest.fixture
def sectioned(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "default.yaml").write_text(DEFAULT)
    (tmp_path / "configs" / "art.yaml").write_text("model:\n  lora:\n    rank: 4\ntraining:\n  batch_size: 8\n")
    (tmp_path / "configs" / "demo.yaml").write_text("training:\n  batch_size: 2\n")
    module = types.ModuleType("sectioned")
    module.__file__ = str(tmp_path / "config.py")
    exec(compile(SECTIONED, module.__file__, "exec"), module.__dict__)
    return module


def test_sections_are_layered(sectioned, tmp_path):
    assert read_settings(sectioned, []).training_batch_size == 32  # of default.yaml
    settings = read_settings(sectioned, ["--config", "art", "--model.opt_model", "x", "--model.lora.enabled"])
    assert (settings.training_batch_size, settings.training_rate, settings.model_lora_rank) == (8, 1e-4, 4)
    assert settings.model_opt_model == "x" and settings.model_lora_enabled is True and settings.data_root == "./data"
    assert (read_settings(sectioned, []).training_rate, type(settings.model_lora_rank)) == (1e-4, int)
    assert read_settings(sectioned, ["--config=art", "--training.batch_size", "4"]).training_batch_size == 4
    assert read_settings(sectioned, ["--training_batch_size=3"]).training_batch_size == 3
    assert read_settings(sectioned, ["--demo"]).training_batch_size == 2
    (tmp_path / "mine.yaml").write_text("data:\n  root: elsewhere\n")
    settings = read_settings(sectioned, ["--config", str(tmp_path / "mine.yaml")])
    assert (settings.data_root, settings.training_batch_size) == ("elsewhere", 32)


def test_values_of_an_older_run_lie_below_a_named_file_and_flags(sectioned):
    older = {"training_batch_size": 64, "training_rate": 0.5}
    assert read_settings(sectioned, [], defaults=older).training_batch_size == 64
    settings = read_settings(sectioned, ["--config", "art", "--data.root", "d"], defaults=older)
    assert (settings.training_batch_size, settings.training_rate, settings.data_root) == (8, 0.5, "d")


@pytest.mark.parametrize(
    "text, message",
    [
        ("model:\n  lora:\n    rnak: 4\n", "unknown setting 'model.lora.rnak'; did you mean model.lora.rank"),
        ("rate: 4\ntraining:\n  rate: 5\n", "'training.rate' is set twice"),
        ("loss:\n  training:\n    batch_size: 4\n", "unknown setting 'loss.training.batch_size'"),
        ("model:\n  lora: 4\n", "unknown setting 'model.lora'"),
    ],
)
def test_mistakes_in_sections(sectioned, tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_settings(sectioned, ["--config", str(tmp_path / "mine.yaml")])
    with pytest.raises(ValueError, match="unknown flag '--training.batchsize'; did you mean --training.batch_size"):
        read_settings(sectioned, ["--training.batchsize", "4"])
    with pytest.raises(FileNotFoundError, match="artquets: no such file, nor one of art, default, demo"):
        read_settings(sectioned, ["--config", "artquets"])


def test_help_shows_sections(sectioned, capsys):
    with pytest.raises(SystemExit):
        read_settings(sectioned, ["--help"])
    shown = capsys.readouterr().out
    assert "--model.lora.rank" in shown and "where the files lie" in shown and "a comment above" in shown


def test_an_edit_in_the_default_file_takes_effect_and_none_may_be_missing(sectioned, tmp_path):
    default = tmp_path / "configs" / "default.yaml"
    default.write_text(DEFAULT.replace("rank: 8", "rank: 16"))
    assert read_settings(sectioned, []).model_lora_rank == read_settings(sectioned, ["--demo"]).model_lora_rank == 16
    default.write_text(DEFAULT.replace("    rank: 8\n", ""))
    with pytest.raises(ValueError, match="default.yaml: no value for model.lora.rank"):
        read_settings(sectioned, [])
    default.write_text(DEFAULT.replace("rank: 8", "rank: many"))
    with pytest.raises(ValueError, match=r"default.yaml, line 7: model.lora.rank: 'many', expected INT"):
        read_settings(sectioned, [])


def test_one_line_says_which_of_two_places_won(module, sectioned, capsys):
    read_settings(sectioned, ["--training.rate", "2"])
    assert capsys.readouterr().err == ""
    read_settings(sectioned, ["--config", "art", "--training.batch_size", "4"])
    assert capsys.readouterr().err == (
        "settings: art.yaml over default.yaml: model.lora.rank, training.batch_size; "
        "the command line over art.yaml: training.batch_size\n"
    )
    write(module, "config.json", '{"size": 5, "rate": 0.5}')
    read_settings(module, [])
    assert capsys.readouterr().err == "settings: config.json over config.py: size\n"


@pytest.mark.parametrize("name, setting", [("clip", "NUM_EPOCHS"), ("llava", "BATCH_SIZE")])
def test_an_edit_in_the_config_file_takes_effect(name, setting, monkeypatch):
    """The config.json in its folder holds differences only, and as shipped none."""
    module = importlib.import_module(f"{name}.config")
    monkeypatch.setattr(module, setting, 7)
    assert getattr(read_settings(module, []), setting.lower()) == 7
