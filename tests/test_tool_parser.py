"""Sample tool: the first paragraph of its module's docstring is what --help says.

The second is not.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from common.cli.tool_parser import tool


@dataclass(frozen=True)
class Options:
    lambda_: ClosedUnitInterval = 0.3  # share of the distance
    flip: bool = False  # mirrored too


@tool
def search(image: Path, *, options: Options, top_k: PositiveInt = 5) -> tuple:
    return image, options, top_k


@tool
def main(
    image: Path,  # an image, 100 % of it
    other: Path | None = None,
    *,
    weights: Path,  # 权重 # with a hash
    name: str = "默认",  # 名字
    top_k: PositiveInt = 5,  # images
    share: ClosedUnitInterval = 0.5,
    layout: Literal["flat", "tree"] = "flat",
    queries: list[str] = (),
    json: bool = False,
):
    return {**locals()}


def test_parameters_are_the_command_line():
    given = main(["a.png", "--weights", "w", "--queries", "x", "y z", "--top_k=7", "--json", "--layout", "tree"])
    expected = {"image": Path("a.png"), "other": None, "weights": Path("w"), "name": "默认", "top_k": 7, "share": 0.5}
    assert given == {**expected, "layout": "tree", "queries": ["x", "y z"], "json": True}
    assert main(["--weights", "w", "a.png", "b.png"])["other"] == Path("b.png")


@pytest.mark.parametrize(
    "words, names",
    [
        (["a.png"], "--weights"),
        (["--weights", "w"], "image"),
        (["a.png", "--weights", "w", "--top_k", "0"], "--top_k"),
        (["a.png", "--weights", "w", "--top_k", "many"], "--top_k"),
        (["a.png", "--weights", "w", "--share", "1.5"], "--share"),
        (["a.png", "--weights", "w", "--layout", "round"], "--layout"),
        (["a.png", "--weights", "w", "--queries"], "--queries"),
        (["a.png", "--weights", "w", "--wieghts", "w"], "--weights"),
        (["a.png", "--weight", "w"], "--weights"),
        (["a.png", "b.png", "c.png", "--weights", "w"], "c.png"),
    ],
)
def test_mistakes_are_one_line_that_names_the_flag(words, names):
    with pytest.raises(ValueError, match=names) as raised:
        main(words)
    assert "\n" not in str(raised.value)


def test_help_is_the_docstring_and_the_comments(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0 and "usage: test_tool_parser.py" in shown
    assert "Sample tool" in shown and "The second" not in shown
    assert "100 % of it" in shown and "权重 # with a hash" in shown and "名字" in shown and "print JSON" in shown


def test_fields_of_a_dataclass_are_flags(capsys):
    assert search(["a.png", "--lambda", "0.5", "--flip"]) == (Path("a.png"), Options(0.5, True), 5)
    assert search(["a.png", "--top_k", "2"]) == (Path("a.png"), Options(), 2)
    with pytest.raises(ValueError, match="--lambda"):
        search(["a.png", "--lambda", "2"])
    with pytest.raises(SystemExit):
        search(["--help"])
    assert "share of the distance" in capsys.readouterr().out


@tool
def evaluate(*settings: str, batch_size: PositiveInt = 8):
    return settings, batch_size


@tool
def ask(image: str = "", questions: list[str] = (), *, export: Path | None = None):
    return image, list(questions), export


def test_other_words_go_to_settings_and_a_list_may_be_empty():
    assert evaluate(["--data.root", "here", "--batch_size", "4"]) == (("--data.root", "here"), 4)
    assert ask(["--export", "a"]) == ("", [], Path("a")) and ask(["a.png", "what?", "why?"])[1] == ["what?", "why?"]
