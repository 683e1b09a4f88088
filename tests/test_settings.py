"""Constants of a config module, overridden by flags: typed, named, explained."""

import types

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
