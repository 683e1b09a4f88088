"""Flags as people type them who know timm, open_clip and transformers."""

import pytest

import blip2_gated.config
import clip.config
import config
from common.cli.errors import CommandLineError
from common.cli.names import SYNONYMS, find_name, nearest, unknown_name
from common.cli.settings import read_settings

STYLE, CLIP, BLIP2 = config, clip.config, blip2_gated.config
TIMM = "--data-dir d --model m --batch-size 8 --epochs 3 --lr 1e-3 --weight-decay 0.1 --workers 2 --output o --seed 1"
OPEN_CLIP = "--train-data d --model m --batch-size 8 --epochs 3 --lr 1e-3 --wd 0.1 --workers 2 --output-dir o --seed 1"
TRANSFORMERS = (
    "--dataset d --model_name_or_path m --per_device_train_batch_size 8 --num_train_epochs 3 --learning_rate 1e-3 "
    "--weight_decay 0.1 --dataloader_num_workers 2 --output_dir o --seed 1"
)
SHORT = "--data d --arch m --bs 8 --max_epochs 3 --base_lr 1e-3 --wd 0.1 -j 2 --save_dir o --seed 1"


@pytest.mark.parametrize("words", [TIMM, OPEN_CLIP, TRANSFORMERS, SHORT])
@pytest.mark.parametrize("system", [STYLE, CLIP, BLIP2], ids=["style", "clip", "blip2"])
def test_the_flags_of_other_projects_work(system, words):
    expected = {"d", "m", 8, 3, 1e-3, 0.1, 2, "o", 1}
    settings, shipped = vars(read_settings(system, words.split())), vars(read_settings(system, []))
    changed = {name: value for name, value in settings.items() if value != shipped[name]}
    assert set(changed.values()) == expected and len(changed) == len(expected)


@pytest.mark.parametrize("system", [STYLE, CLIP, BLIP2], ids=["style", "clip", "blip2"])
def test_flags_without_a_value(system, tmp_path):
    (tmp_path / "last").mkdir()
    section = "training_" if system is BLIP2 else ""
    settings = vars(read_settings(system, ["--amp", "--no-resume", "--max_skipped", "0.5"]))
    assert settings[f"{section}precision"] == "auto" and settings[f"{section}resume"] is False
    assert vars(read_settings(system, ["--fp16", "--cpu"]))[f"{section}precision"] == "fp16"
    assert vars(read_settings(system, ["--wandb"]))[f"{section}report_to"] == ["wandb"]
    for words in (["--resume"], ["--resume", "latest"], ["--resume=latest"], ["--resume", "true", "--seed", "0"]):
        assert vars(read_settings(system, words))[f"{section}resume"] is True
    for folder in (tmp_path, tmp_path / "last"):
        settings = vars(read_settings(system, ["--resume", str(folder)]))
        assert (settings[f"{section}resume"], settings[f"{section}checkpoint_dir"]) == (True, str(tmp_path))
    with pytest.raises(CommandLineError, match="no such folder"):
        read_settings(system, ["--resume", "best.pth"])


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--opt", "AdamW"),
        ("--lr_scheduler", "cosine"),
        ("--warmup_epochs", "optimizer steps"),
        ("--gpus", "torchrun"),
        ("--val_data", "share of the data"),
        ("--val", "did you mean --val_split or --val_styles"),
        ("--learnig_rate", "did you mean --learning_rate?"),
        ("--learn", "did you mean --learning_rate?"),
        ("--epoch", "did you mean --epochs?"),
        ("--decay", "--weight_decay"),
        ("--save", "--save_epochs or --save_steps"),
        ("--no_demo", "unknown flag"),
    ],
)
def test_what_does_not_exist_gets_the_right_hint(flag, words):
    with pytest.raises(CommandLineError, match=f"unknown flag '{flag}'") as raised:
        read_settings(STYLE, [flag, "1"])
    assert words in str(raised.value)


def test_a_data_folder_without_its_flag(tmp_path):
    with pytest.raises(CommandLineError, match=f"did you mean --data_dir {tmp_path}"):
        read_settings(STYLE, [str(tmp_path)])


def test_a_synonym_is_said_once_and_a_spelling_is_not(capsys):
    read_settings(STYLE, ["--batch-size", "4", "--no_resume"])
    assert capsys.readouterr().err == ""
    find = ["--grad_clip_norm", "2"]
    read_settings(STYLE, find)
    read_settings(STYLE, find)
    assert capsys.readouterr().err == "--grad_clip_norm is --clip_norm here\n"


def test_no_name_is_found_by_its_beginning():
    known = [name.lower() for name in STYLE.TYPES]
    for name in known:
        for end in range(1, len(name)):
            assert find_name(name[:end], known) in (None, *[other for other in known if name[:end] in synonyms(other)])


def synonyms(name):
    return {word for group in SYNONYMS if name in group for word in group} | {name}


def test_a_synonym_that_could_be_two_is_none():
    assert find_name("checkpoint", ["weights", "model"]) is None
    assert find_name("dropout", ["model.lora.dropout", "model.prompt_mapper.dropout"]) is None
    assert nearest("index", ["index_dir", "image_dir"]) == ["index_dir"]
    assert unknown_name("--lr", ["--log_dir", "--flip_prob"], "flag") == "unknown flag '--lr'"
