"""Constants of a config module, overridden by flags: typed, named, explained."""

import types
from pathlib import Path

import pytest

from common.settings import read_settings

SOURCE = """
NAME: str = "a"  # what it is called
SIZE: int = 3
RATE: float = 0.5
ON: bool = False
PRETRAINED: bool | str = True
# a comment above
ITEMS: list[str] = []
DEMO = {"SIZE": 7, "RATE": 0.25}
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
        (["--size"], r"--size takes one value, got 0"),
        (["--size", "1", "2"], r"--size takes one value, got 2: 1 2"),
        (["stray"], r"'stray' stands alone"),
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
        ('{"size": "many"}', "size"),
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
