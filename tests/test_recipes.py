"""The files of recipes/ run to the end: with gloo, on a CPU, with two processes in place of 8 or 64."""

import importlib.util
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from conftest import ROOT
from processes import wait_until
from tiny.vitp import vitp_flags

from llava.arguments import read_arguments

RECIPES = ROOT / "recipes"
HERE = Path(sys.executable).parent
PORT = 30000 + os.getpid() % 20000  # of this test run


SRUN = """
import signal, subprocess, sys, psutil
tasks = [subprocess.Popen(sys.argv[1:]) for _ in range(2)]
def forward(number, _):
    for process in psutil.Process().children(recursive=True):
        process.send_signal(number)
signal.signal(signal.SIGUSR1, forward)
sys.exit(max(task.wait() for task in tasks))
"""


def environment(settings) -> dict[str, str]:
    path = f"{settings.get('PATH', HERE)}:{HERE}:{os.environ['PATH']}"
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        **{name: str(value) for name, value in settings.items()},
        "PATH": path,
    }


def start(words, **settings) -> subprocess.CompletedProcess:
    options = {"capture_output": True, "text": True, "timeout": 240}
    return subprocess.run([*map(str, words)], cwd=ROOT, env=environment(settings), **options)


def accelerate(recipe, *words):
    return [HERE / "accelerate", "launch", "--config_file", RECIPES / f"accelerate_{recipe}.yaml", *words]


def processes(folder, step="1") -> int:
    """How many wrote their random state into a run's folder."""
    states = list(folder.rglob("random_states_*.pkl"))
    return len(states) or len(list(folder.glob(f"checkpoint-{step}/rng_state_*.pth")))


