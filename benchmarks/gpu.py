"""Every row of RESULTS.md that needs a GPU, by one command, each beside its peer in the same run.

    python benchmarks/gpu.py --output results/gpu                        one large GPU, within eight minutes
    python benchmarks/gpu.py --output results/gpu --toy --only clip      on any machine: toy sizes, to see that it works

The sections are the other scripts of this folder at sizes of a large GPU, in order of importance; each is a process
with a time limit of its own, so that one that fails or hangs costs no other. After each, gpu.json and gpu.md in
--output hold everything measured so far. Weights are random and nothing is fetched. Sections that the whole limit
leaves no time for are listed as such.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common.text.files import write_atomically, write_json

ROOT = Path(__file__).resolve().parents[1]
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "4090": 165}  # dense bf16, NVIDIA's data sheets


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
    toy: str  # the same for two cores of a CPU
    rows: Callable[[Any, float], Iterator[Row]]  # the JSON of its last line, TFLOP/s of the device -> its rows


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of gpu.json and gpu.md")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--toy", action="store_true", help="tiny sizes: shows that every section runs")
    parser.add_argument("--limit", type=float, default=470, help="seconds of everything")
    parser.add_argument("--peak_tflops", type=float, help="of the device in bf16; known for some by name")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {platform.machine()}"
    if not torch.cuda.is_available() and not args.toy:
        parser.error("no GPU is available; --toy runs the sections at toy sizes")
    peak = args.peak_tflops or next((value for part, value in PEAK_TFLOPS.items() if part in name), 0)
    report: dict[str, Any] = {"device": name, "torch": torch.__version__, "peak_tflops": peak, "sections": {}}
    started = time.perf_counter()
    for section in args.only:
        left = args.limit - (time.perf_counter() - started)
        report["sections"][section] = measure(section, args.toy, left, peak)
        write_json(args.output / "gpu.json", report)
        with write_atomically(args.output / "gpu.md") as file:
            file.write(as_markdown(report).encode())
        print(json.dumps({section: report["sections"][section]}), flush=True)
    print(f"{args.output / 'gpu.md'}, {time.perf_counter() - started:.0f} s")
    sys.exit(any("failed" in found for found in report["sections"].values()))


def measure(name: str, toy: bool, seconds_left: float, peak: float) -> dict[str, Any]:
    """-> command, seconds and rows of a section, or why it `failed`."""
    section = SECTIONS[name]
    command = section.toy if toy else section.command
    found: dict[str, Any] = {"command": f"python benchmarks/{command}", "seconds": 0.0, "rows": []}
    limit = min(section.seconds, seconds_left)
    if limit < 10:
        return found | {"failed": "no time left"}
    clock = time.perf_counter()
    words = [sys.executable, "-W", "ignore", *f"benchmarks/{command}".split()]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit)
        if done.returncode:
            raise ValueError((done.stderr.strip().splitlines() or ["no message"])[-1])
        result = json.loads(done.stdout.splitlines()[-1])
        found["rows"] = [row._asdict() for row in section.rows(result, peak)]
    except subprocess.TimeoutExpired:
        found["failed"] = f"longer than {limit:.0f} s"
    except (ValueError, LookupError, TypeError) as error:
        found["failed"] = str(error)
    return found | {"seconds": round(time.perf_counter() - clock, 1)}


def as_markdown(report: dict[str, Any]) -> str:
    lines = [
        f"{report['device']}, PyTorch {report['torch']}",
        "",
        "| what | here | peer | ratio | |",
        "|---|---|---|---|---|",
    ]
    for name, section in report["sections"].items():
        if "failed" in section:
            lines.append(f"| {name} | not measured: {section['failed'].replace('|', '/')} | | | |")
        for row in (Row(**row) for row in section["rows"]):
            peer = f"{row.peer_value:,.4g} {row.peer}" if row.peer else ""
            ratio = f"{row.value / row.peer_value:.2f}" if row.peer_value else ""
            lines.append(f"| {row.what} | {row.value:,.4g} {row.unit} | {peer} | {ratio} | {row.note} |")
    commands = [f"{section['command']}  # {section['seconds']} s" for section in report["sections"].values()]
    return "\n".join([*lines, "", "```", *commands, "```", ""])


# --- what each script's JSON says -------------------------------------------------------------------------------------


def median(runs: list[dict], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def clip_rows(found: dict[str, list[dict]], peak: float) -> Iterator[Row]:
    for ours, peer in (("step ours", "step open_clip"), ("ours compiled", "open_clip compiled")):
        if ours in found:
            rate, operations = median(found[ours], "rate"), median(found["step ours"], "operations")
            used = rate * operations / 1e12
            note = f"{used:.3g} TFLOP/s" + (f", MFU {used / peak:.1%}" if peak else "")
            note += f", {median(found[ours], 'peak'):,.0f} MiB ({median(found[peer], 'peak'):,.0f})"
            yield Row(f"CLIP training, {ours}", rate, "images/s", peer, median(found[peer], "rate"), note)
    if "no guard" in found:
        rates = [median(found[way], "rate") for way in ("step ours", "no guard")]
        yield Row("CLIP training with the check for non-finite steps", rates[0], "images/s", "without it", rates[1])


def rows_of_ways(what: str, unit: str, name: str, peer: str) -> Callable[[Any, float], Iterator[Row]]:
    """A script that gives {way: rounds}; every way beside `peer`."""

    def rows(found: dict[str, list[dict]], peak: float) -> Iterator[Row]:
        for way in found:
            if way != peer:
                note = f"{median(found[way], 'peak'):,.0f} MiB ({median(found[peer], 'peak'):,.0f})"
                value, peer_value = median(found[way], name), median(found[peer], name)
                yield Row(f"{what}, {way}", value, unit, peer, peer_value, note)

    return rows


def vitp_step_rows(found: dict[str, float], peak: float) -> Iterator[Row]:
    note = f"{found['tflops']:.3g} TFLOP/s" + (f", MFU {found['tflops'] / peak:.1%}" if peak else "")
    yield Row(
        "ViTP 1B training", found["samples_per_second"], "samples/s", note=f"{note}, {found['memory'] / 2**30:.1f} GiB"
    )


def vitp_packing_rows(found: dict[str, dict[str, float]], peak: float) -> Iterator[Row]:
    padded = found["padded"]["tokens_per_second"]
    for way in ("like length", "packed"):
        note = f"{found[way]['filled']:.0%} of places filled"
        yield Row(f"ViTP training, {way}", found[way]["tokens_per_second"], "tokens/s", "padded", padded, note)


def rates_rows(what: str, peer: str, unit: str = "images/s") -> Callable[[Any, float], Iterator[Row]]:
    """A script that gives {way: rates of its rounds}; every way beside `peer`."""

    def rows(found: dict[str, list[float]], peak: float) -> Iterator[Row]:
        medians = {way: statistics.median(rates) for way, rates in found.items()}
        for way, rate in medians.items():
            if way != peer:
                yield Row(f"{what}, {way}", rate, unit, peer, medians[peer])

    return rows


def search_rows(found: list[dict], peak: float) -> Iterator[Row]:
    exact = found[0]["qps"]
    for name in dict.fromkeys(row["index"] for row in found):
        rows = [row for row in found if row["index"] == name and row["recall"] >= 0.95]
        if name != "exact" and rows:
            best = max(rows, key=lambda row: row["qps"])
            note = f"recall@10 {best['recall']:.3f}, built in {best['built_s']:.1f} s"
            yield Row(f"search, {name} {best['setting']}", best["qps"], "queries/s", "exact", exact, note)


def estimate_rows(found: dict[str, Any], peak: float) -> Iterator[Row]:
    measured, estimated = found["measured"] / 2**30, found["estimated"] / 2**30
    yield Row(f"peak memory, {found['what']}", estimated, "GiB estimated", "GiB measured", measured)


LLAVA = "llava_speed.py --rounds 1 --work_dir .cache/gpu/llava"
BLIP2 = "blip2_speed.py --rounds 1 --only step epoch"
STYLE = "style_speed.py --data_dir .cache/gpu/styles"
CLIP = "clip_speed.py --work_dir .cache/gpu/clip --rounds 1"
SECTIONS = {
    "clip": Section(
        100,
        f"{CLIP} --model_name ViT-B/32 --image_size 224 --batch_size 512 --steps 20 --precision bf16 "
        "--only step compiled guard",
        f"{CLIP} --image_size 32 --batch_size 8 --steps 1 --only step guard",
        clip_rows,
    ),
    "llava": Section(
        90,
        f"{LLAVA} --shape 7b --images 32 --batch_size 32 --description_tokens 32 --analysis_tokens 32",
        f"{LLAVA} --images 2 --batch_size 2 --description_tokens 2 --analysis_tokens 2",
        rows_of_ways("LLaVA-7B's shape", "pairs/s", "pairs", "generate"),
    ),
    "vitp": Section(
        60,
        "vitp_speed.py step --shape 1b --bf16 --batch_size 16 --tiles 4 --steps 5 --rounds 2",
        "vitp_speed.py step --batch_size 1 --tiles 1 --steps 1 --rounds 1",
        vitp_step_rows,
    ),
    "extraction": Section(
        60,
        "retrieval_speed.py features --images 2048 --width 1024 --layers 24 --image_size 448 --batch_size 64 "
        "--rounds 1",
        "retrieval_speed.py features --images 8 --source_size 64 --width 64 --layers 1 --image_size 56 --batch_size 4",
        rates_rows("InternViT-300M's shape", "network alone"),
    ),
    "blip2": Section(
        80,
        f"{BLIP2} --shape opt-2.7b --batch_size 32 --steps 10",
        f"{BLIP2} --layers 0.1 --batch_size 2 --steps 1",
        rows_of_ways("BLIP-2 gated, opt-2.7b's shape", "s a step", "seconds", "plain"),
    ),
    "style": Section(
        50,
        f"{STYLE} --samples 360 --model_name vit_base_patch16_224 --image_size 224 --batch_size 256 --steps 10 "
        "--rounds 1",
        f"{STYLE} --samples 36 --image_size 32 --batch_size 8 --steps 1 --rounds 1 --num_workers 0",
        rates_rows("style encoder ViT-B/16", "fixed batch"),
    ),
    "search": Section(
        80,
        "retrieval_speed.py search --vectors 1000000 --dimensions 1024 --indexes exact ivf",
        "retrieval_speed.py search --vectors 2000 --dimensions 32 --queries 20 --indexes exact ivf",
        search_rows,
    ),
    "estimate": Section(
        40,
        "scaling.py one clip bf16 3 --model_name ViT-B/32 --batch_size 512",
        "scaling.py one clip fp32 1 --model_name small --batch_size 8",
        estimate_rows,
    ),
    "clip_b16": Section(
        60,
        f"{CLIP} --model_name ViT-B/16 --image_size 224 --batch_size 256 --steps 10 --precision bf16 --only step",
        f"{CLIP} --model_name ViT-B/16 --image_size 32 --batch_size 2 --steps 1 --only step",
        clip_rows,
    ),
    "packing": Section(
        60,
        "vitp_speed.py packing --shape 1b --bf16 --samples 256 --max_seq_length 2048 --rounds 1",
        "vitp_speed.py packing --samples 4 --batch_size 2 --max_seq_length 600 --max_dynamic_patch 1 --rounds 1",
        vitp_packing_rows,
    ),
}


if __name__ == "__main__":
    main()
