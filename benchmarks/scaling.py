"""Memory and time of a training step against batch and image size, compared with the estimate.

    python benchmarks/scaling.py [--systems clip vitp]      (amount of data, processes: benchmarks/scaling_data.py)

Each point is a process of its own: the step of tools/estimate/estimate.py, really taken. Memory on the CPU is the most
that the kernel ever held for it (VmHWM) above what it held after a step of two samples whose model is gone again, with
glibc set to return every block of 32 KB at once, so that no freed memory is counted; on a GPU what its allocator
counts. Seconds are those of one core, or of the GPU, the median of further steps.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RETURN_AT_ONCE = {
    "MALLOC_MMAP_THRESHOLD_": "32768",
    "MALLOC_TRIM_THRESHOLD_": "32768",
    "MALLOC_TOP_PAD_": "0",
    "MALLOC_ARENA_MAX": "1",
    "HF_HUB_OFFLINE": "1",
}
GIB = 2**30
SHARED = {"style": (16, 128), "clip": (64, 64), "blip2": (32, 64), "vitp": (8, 64), "llava": (8, 64)}  # batch, pixels
STYLE = ["--data_dir", "none", "--model_name", "efficientnet_lite0"]
CLIP = ["--model_name", "small"]
BLIP2 = ["--demo"]
POINTS = {  # system -> (what is varied, its values, flags), the other points
    "style": [
        *[("batch", value, [*STYLE, "--image_size", "128", "--batch_size", str(value)]) for value in (8, 16, 32)],
        *[("pixels", value, [*STYLE, "--image_size", str(value), "--batch_size", "16"]) for value in (96, 160)],
        (
            "architecture",
            "ViT",
            [
                "--data_dir",
                "none",
                "--model_name",
                "vit_tiny_patch16_224",
                "--batch_size",
                "16",
                "--gradient_checkpointing",
            ],
        ),
    ],
    "clip": [
        *[("batch", value, [*CLIP, "--batch_size", str(value)]) for value in (32, 64, 128)],
        *[("pixels", value, [*CLIP, "--batch_size", "64", "--image_size", str(value)]) for value in (96, 128)],
        ("architecture", "RN50", ["--model_name", "RN50", "--batch_size", "8", "--image_size", "128"]),
        ("slices", 4, [*CLIP, "--batch_size", "32", "--accum_batches", "4"]),
    ],
    "blip2": [
        *[("batch", value, [*BLIP2, "--training.batch_size", str(value)]) for value in (32, 64, 128)],
        *[
            ("pixels", value, [*BLIP2, "--model.blip2", f"BLIP{value}", "--training.batch_size", "32"])
            for value in (96, 128)
        ],
        ("gates", "kv", [*BLIP2, "--model.gating.type", "kv", "--training.batch_size", "64"]),
    ],
    "vitp": [
        *[
            (
                "batch",
                value,
                [
                    "--vision_config",
                    "VISION64",
                    "--llm",
                    "LLM",
                    "--text_tokens",
                    "384",
                    "--per_device_train_batch_size",
                    str(value),
                ],
            )
            for value in (4, 8, 16)
        ],
        *[
            (
                "pixels",
                value,
                [
                    "--vision_config",
                    f"VISION{value}",
                    "--llm",
                    "LLM",
                    "--text_tokens",
                    "384",
                    "--per_device_train_batch_size",
                    "8",
                ],
            )
            for value in (96, 128)
        ],
        (
            "masking",
            "paper",
            [
                "--vision_config",
                "VISION128",
                "--llm",
                "LLM",
                "--max_seq_length",
                "1024",
                "--TMAug_mode",
                "paper",
                "--per_device_train_batch_size",
                "4",
            ],
        ),
    ],
    "llava": [
        *[
            (
                "batch",
                value,
                [
                    "--model_id",
                    "LLAVA64",
                    "--text_tokens",
                    "384",
                    "--lora_rank",
                    "16",
                    "--per_device_train_batch_size",
                    str(value),
                ],
            )
            for value in (4, 8, 16)
        ],
        *[
            (
                "pixels",
                value,
                [
                    "--model_id",
                    f"LLAVA{value}",
                    "--text_tokens",
                    "384",
                    "--lora_rank",
                    "16",
                    "--per_device_train_batch_size",
                    "8",
                ],
            )
            for value in (96, 128)
        ],
        (
            "learns",
            "whole",
            ["--model_id", "LLAVA64", "--text_tokens", "384", "--lora_rank", "0", "--per_device_train_batch_size", "8"],
        ),
    ],
}


def measure(system: str, precision: str, flags: list[str], steps: int) -> dict[str, float]:
    """In this process -> bytes measured and estimated, seconds of a step, operations."""
    import torch

    from tools.estimate.dry_run import dry_step
    from tools.estimate.estimate import read_step
    from tools.estimate.training_step import random_batch, take_step

    system, _, ddp = system.partition("+")
    _, step = read_step([system, *flags])
    on_gpu = torch.cuda.is_available()
    device, clock = ("cuda", _wait_and_read) if on_gpu else ("cpu", time.process_time)
    passes = min(step.accumulation, 2)

    def start(samples: int):
        torch.manual_seed(0)
        model = step.build(precision, bool(step.checkpointing)).to(device)
        batch = {name: value.to(device) for name, value in random_batch(step.batch(samples)).items()}
        return model, step.optimizer(model), [batch] * passes

    model, optimizer, batches = start(2)  # a small step first: code is loaded and compiled as it is first needed
    take_step(model, optimizer, batches, precision, step.clip_norm)
    del model, optimizer, batches
    gc.collect()
    before = torch.cuda.memory_allocated() if on_gpu else _memory("VmRSS")
    model, optimizer, batches = start(step.samples)
    if ddp:
        with tempfile.NamedTemporaryFile() as file:
            torch.distributed.init_process_group("gloo", init_method=f"file://{file.name}", rank=0, world_size=1)
            model = torch.nn.parallel.DistributedDataParallel(model)
    take_step(model, optimizer, batches, precision, step.clip_norm)
    if on_gpu:  # the peak counts from here: building is over
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")
    seconds = []
    for _ in range(steps):
        started = clock()
        take_step(model, optimizer, batches, precision, step.clip_norm)
        seconds.append(clock() - started)
    measured = (torch.cuda.max_memory_allocated() if on_gpu else _memory("VmHWM")) - before
    del model, optimizer, batches
    found = dry_step(step, precision, bool(step.checkpointing), step.samples)
    estimated = found.peak + (found.gradients if ddp else 0)  # the buckets, as tools/estimate/sharding.py has it
    return {
        "measured": measured,
        "estimated": estimated,
        "seconds": statistics.median(seconds),
        "operations": found.operations,
        "phase": found.phase,
        "what": step.description,
    }


def _wait_and_read() -> float:
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def _memory(name: str) -> int:
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def points(chosen: list[str], steps: int) -> None:
    every = {}
    with tempfile.TemporaryDirectory() as folder:
        places = write_models(Path(folder))
        for system in chosen:
            columns = ("flags", "precision", "estimated GiB", "measured GiB", "ratio", "s a step", "10^9 operations")
            print(f"\n{system}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
            rows = [(kind, value, flags, "fp32") for kind, value, flags in POINTS[system]]
            rows.append((*POINTS[system][2][:3], "bf16"))
            every[system] = [
                (kind, value, precision, *_one(system, precision, _placed(flags, places), steps))
                for kind, value, flags, precision in rows
            ]
            if system == "clip":
                _one("clip+DDP", "fp32", ["--model_name", "ViT-B/32", "--batch_size", "4"], steps)
    for system, rows in every.items():
        for kind in ("batch", "pixels"):
            line = [(value, found) for one, value, precision, found in rows if one == kind and precision == "fp32"]
            if kind == "pixels":  # one of the others was of the same batch
                batch, pixels = SHARED[system]
                line += [(pixels, row[3]) for row in rows if row[:3] == ("batch", batch, "fp32")]
            sizes = [value**2 if kind == "pixels" else value for value, _ in line]
            print(
                f"{system}, seconds a step: {fitted(sizes, [one['seconds'] for _, one in line], kind)}; "
                f"GiB: {fitted(sizes, [one['measured'] / GIB for _, one in line], kind)}"
            )


def fitted(x: list[float], y: list[float], name: str) -> str:
    """Least squares y = a + b x, and the share of the variance that it explains."""
    slope, start = np.polyfit(x, y, 1)
    left = np.asarray(y) - (start + slope * np.asarray(x))
    explained = 1 - float((left**2).sum() / ((np.asarray(y) - np.mean(y)) ** 2).sum())
    return f"{start:.3g} + {slope:.3g} x {'pixels^2' if name == 'pixels' else name} (R2 {explained:.4f})"


def _one(system: str, precision: str, flags: list[str], steps: int) -> list[dict]:
    command = [sys.executable, __file__, "one", system, precision, str(steps), *flags]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **RETURN_AT_ONCE}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(flags)}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    words = " ".join(word for word in flags if not word.startswith("/"))
    print(
        f"| {words} | {precision} | {found['estimated'] / GIB:.3f} | {found['measured'] / GIB:.3f} | "
        f"{found['estimated'] / found['measured']:.3f} | {found['seconds']:.2f} | {found['operations'] / 1e9:.0f} |",
        flush=True,
    )
    return [found]


def _placed(flags: list[str], places: dict[str, str]) -> list[str]:
    return [places.get(word, word) for word in flags]


def write_models(folder: Path) -> dict[str, str]:
    """Configs of the systems that have no small model by name -> {word in the flags above: path}."""
    from transformers import InternVLVisionConfig, LlamaConfig

    from blip2_gated.backbone import SMALL
    from common.text.files import write_json
    from llava.model import build_llava, build_tokenizer, small_language, small_vision

    places = {"LLM": folder / "llm.json"}
    write_json(
        places["LLM"],
        LlamaConfig(
            vocab_size=2000,
            hidden_size=256,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
        ).to_dict(),
    )
    for size in (64, 96, 128, 160):
        places[f"VISION{size}"] = folder / f"vision{size}.json"
        write_json(
            places[f"VISION{size}"],
            InternVLVisionConfig(
                hidden_size=256,
                intermediate_size=1024,
                num_hidden_layers=6,
                num_attention_heads=8,
                image_size=size,
                patch_size=8,
            ).to_dict(),
        )
        places[f"LLAVA{size}"] = folder / f"llava{size}"
        tokenizer = build_tokenizer(["a picture of a house"], 500)
        model, processor = build_llava(tokenizer, small_vision(size, 8, 256, 6), small_language(tokenizer, 256, 6))
        model.config.save_pretrained(places[f"LLAVA{size}"])
        processor.save_pretrained(places[f"LLAVA{size}"])
        places[f"BLIP{size}"] = folder / f"blip{size}.json"
        write_json(places[f"BLIP{size}"], {**SMALL, "vision_config": {**SMALL["vision_config"], "image_size": size}})
    return {name: str(path) for name, path in places.items()}


def main(argv: list[str]) -> None:
    if argv[:1] == ["one"]:
        _, system, precision, steps, *flags = argv
        print(json.dumps(measure(system, precision, flags, int(steps))))
        return
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("--systems", nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a point")
    args = parser.parse_args(argv)
    points(args.systems, args.steps)


if __name__ == "__main__":
    main(sys.argv[1:])
