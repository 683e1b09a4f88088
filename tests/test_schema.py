"""JSON of any origin: a line that names file and place, or the content as it is."""

import json

import pytest
from pydantic import FiniteFloat
from typing_extensions import TypedDict

from common.text import schema
from common.text.schema import check_type, read_checked
from common.training.schedule import Progress


class Nested(TypedDict, total=False):
    batch_size: int
    rate: FiniteFloat
    shuffle: bool
    names: list[str]


class Settings(TypedDict):
    training: Nested


@pytest.mark.parametrize(
    "nested, message",
    [
        ({"batch_size": "4"}, "a.json: training.batch_size: expected a valid integer, got '4'"),
        ({"batch_size": 2.5}, "training.batch_size: expected a valid integer, got 2.5"),
        ({"batch_size": True}, "training.batch_size: expected a valid integer, got True"),
        ({"shuffle": "false"}, "training.shuffle: expected a valid boolean, got 'false'"),
        ({"rate": float("nan")}, "training.rate: expected a finite number, got nan"),
        ({"names": ["a", None]}, r"training.names.1: expected a valid string, got None"),
        ([], "training: expected a valid dictionary, got a list of 0"),
    ],
)
def test_wrong_types_are_named_with_their_place(tmp_path, nested, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"training": nested}))
    with pytest.raises(ValueError, match=message) as error:
        read_checked(path, Settings)
    assert "\n" not in str(error.value)


def test_what_is_right_comes_back_as_it_is(tmp_path):
    path, content = (
        tmp_path / "a.json",
        {"training": {"batch_size": 4, "rate": 1, "other": [1, {"x": None}]}, "more": "é"},
    )
    path.write_text(json.dumps(content))
    assert read_checked(path, Settings) == content


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"training": {}, "training": {}}', "'training' stands twice"),
        ("[" * 100_000, "nested too deeply"),
        (f'{{"training": {{"batch_size": {"1" * 10**6}}}}}', "digits"),
        ("", "not JSON"),
        ("{}", "a.json: training is missing"),
        ("version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    ],
)
def test_text_that_is_not_the_file(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_checked(tmp_path / "a.json", Settings)
    assert "a.json" in str(error.value) and len(str(error.value)) < 300


def test_files_of_endless_size_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text('{"training": {}}')
    monkeypatch.setattr(schema, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="a.json: 16 bytes"):
        read_checked(tmp_path / "a.json", Settings)
    with pytest.raises(FileNotFoundError, match="b.json: no such file .--config"):
        read_checked(tmp_path / "b.json", Settings, "--config")


def test_dataclasses_are_made():
    assert check_type({"epoch": 2, "best": -1.5}, Progress, "progress.json") == Progress(epoch=2, best=-1.5)
    with pytest.raises(ValueError, match="progress.json: epoch: expected"):
        check_type({"epoch": "2"}, Progress, "progress.json")
    with pytest.raises(ValueError, match="progress.json: epochs: "):
        check_type({"epochs": 2}, Progress, "progress.json")
