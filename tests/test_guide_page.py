"""docs/from-the-guides.md: its count, its form, and that what it tells to type is there."""

import re
import subprocess

import pytest
from conftest import ROOT

import config
from blip2_gated import config as blip2_config
from clip import config as clip_config
from common.cli.settings import read_settings

PAGE = (ROOT / "docs" / "from-the-guides.md").read_text(encoding="utf-8")
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
SOURCE = [ROOT / name for name in TRACKED if not name.startswith(("tests/", "benchmarks/"))]


def rows():
    return [line for line in PAGE.splitlines() if line.startswith("| ") and " type here | note |" not in line]


def test_the_count_is_right_and_every_row_says_what_to_type():
    documents, habits = map(int, re.search(r"(\d+) rows,\s+and (\d+)\s+more", PAGE).groups())
    of_habits = [row for row in rows() if row in PAGE.partition("\n## Habits")[2]]
    assert (documents, habits) == (len(rows()) - len(of_habits), len(of_habits))
    for row in rows():
        guide, here, _ = (cell.strip() for cell in row.strip("|").split("|"))
        assert guide and here, row


def test_files_and_flags_that_are_named_are_there():
    names = {path.name for path in SOURCE}
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE if path.suffix in (".py", ".yaml"))
    words = set(re.findall(r"\w+", text.lower()))
    for cell in (row.split("|")[2] for row in rows()):
        for file in re.findall(r"[\w/]+\.(?:py|sh|yaml|txt)\b", cell):
            assert file.rpartition("/")[2] in names or file.endswith("x.txt"), cell
        for flag in re.findall(r"--([\w.]+)", cell):
            assert set(flag.lower().split(".")) <= words, cell


@pytest.mark.parametrize("module", [config, clip_config, blip2_config], ids=["style", "clip", "blip2"])
def test_habits_are_understood(module):
    words = "--lr 1e-5 --wd 0.1 --bs 4 --epochs 3 --warmup 7 --workers 2 --output_dir out --name mine --amp --no_cuda"
    settings = vars(read_settings(module, words.split()))
    values = {name.removeprefix("training_").removeprefix("num_"): value for name, value in settings.items()}
    assert (values["learning_rate"], values["batch_size"], values["epochs"]) == (1e-5, 4, 3)
    with pytest.raises(ValueError, match="AdamW"):
        read_settings(module, ["--opt", "sgd"])
    with pytest.raises(ValueError, match="learning_rate"):
        read_settings(module, ["--learning_r", "1"])
