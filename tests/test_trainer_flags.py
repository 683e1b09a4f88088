"""Command lines of scripts that train by Hugging Face's Trainer: read, explained and refused without importing it."""

import dataclasses
import importlib
import subprocess
import sys
from typing import Literal

import pytest
from conftest import ROOT
from transformers import HfArgumentParser, TrainingArguments

from common.cli.errors import CommandLineError
from common.cli.trainer_flags import read_flags
from common.training.hf_arguments import TrackedArguments, build_arguments


@dataclasses.dataclass
class Mine:
    """my settings"""

    learning_rate: float = 2e-5  # at its peak
    mode: Literal["a", "b"] = "a"
    # rank of a LoRA
    rank: int | None = None
    freeze: bool = False
    names: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Whole(Mine, TrackedArguments):
    pass


def read(*argv, **options):
    return read_flags((Mine,), list(argv), **options)


def test_every_flag_of_trainer_is_known():
    fields = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    mine = {field.name for field in dataclasses.fields(Mine)}
    values = read(*(f"--{name.replace('_', '-')}" for name in ("fsdp", "torch_compile", "fp16_full_eval")))
    assert values.keys() - mine == {"fsdp", "torch_compile", "fp16_full_eval"}
    for name in fields - mine:
        with pytest.raises(CommandLineError, match=f"did you mean .*--{name}"):
            read(f"--{name}x")


def test_values_are_those_of_transformers_own_parser():
    words = """--output_dir out --per_device_train_batch_size 4 --num_train_epochs 2 --learning_rate 1e-4 --warmup_steps
        0.1 --lr_scheduler_type cosine --eval_strategy steps --eval_steps 5 --save_total_limit 2 --logging_steps 3
        --optim adamw_torch --adam_beta2 0.98 --use_cpu True --disable_tqdm true --label_names
        labels others --hub_token x --seed 7 --activation_checkpointing_kwargs {"use_reentrant":false}
        --lr_scheduler_kwargs {"num_cycles":2} --ddp_find_unused_parameters false --save_steps 20
        --fsdp_config {} --gradient_checkpointing true""".split()
    (theirs,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(words)
    ours = TrainingArguments(**{name: value for name, value in read(*words).items() if name not in NOT_TRAINERS})
    theirs, ours = (dataclasses.asdict(one) for one in (theirs, ours))
    assert theirs == ours


NOT_TRAINERS = ("mode", "rank", "freeze", "names")


def test_defaults_files_and_flags(tmp_path):
    assert read() == {"learning_rate": 2e-5, "mode": "a", "rank": None, "freeze": False, "names": []}
    assert read(defaults={"learning_rate": 1, "adam_beta2": 0.98})["adam_beta2"] == 0.98
    file = tmp_path / "mine.json"
    file.write_text('{"rank": 3, "freeze": true, "max_steps": 7, "learning_rate": 0.5}')
    values = read("--config", str(file), "--rank=4", defaults={"rank": 2, "mode": "b"})
    assert (values["rank"], values["freeze"], values["max_steps"], values["mode"]) == (4, True, 7, "b")
    file.write_text('{"rnak": 3}')
    with pytest.raises(ValueError, match="unknown setting 'rnak'; did you mean rank"):
        read("--config", str(file))
    values = read("--freeze", "--names", "x", "y", "--no_freeze")
    assert values["names"] == ["x", "y"] and values["freeze"] is False


@pytest.mark.parametrize(
    "words, name, value",
    [
        ("--lr 0.1", "learning_rate", 0.1),
        ("--bs 2", "per_device_train_batch_size", 2),
        ("--epochs 2", "num_train_epochs", 2.0),
        ("--wd 0.1", "weight_decay", 0.1),
        ("--workers 3", "dataloader_num_workers", 3),
        ("--output x", "output_dir", "x"),
        ("--accum_freq 2", "gradient_accumulation_steps", 2),
        ("--clip-grad 2", "max_grad_norm", 2.0),
        ("--warmup_ratio 0.1", "warmup_steps", 0.1),
        ("--evaluation_strategy no", "eval_strategy", "no"),
        ("--amp", "bf16", True),
        ("--no_cuda", "use_cpu", True),
        ("--group_by_length", "train_sampling_strategy", "group_by_length"),
        ("--wandb", "report_to", "wandb"),
    ],
)
def test_names_of_other_projects(words, name, value):
    assert read(*words.split())[name] == value


@pytest.mark.parametrize(
    "script, model, data", [("vitp", "model_name_or_path", "meta_path"), ("llava", "model_id", "data")]
)
def test_names_of_other_projects_in_both_scripts(script, model, data):
    words = "--model m --data d --resume --name n --logdir l --bs 2".split()
    values = importlib.import_module(f"{script}.config").read_command_line(words)
    assert (values[model], values[data], values["resume_from_checkpoint"]) == ("m", "d", True)
    assert (values["run_name"], values["logging_dir"], values["per_device_train_batch_size"]) == ("n", "l", 2)


@pytest.mark.parametrize(
    "words, message",
    [
        ("--learning_rat 1", "unknown flag '--learning_rat'; did you mean --learning_rate"),
        ("--num_train 1", "unknown flag '--num_train'"),  # no abbreviations
        ("--max_steps many", "--max_steps: 'many', expected INT"),
        ("--mode c", "--mode: 'c', expected a|b"),
        ("--max_steps", "--max_steps.*one argument"),
        ("stray", "'stray'"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(CommandLineError, match=message.replace("|", r"\|")):
        read(*words.split())


@pytest.mark.parametrize(
    "words, message",
    [("--log_level loud", "--log_level: loud, expected .*debug"), ("--eval_strategy often", "often is not a valid")],
)
def test_values_that_trainer_refuses(words, message):
    with pytest.raises(ValueError, match=message):
        build_arguments([Whole], read("--use_cpu", *words.split()))


def test_a_wrong_value_in_the_file_names_its_line():
    wrong = dataclasses.make_dataclass("Wrong", [("rank", int, 1)], bases=(Mine,))
    wrong.__doc__ = Mine.__doc__
    Mine.__dataclass_fields__["rank"].default, before = "many", Mine.__dataclass_fields__["rank"].default
    try:
        with pytest.raises(ValueError, match=r"test_trainer_flags.py, line \d+: rank: 'many'"):
            read()
    finally:
        Mine.__dataclass_fields__["rank"].default = before


def shown(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        read(*words)
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_shows_our_settings_first_and_all_on_request(capsys):
    short, long = shown(capsys, "--help"), shown(capsys, "--help_all")
    assert "my settings:" in short and "at its peak [2e-05]" in short and "rank of a LoRA" in short
    assert "--adam_beta1" not in short and "--help_all shows" in short
    assert "--adam_beta1 NUMBER" in long and long.index("my settings:") < long.index("Hugging Face's Trainer:")
    assert long.count("--learning_rate ") == 1


@pytest.mark.parametrize("script, missing", [("vitp", "--meta_path is missing"), ("llava", "--data is missing")])
@pytest.mark.parametrize("words, code", [("--help", 0), ("", 2)])
def test_it_is_answered_before_torch_is_imported(script, missing, words, code):
    program = (
        "import runpy, sys\n"
        f"sys.argv = {['train.py', *words.split()]}\n"
        f"try:\n    runpy.run_path({str(ROOT / script / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    print(stop.code, sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == f"{code} []", done.stderr
    assert ("--help_all" in done.stdout) == (code == 0) and (missing in done.stderr) == (code == 2)
