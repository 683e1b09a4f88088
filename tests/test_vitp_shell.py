"""The launchers: their arithmetic, and that what they call is what train.py takes."""

import os
import shlex
import subprocess

import pytest
from conftest import ROOT

from vitp.arguments import read_arguments


@pytest.fixture
def start(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "meta.json").write_text("{}")

    def run(script, *words, shell="sh", **settings):
        given = {
            "MODEL": tmp_path / "model",
            "DATA_PATH": tmp_path / "meta.json",
            "OUTPUT_DIR": tmp_path / "out",
            "DRY_RUN": 1,
            **settings,
        }
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
        environment |= {name: str(value) for name, value in given.items()}
        command = [shell, str(ROOT / "vitp" / "shell" / script), *words]
        return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True)

    return run


def parsed(done):
    assert done.returncode == 0, done.stderr
    launcher, *words = shlex.split(done.stdout)
    assert launcher == "torchrun" and words[3] == str(ROOT / "vitp" / "train.py")
    return int(words[2]), *read_arguments(words[4:])


@pytest.mark.parametrize(
    "script, settings, gpus, each, accumulation",
    [
        ("pretrain_1gpu.sh", {}, 1, 4, 32),
        ("pretrain_8gpu.sh", {"DEEPSPEED": ""}, 8, 4, 4),
        ("pretrain_8gpu.sh", {"DEEPSPEED": "", "BATCH_SIZE": 8}, 8, 1, 1),  # too few for 4 on each
        ("pretrain.sh", {"GPUS": 8, "BATCH_SIZE": 8}, 8, 1, 1),
        ("pretrain.sh", {"GPUS": 2, "BATCH_SIZE": 24, "PER_DEVICE_BATCH_SIZE": 3}, 2, 3, 4),
        ("pretrain.sh", {}, 8, 1, 1),
    ],
)
def test_arithmetic(start, script, settings, gpus, each, accumulation):
    found, model, data, run = parsed(start(script, **settings))
    assert (found, run.per_device_train_batch_size, run.gradient_accumulation_steps) == (gpus, each, accumulation)
    assert run.max_steps == 8000 and data.force_image_size == 448 and data.max_dynamic_patch == 6
    assert model.TMAug_mode == "guide" and model.TMAug_prob is None  # so that another mode brings its own numbers
    assert model.drop_path_rate == 0.1 and run.activation_checkpointing
    assert run.learning_rate == 2e-5 and run.save_steps == 500


def test_a_run_is_named_after_its_script(start):
    assert parsed(start("pretrain_1gpu.sh", OUTPUT_DIR=""))[3].output_dir == "work_dirs/pretrain_1gpu"


def test_further_words_go_to_train(start):
    words = ("--max_steps", "10", "--freeze_llm", "--packing")
    _, model, data, run = parsed(start("pretrain_1gpu.sh", *words, shell="bash"))
    assert run.max_steps == 10 and model.freeze_llm and data.packing
    said = start("pretrain_8gpu.sh").stdout
    assert "--deepspeed zero_stage2.json" in said and "--nproc_per_node 8" in said


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"GPUS": 8, "BATCH_SIZE": 4}, "BATCH_SIZE=4 is below 1 x 8 GPUs; the least is 8"),
        ({"GPUS": 8, "BATCH_SIZE": 20}, "BATCH_SIZE=20 is no multiple of 1 x 8 GPUs; the nearest are 16 and 24"),
        ({"GPUS": 0}, "GPUS=0: expected a whole number above 0"),
        ({"GPUS": "two"}, "GPUS=two: expected"),
        ({"PER_DEVICE_BATCH_SIZE": "all"}, "PER_DEVICE_BATCH_SIZE=all: expected"),
        ({"MODEL": "gone"}, "MODEL=gone: no model's folder"),
        ({"DATA_PATH": "gone.json"}, "DATA_PATH=gone.json: no such file"),
    ],
)
def test_mistakes_stop_before_anything_starts(start, settings, message):
    done = start("pretrain.sh", **settings)
    assert done.returncode == 1 and message in done.stderr and done.stdout == ""
