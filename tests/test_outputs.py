"""Outputs never overwrite inputs: by path, by link, by inode; and every flag of a tool that is a path is declared."""

import dataclasses
import os
import typing
from pathlib import Path

import pytest
from conftest import ROOT

import config as style_config
from clip import config as clip_config
from clip import optimized_metadata
from common.cli.early import _read_tool
from common.cli.errors import CommandLineError
from common.cli.outputs import OUTPUTS, refuse_overwriting
from common.cli.settings import read_settings
from common.cli.tool_parser import tool
from llava import config as llava_config
from vitp import extract_vit, json2jsonl
from vitp.config import read_command_line

READ = {  # parameters of tools that are paths and are only read, or updated in place
    *(
        "adapter",
        "checkpoint",
        "classes_csv",
        "data",
        "data_dir",
        "data_root",
        "features",
        "gallery_dir",
        "gallery_features",
    ),
    *("gallery_labels", "image", "image_dir", "image_list", "index_dir", "input", "metadata", "model", "paths"),
    *("query_dir", "query_features", "query_labels", "root", "split_csv", "train_data", "weights"),
    *("test_dir", "folder", "like", "styles", "pictures"),  # of examples
    *("cache_dir", "path"),  # of what can be made again: image vectors, drawn samples
}
TOOLS = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in (".venv", "tests", ".git")]
TOOLS = [path for path in TOOLS if "\n@tool\n" in path.read_text(encoding="utf-8")]


def path_parameters(function):
    for name, hint in typing.get_type_hints(function).items():
        if dataclasses.is_dataclass(hint):
            yield from path_parameters(hint)
        elif "Path" in str(hint) and name != "return":
            yield name


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_of_a_tool_is_read_or_written(path):
    undeclared = set(path_parameters(_read_tool(path))) - READ - {*OUTPUTS}
    assert not undeclared, f"{undeclared}: written? then its name belongs into OUTPUTS of common/cli/outputs.py"


@tool
def main(
    image: Path,
    *,
    weights: str = "",
    others: list[str] = (),
    output: Path | None = None,
    output_dir: Path = Path("no/such"),
    meta: Path | None = None,
):
    return output


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "w.pth", "b.json"):
        (tmp_path / name).write_text(name)
    (tmp_path / "data").mkdir()
    os.link("w.pth", "hard.pth")
    (tmp_path / "soft.pth").symlink_to("w.pth")
    (tmp_path / "link").symlink_to("data")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "a.png --output a.png",
        "a.png --output ./data/../a.png",
        "a.png --weights w.pth --output w.pth",
        "a.png --weights w.pth --output hard.pth",
        "a.png --weights soft.pth --output w.pth",
        "a.png --weights w.pth --output soft.pth",
        "a.png --weights timm:w.pth --output w.pth",
        "a.png --others x NAME=b.json --output b.json",
        "data --output_dir link",
        "a.png --output new.json --meta data/../new.json",
    ],
)
def test_an_output_that_is_an_input(files, words):
    with pytest.raises(CommandLineError, match="--(output|meta|output_dir) .*another name") as raised:
        main(words.split())
    assert "\n" not in str(raised.value)
    assert (files / "w.pth").read_text() == "w.pth"


@pytest.mark.parametrize(
    "words, output",
    [
        ("a.png --output b.json", "b.json"),
        ("a.png --weights w.pth --output new", "new"),
        ("data --output_dir . --output x", "x"),
    ],
)
def test_other_outputs(files, words, output):
    assert main(words.split()) == Path(output)


def test_an_image_of_an_input_folder(files):
    (files / "data" / "a").mkdir()
    (files / "data" / "a" / "b.png").write_text("an image")
    for folder in ("data", "data/a", "link"):
        with pytest.raises(CommandLineError, match="--output data/a/b.png: is an image of the folder"):
            main([folder, "--output", "data/a/b.png"])
    main(["data", "--output", "data/a/new.png"])
    main([".", "--output", "b.png"])


def test_folders_of_training(files):
    for words in (["--data_dir", "data", "--checkpoint_dir", "link"], ["--data_dir", "data", "--log_dir", "data"]):
        for module in (style_config, clip_config):
            with pytest.raises(CommandLineError, match="is the input that data_dir names"):
                read_settings(module, words)
    with pytest.raises(CommandLineError, match="is the input that input names"):
        read_settings(llava_config, ["--input", "b.json", "--output", "b.json"])
    with pytest.raises(CommandLineError, match="is the input that model_name_or_path names"):
        read_command_line(["--model_name_or_path", "data", "--output_dir", "link"])
    resumed = ["--meta_path", "b.json", "--output_dir", "data", "--resume_from_checkpoint", "data"]
    assert read_command_line(resumed)["output_dir"] == "data"


def test_values_that_are_no_paths(files):
    values = {"output": "a\0b", "text": "\0", "numbers": [1, None, {}], "image": "", "weights": "x" * 9000}
    refuse_overwriting(values)
    with pytest.raises(CommandLineError, match="the input that data names"):
        refuse_overwriting({**values, "data": "b.json", "meta": "b.json"})


def test_inputs_that_no_flag_names(files):
    (files / "metadata.jsonl").write_text("{}")
    for main, words in (
        (optimized_metadata.main, "--output metadata.jsonl"),  # read where no flag says which
        (json2jsonl.main, "metadata.jsonl"),  # whose output would be beside it, under its own name
        (extract_vit.main, "w.pth hard.pth"),
    ):
        with pytest.raises(CommandLineError, match="another name"):
            main(words.split())
    assert (files / "metadata.jsonl").read_text() == "{}"
