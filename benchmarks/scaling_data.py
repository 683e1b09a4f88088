"""Time of reading, an epoch and evaluation against the number of samples, and cost of several processes.

    python benchmarks/scaling_data.py data [--systems style clip]
    python benchmarks/scaling_data.py world           the same CLIP training on 1, 2 and 4 gloo processes

data: each system's own train.py, one epoch of a small model on drawn samples, a process for each amount. Timed are the
functions named in TIMED, inside the run; the images are decoded for the first time. Lines are fitted by least squares.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scaling import ROOT, fitted, write_models

AMOUNTS = (60, 120, 240)
TIMED = {  # system -> module of train.py, {what is timed: functions, "module:name" or "module:class.name"}
    "style": (
        "train",
        {
            "reading": ["train:find_samples", "train:read_target_shapes", "train:build_datasets"],
            "epoch": ["common.training.trainer:Trainer._train_epoch"],
            "evaluating": ["train:validate"],
        },
    ),
    "clip": (
        "clip.train",
        {
            "reading": ["clip.train:open_data", "clip.training_data:LocalPairs.build"],
            "epoch": ["common.training.trainer:Trainer._train_epoch"],
            "evaluating": ["clip.train:validate"],
        },
    ),
    "blip2": (
        "blip2_gated.train",
        {
            "reading": ["blip2_gated.train:read_splits", "blip2_gated.train:build_datasets"],
            "epoch": ["common.training.trainer:Trainer._train_epoch"],
            "evaluating": ["blip2_gated.train:validate"],
        },
    ),
    "vitp": (
        "vitp.train",
        {
            "reading": ["vitp.train:open_data"],
            "epoch": ["vitp.train:InstructionTrainer.train"],
            "evaluating": ["vitp.train:InstructionTrainer.evaluate"],
        },
    ),
    "llava": (
        "llava.train",
        {
            "reading": ["llava.train:open_conversations", "llava.train:make_datasets"],
            "epoch": ["llava.trainer:LlavaTrainer.train"],
            "evaluating": ["llava.trainer:LlavaTrainer.evaluate"],
        },
    ),
}


def prepare(system: str, amount: int, folder: Path) -> list[str]:
    """Draw the samples -> flags of train.py. No path may hold a space: a line of flags is split at them."""
    from common.samples.layouts import create_sample_dataset

    data, out = folder / "data", folder / "out"
    layouts = {"style": "styles", "clip": "captions", "blip2": "vqa"}
    if system in layouts:
        create_sample_dataset(data, amount, layout=layouts[system])
    else:
        models = write_models(folder)
        create_sample_dataset(data, amount, 0, "conversations", 64)
    ours = (
        f"--checkpoint_dir {out}/checkpoints --log_dir {out}/logs --cache_dir {out}/cache --val_split 0.2 --device cpu"
    )
    trainer = f"""--output_dir {out} --logging_dir {out}/logs --use_cpu true --num_train_epochs 1
        --save_strategy no --disable_tqdm true --per_device_train_batch_size 4 --per_device_eval_batch_size 4"""
    if system == "style":
        flags = f"""--data_dir {data} --model_name efficientnet_lite0 --pretrained false --image_size 64 --epochs 1
            --batch_size 16 {ours}"""
    elif system == "clip":
        flags = (
            f"--data_dir {data} --model_name small --num_epochs 1 --batch_size 12 --results_dir {out}/results {ours}"
        )
    elif system == "blip2":
        flags = f"""--demo --data.root {data} --training.epochs 1 --training.batch_size 16 --training.warm_start_steps 0
            --training.eval_samples 0 --training.device cpu --training.checkpoint_dir {out}/checkpoints
            --training.log_dir {out}/logs --data.cache_dir {out}/cache"""
    elif system == "vitp":
        flags = f"""--vision_config {models["VISION64"]} --llm {models["LLM"]} --meta_path {data}/meta.json
            --eval_meta_path {data}/meta.json --max_dynamic_patch 1 --max_seq_length 512
            --tokenizer {_tokenizer(folder, data)} --dataloader_num_workers 0 {trainer}"""
    else:
        from transformers import AutoConfig, AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_config(
            AutoConfig.from_pretrained(models["LLAVA64"], trust_remote_code=False)
        )
        model.save_pretrained(models["LLAVA64"])
        flags = f"""--model_id {models["LLAVA64"]} --data {data}/conversations.jsonl --image_dir {data}/images
            --lora_rank 8 --val_split 0.2 {trainer}"""
    return flags.split()


def _tokenizer(folder: Path, data: Path) -> Path:
    from vitp.demo import train_tokenizer

    said = [
        turn["value"]
        for line in (data / "conversations.jsonl").read_text().splitlines()
        for turn in json.loads(line)["conversations"]
    ]
    train_tokenizer(said, 1000).save_pretrained(folder / "tokenizer")
    return folder / "tokenizer"


def run_timed(system: str, amount: int) -> dict[str, float]:
    """One epoch in this process -> seconds by what is timed."""
    module, timed = TIMED[system]
    spent: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        flags = prepare(system, amount, Path(folder))
        main = importlib.import_module(module).main
        for label, functions in timed.items():
            for place in functions:
                _time(place, label, spent)
        start = time.perf_counter()
        main(flags)
        spent["whole run"] = time.perf_counter() - start
    return dict(spent)


def _time(place: str, label: str, spent: Counter) -> None:
    module, _, path = place.partition(":")
    owner = importlib.import_module(module)
    *classes, name = path.split(".")
    for one in classes:
        owner = getattr(owner, one)
    function = getattr(owner, name)

    def timed(*arguments, **named):
        start = time.perf_counter()
        result = function(*arguments, **named)
        spent[label] += time.perf_counter() - start
        return result

    setattr(owner, name, timed)


def data(chosen: list[str]) -> None:
    labels = ["reading", "epoch", "evaluating", "whole run"]
    print(f"| system | samples drawn | {', s | '.join(labels)}, s |\n|---|---|{'---|' * len(labels)}")
    found = {}
    for system in chosen:
        for amount in AMOUNTS:
            done = _fresh(["one", system, str(amount)])
            found[system, amount] = json.loads(done.splitlines()[-1])
            cells = " | ".join(f"{found[system, amount].get(label, 0):.2f}" for label in labels)
            print(f"| {system} | {amount} | {cells} |", flush=True)
    for system in chosen:
        for label in labels[:3]:
            seconds = [found[system, amount].get(label, 0) for amount in AMOUNTS]
            print(f"{system}, {label}: {fitted(list(AMOUNTS), seconds, 'samples')}")


def _fresh(words: list[str]) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, __file__, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def world() -> None:
    """Steps of a global batch of 48 pairs on 1, 2 and 4 processes, from the second epoch's log."""
    print("| processes | pairs/s of all | s a step |\n|---|---|---|")
    for size in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            flags = [*prepare("clip", 240, Path(folder)), *"--num_epochs 2 --batch_size 48 --log_steps 1".split()]
            launcher = f"-m torch.distributed.run --standalone --nproc_per_node {size}".split()
            command = [sys.executable, *launcher, str(ROOT / "clip" / "train.py"), *flags]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            lines = [json.loads(line) for path in Path(folder).rglob("log.jsonl") for line in path.open()]
        speeds = [one["train/images_per_second"] for one in lines if "train/images_per_second" in one]
        speed = statistics.median(speeds[len(speeds) // 2 :])
        print(f"| {size} | {speed:.1f} | {48 / speed:.2f} |", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(run_timed(sys.argv[2], int(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("table", choices=["data", "world"])
    parser.add_argument("--systems", nargs="+", choices=TIMED, default=list(TIMED))
    args = parser.parse_args()
    if args.table == "data":
        data(args.systems)
    else:
        world()


if __name__ == "__main__":
    main()