def finished(done):
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("accelerate_*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_files(recipe):
    parser = launch_command_parser()
    arguments, config, mixed_precision = _validate_launch_command(
        parser.parse_args(["--config_file", str(recipe), "train.py"])
    )
    wanted = yaml.safe_load(recipe.read_text())
    assert arguments.num_processes == wanted["num_processes"] and arguments.num_machines == wanted["num_machines"]


@pytest.mark.slow
def test_one_gpu(run_arguments, tmp_path):
    finished(start([*accelerate("1gpu"), "train.py", *run_arguments, "--epochs", "1"]))
    assert (tmp_path / "checkpoints" / "best.pth").is_file() and processes(tmp_path / "checkpoints" / "last") == 1


@pytest.mark.slow
def test_several_gpus_clip(clip_arguments, tmp_path):
    finished(start([*accelerate("8gpu", "--num_processes", 2), "clip/train.py", *clip_arguments, "--num_epochs", "1"]))
    assert processes(tmp_path / "model-checkpoint" / "last") == 2


@pytest.mark.slow
def test_several_gpus_blip2(blip2_arguments, tmp_path):
    words = [*blip2_arguments, "--training.epochs", "1", "--training.save_last", "--training.eval_samples", "0"]
    finished(start([*accelerate("8gpu", "--num_processes", 2), "blip2_gated/train.py", *words]))
    assert processes(tmp_path / "checkpoints" / "last") == 2


@pytest.mark.slow
def test_several_machines(run_arguments, tmp_path):
    """Two launchers of one process each, as two machines would have them."""
    other = ["--num_machines", 2, "--num_processes", 2, "--main_process_ip", "127.0.0.1", "--main_process_port", PORT]
    commands = [
        [*accelerate("64gpu", *other, "--machine_rank", rank), "train.py", *run_arguments, "--epochs", "1"]
        for rank in (0, 1)
    ]
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(start, commands):
            finished(done)
    assert processes(tmp_path / "checkpoints" / "last") == 2


@pytest.mark.slow
def test_torchrun_on_one_machine(llava_arguments, tmp_path):
    words = [*llava_arguments, "--max_steps", "1", "--per_device_train_batch_size", "2", "--val_split", "0"]
    finished(start(["sh", RECIPES / "torchrun.sh", "llava/train.py", *words, "--ddp_backend", "gloo"], GPUS=2))
    assert processes(tmp_path / "run") == 2


@pytest.mark.slow
def test_slurm(vitp_parts, tmp_path):
    """An srun that starts its command twice, as two machines of one GPU would: warned, queued again, resumed."""
    place, steps = tmp_path / "bin", 400
    place.mkdir()
    (place / "srun").write_text(f"#!{sys.executable}\n{SRUN}")
    (place / "scontrol").write_text(
        f'#!/bin/sh\n[ "$1" = requeue ] && echo "$2" > {tmp_path}/requeued\n'
        '[ "$*" = "show hostnames a,b" ] && printf "localhost\\nother\\n"\n'
    )
    for path in place.iterdir():
        path.chmod(0o755)
    words = vitp_flags(vitp_parts, tmp_path / "run", max_steps=steps, save_steps=steps, logging_steps=2)
    words += ["--per_device_train_batch_size", "2", "--ddp_backend", "gloo"]
    job = {"SLURM_JOB_NODELIST": "a,b", "SLURM_NNODES": 2, "SLURM_GPUS_ON_NODE": 1, "SLURM_JOB_ID": PORT}
    job |= {"SLURM_SUBMIT_DIR": ROOT, "PATH": place, "PORT": PORT + 1}
    command = ["sh", RECIPES / "slurm_64gpu.sh", "vitp/train.py", *words]
    first = subprocess.Popen([*map(str, command)], cwd=ROOT, env=environment(job), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any('"train/loss"' in path.read_text() for path in tmp_path.rglob("log.jsonl")), first)
    first.send_signal(signal.SIGUSR1)
    _, error = first.communicate(timeout=120)
    assert first.returncode == 1 and "stopped by SIGUSR1 at step" in error, error[-3000:]  # torchrun's code
    assert (tmp_path / "requeued").read_text() == f"{PORT}\n" and processes(tmp_path / "run", "*") == 2
    shorter = str(10 + max(int(path.name.split("-")[1]) for path in (tmp_path / "run").glob("checkpoint-*")))
    command[command.index("--max_steps") + 1] = command[command.index("--save_steps") + 1] = shorter
    finished(start(command, **job, SLURM_RESTART_COUNT=1))
    assert processes(tmp_path / "run", shorter) == 2


def test_numbers_are_those_of_the_names():
    found = {path.stem: yaml.safe_load(path.read_text()) for path in RECIPES.glob("*.yaml")}
    assert set(found) == {"accelerate_1gpu", "accelerate_8gpu", "accelerate_64gpu"}
    for name, content in found.items():
        assert content["num_processes"] == int(name.split("_")[1].removesuffix("gpu"))
        assert content["num_processes"] <= 8 * content["num_machines"] and not content["use_cpu"]
    slurm = (RECIPES / "slurm_64gpu.sh").read_text()
    assert "--nodes=8\n" in slurm and "--gpus-per-node=8\n" in slurm and "--ntasks-per-node=1\n" in slurm


def test_llava_takes_vitps_file_or_says_what_it_lacks():
    words = ["--data", "x", "--use_cpu", "true", "--deepspeed", str(ROOT / "vitp" / "configs" / "zero_stage2.json")]
    if importlib.util.find_spec("deepspeed"):
        assert read_arguments(words)[1].hf_deepspeed_config.is_zero2()
        return
    with pytest.raises(ValueError, match="deepspeed.*needed for --deepspeed"):
        read_arguments(words)


@pytest.mark.parametrize(
    "words, settings, message",
    [
        ([], {}, "no script given"),
        (["gone.py"], {}, "gone.py: no such script"),
        (["train.py"], {"GPUS": "two"}, "GPUS=two: expected a whole number above 0"),
        (["train.py"], {"NODES": 0}, "NODES=0: expected"),
        (["train.py"], {"NODES": 2}, "NODES=2 needs HOST"),
    ],
)
def test_mistakes_are_one_line(words, settings, message):
    done = start(["sh", RECIPES / "torchrun.sh", *words], **settings)
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1 and not done.stdout
