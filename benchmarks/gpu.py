"""Every row of RESULTS.md that needs a GPU, by one command, each compared with its peer in the same run.

    python benchmarks/gpu.py --output results/gpu                        one large GPU, within eight minutes
    python benchmarks/gpu.py --output results/gpu --toy --only clip      on any machine: toy sizes, to see that it works

The sections are the other scripts of this folder at sizes of a large GPU, in order of importance. Each is a process
with a time limit, so that one that fails or hangs costs no other; it is forked from this one, which has imported
everything and used no device. After each, gpu.json and gpu.md in --output hold what has been measured so far, also
what a section that failed had measured until then. Weights are random and nothing is fetched. Sections that the whole
limit leaves no time for are listed as such.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

STARTED = time.perf_counter()
os.environ |= {"HF_HUB_OFFLINE": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}  # asking whether there is a GPU starts none
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import blip2_speed, clip_speed, llava_speed, retrieval_speed, scaling, style_speed, vitp_speed
from benchmarks.turns import Found, run_forked, run_limited
from common.text.files import write_atomically, write_json

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "4090": 165}  # dense bf16, NVIDIA's data sheets
SCRIPTS = {
    script.__name__.split(".")[-1]: script.main
    for script in (blip2_speed, clip_speed, llava_speed, retrieval_speed, scaling, style_speed, vitp_speed)
}


class Row(NamedTuple):
    what: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float = 0.0
    note: str = ""


class Section(NamedTuple):
    seconds: int  # limit
    command: str  # of this folder, for a large GPU
    toy: str  # the same for one core of a CPU
    rows: Callable[[Found, float], Iterator[Row]]  # results, TFLOP/s of the device -> its rows


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--toy", action="store_true", help="tiny sizes: shows that every section runs")
    parser.add_argument("--limit", type=float, default=470, help="seconds of everything")
    parser.add_argument("--peak_tflops", type=float, help="of the device in bf16; known for some by name")
    args = parser.parse_args(argv)
    name = run_forked(device_name)
    if name.startswith("CPU") and not args.toy:
        parser.error("no GPU is available; --toy runs the sections at toy sizes")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the section, too
    args.output.mkdir(parents=True, exist_ok=True)
    peak = args.peak_tflops or next((value for part, value in PEAK_TFLOPS.items() if part in name), 0)
    name += ", toy sizes in place of those that the rows name" * args.toy
    report: Found = {"device": name, "torch": torch.__version__, "peak_tflops": peak, "sections": {}}
    for number, section in enumerate(args.only):
        left = args.limit - (time.perf_counter() - STARTED)
        report["sections"][section] = measure(SECTIONS[section], args.toy, left, peak)
        write_json(args.output / "gpu.json", report)
        with write_atomically(args.output / "gpu.md") as file:
            file.write(as_markdown(report).encode())
        print(f"{number + 1}/{len(args.only)} {section}: {json.dumps(report['sections'][section])}", flush=True)
    print(f"{args.output / 'gpu.md'}, {time.perf_counter() - STARTED:.0f} s")
    return int(any("failed" in found for found in report["sections"].values()))


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}"


def measure(section: Section, toy: bool, seconds_left: float, peak: float) -> Found:
    """-> command, seconds and rows of a section; if not all of it was measured, why it `failed`."""
    command, clock = section.toy if toy else section.command, time.perf_counter()
    report: Found = {"command": f"python benchmarks/{command}", "seconds": 0.0, "rows": []}
    limit = min(section.seconds, seconds_left)
    if limit < 10:
        return report | {"failed": "no time left"}
    script, *flags = command.split()
    found, failed = run_limited(SCRIPTS[script.removesuffix(".py")], flags, limit)
    try:
        report["rows"] = [row._asdict() for row in section.rows(found, peak)]
    except (LookupError, ValueError, TypeError) as error:  # results of a part only
        failed = failed or f"{type(error).__name__}: {error}"
    if failed:
        report["failed"] = failed
    return report | {"seconds": round(time.perf_counter() - clock, 1)}


def as_markdown(report: Found) -> str:
    lines = [
        f"{report['device']}, PyTorch {report['torch']}",
        "",
        "| what | here | peer | ratio | |",
        "|---|---|---|---|---|",
    ]
    for name, section in report["sections"].items():
        for row in (Row(**row) for row in section["rows"]):
            peer = f"{row.peer_value:,.4g} {row.peer}" if row.peer else ""
            ratio = f"{row.value / row.peer_value:.2f}" if row.peer_value else ""
            lines.append(f"| {row.what} | {row.value:,.4g} {row.unit} | {peer} | {ratio} | {row.note} |")
        if "failed" in section:
            lines.append(f"| {name} | not all measured: {section['failed'].replace('|', '/')} | | | |")
    commands = [f"{section['command']}  # {section['seconds']} s" for section in report["sections"].values()]
    return "\n".join([*lines, "", "```", *commands, "```", ""])


# --- what each script's JSON says -------------------------------------------------------------------------------------


def median(runs: list[dict], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def training_rows(what: str, unit: str, *pairs: tuple[str, str]) -> Callable[[Found, float], Iterator[Row]]:
    """A script that gives {way: rounds}; rate, TFLOP/s and memory of each way and its peer."""

    def rows(found: Found, peak: float) -> Iterator[Row]:
        for way, peer in (pair for pair in pairs if pair[0] in found):
            rate, memory = median(found[way], "rate"), f"{median(found[way], 'peak'):,.0f} MiB"
            used = rate * median(found[way], "operations") / 1e12
            note = f"{used:.3g} TFLOP/s" + (f", MFU {used / peak:.1%}" if peak else "")
            if peer in found:
                memory += f" ({median(found[peer], 'peak'):,.0f})"
                yield Row(f"{what}, {way}", rate, unit, peer, median(found[peer], "rate"), f"{note}, {memory}")
            else:  # which failed, or had no time
                yield Row(f"{what}, {way}", rate, unit, note=f"{note}, {memory}; no {peer}")

    return rows


def rows_of_ways(what: str, unit: str, name: str, peer: str) -> Callable[[Found, float], Iterator[Row]]:
    """A script that gives {way: rounds}; every way compared with `peer`."""

    def rows(found: Found, peak: float) -> Iterator[Row]:
        for way in found:
            if way != peer:
                note = f"{median(found[way], 'peak'):,.0f} MiB ({median(found[peer], 'peak'):,.0f})"
                value, peer_value = median(found[way], name), median(found[peer], name)
                yield Row(f"{what}, {way}", value, unit, peer, peer_value, note)

    return rows


def packing_rows(found: Found, peak: float) -> Iterator[Row]:
    padded = found["padded"]["samples_per_second"]
    for way in ("like length", "packed"):
        note = f"{found[way]['tokens_per_second']:,.0f} tokens/s, {found[way]['filled']:.0%} of places filled"
        note += f" ({found['padded']['filled']:.0%})"
        yield Row(f"ViTP 1B training, {way}", found[way]["samples_per_second"], "samples/s", "padded", padded, note)


def rates_rows(what: str, peer: str) -> Callable[[Found, float], Iterator[Row]]:
    """A script that gives {way: images/s of its rounds}; every way compared with `peer`."""

    def rows(found: Found, peak: float) -> Iterator[Row]:
        medians = {way: statistics.median(rates) for way, rates in found.items() if rates}
        for way, rate in medians.items():
            if way != peer:
                yield Row(f"{what}, {way}", rate, "images/s", peer, medians[peer])

    return rows


def search_rows(found: Found, peak: float) -> Iterator[Row]:
    exact = found["rows"][0]["qps"]
    for name in dict.fromkeys(row["index"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["index"] == name and row["recall"] >= 0.95]
        if name != "exact" and rows:
            best = max(rows, key=lambda row: row["qps"])
            note = f"recall@10 {best['recall']:.3f}, built in {best['built_s']:.1f} s"
            yield Row("search, exact (torch)", exact, "queries/s", f"FAISS {name} {best['setting']}", best["qps"], note)


def estimate_rows(found: Found, peak: float) -> Iterator[Row]:
    measured, estimated = found["measured"] / 2**30, found["estimated"] / 2**30
    yield Row(f"peak memory, {found['what']}", estimated, "GiB estimated", "GiB measured", measured)


CLIP = "clip_speed.py --rounds 1 --precision bf16 --image_size 224 --work_dir .cache/gpu/clip"
B32, B16 = "--model_name ViT-B/32 --batch_size 1024 --steps 30", "--model_name ViT-B/16 --batch_size 256 --steps 20"
TOY_CLIP = "clip_speed.py --rounds 1 --samples 8 --image_size 32 --batch_size 8 --steps 1 --work_dir .cache/toy/clip"
EAGER, COMPILED = (("step ours", "step open_clip"), ("step ours", "no guard")), ("ours compiled", "open_clip compiled")
SECTIONS = {
    "clip": Section(
        60,
        f"{CLIP} {B32} --only step",
        f"{TOY_CLIP} --only step",
        training_rows("CLIP ViT-B/32 training", "images/s", *EAGER),
    ),
    "vitp": Section(
        60,
        "vitp_speed.py step --shape 1b --bf16 --batch_size 8 --tiles 4 --steps 5 --rounds 1",
        "vitp_speed.py step --shape toy --batch_size 1 --tiles 1 --steps 1 --rounds 1",
        training_rows("ViTP 1B training", "samples/s", ("ours", "transformers")),
    ),
    "llava": Section(
        70,
        "llava_speed.py --only generate batched --rounds 1 --work_dir .cache/gpu/llava --shape 7b --images 64 "
        "--batch_size 32 --description_tokens 48 --analysis_tokens 48",
        "llava_speed.py --only generate batched --rounds 1 --work_dir .cache/toy/llava --images 2 "
        "--batch_size 2 --description_tokens 2 --analysis_tokens 2",
        rows_of_ways("LLaVA-7B's shape, describe and score", "pairs/s", "pairs", "generate"),
    ),
    "extraction": Section(
        50,
        "retrieval_speed.py features --images 2048 --width 1024 --layers 24 --image_size 448 --batch_size 64 "
        "--rounds 2",
        "retrieval_speed.py features --images 4 --source_size 64 --width 64 --layers 1 --image_size 56 "
        "--batch_size 4 --rounds 1",
        rates_rows("InternViT-300M's shape", "network alone"),
    ),
    "blip2": Section(
        80,
        "blip2_speed.py --rounds 1 --only step epoch --shape opt-2.7b --batch_size 32 --steps 10",
        "blip2_speed.py --rounds 1 --only step epoch --layers 0.1 --batch_size 2 --steps 1",
        rows_of_ways("BLIP-2 gated, opt-2.7b's shape", "s a step", "seconds", "plain"),
    ),
    "clip_b16": Section(
        50,
        f"{CLIP} {B16} --only step",
        f"{TOY_CLIP} --only step",
        training_rows("CLIP ViT-B/16 training", "images/s", *EAGER),
    ),
    "packing": Section(
        60,
        "vitp_speed.py packing --shape 1b --bf16 --samples 96 --max_seq_length 4096 --rounds 1",
        "vitp_speed.py packing --shape toy --samples 6 --batch_size 2 --max_seq_length 2048 --rounds 1",
        packing_rows,
    ),
    "estimate": Section(
        40,
        "scaling.py one clip bf16 3 --model_name ViT-B/32 --batch_size 1024",
        "scaling.py one clip fp32 1 --model_name small --batch_size 8",
        estimate_rows,
    ),
    "style": Section(
        60,
        "style_speed.py --data_dir .cache/gpu/styles --samples 360 --copies 10 --model_name vit_base_patch16_224 "
        "--image_size 224 --batch_size 256 --steps 20 --rounds 1",
        "style_speed.py --data_dir .cache/toy/styles --samples 36 --drawn_styles 4 --image_size 32 --batch_size 8 "
        "--steps 1 --rounds 1 --num_workers 0",
        rates_rows("style encoder ViT-B/16", "fixed batch"),
    ),
    "search": Section(
        110,
        "retrieval_speed.py search --vectors 1000000 --dimensions 1024 --indexes Flat ivf --seconds 0.5",
        "retrieval_speed.py search --vectors 2000 --dimensions 32 --queries 20 --indexes Flat ivf --seconds 0.1",
        search_rows,
    ),
    "clip_compiled": Section(
        150,
        f"{CLIP} {B32} --only compiled",
        f"{TOY_CLIP} --only compiled",
        training_rows("CLIP ViT-B/32 training", "images/s", COMPILED),
    ),
    "clip_b16_compiled": Section(
        150,
        f"{CLIP} {B16} --only compiled",
        f"{TOY_CLIP} --only compiled",
        training_rows("CLIP ViT-B/16 training", "images/s", COMPILED),
    ),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
