"""How much memory and time will a training need? Said before anything is loaded.

    python tools/estimate/estimate.py clip --model_name ViT-B/16 --batch_size 1024 --world_size 8 --gpu_memory_gib 80
    python tools/estimate/estimate.py vitp --vision_config vit.json --llm llm.json --max_seq_length 4096
    python tools/estimate/estimate.py blip2 --config artquest         every flag of the system's train.py goes along

<system> + its settings -> its estimate.py -> a step without values (tools/estimate/dry_run.py) -> one table
"""

import argparse
import inspect
import sys
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from common.cli.errors import run_script
from common.cli.settings import unknown_name
from tools.estimate import blip2_gated, clip, llava, style, vitp
from tools.estimate.dry_run import StepMemory, dry_step
from tools.estimate.sharding import Share, divide
from tools.estimate.training_step import PRECISIONS, TrainingStep

SYSTEMS = {
    "style": style.training_step,
    "clip": clip.training_step,
    "vitp": vitp.training_step,
    "blip2": blip2_gated.training_step,
    "llava": llava.training_step,
}
GIB = 2**30
MOST_SAMPLES = 2**16  # of a device, beyond which nobody looks
Way = tuple[str, bool]  # number format, gradient checkpointing


def main(argv: list[str]) -> dict[Way, StepMemory]:
    """Print the table -> what was found for each number format, with and without gradient checkpointing."""
    asked, rest = read_arguments(argv)
    step = read_step(asked, rest)
    ways = [(precision, checked) for checked in _checkpointing(step) for precision in PRECISIONS]
    found = {way: dry_step(step, *way, step.samples) for way in ways}
    print("\n".join(describe(step, found, asked)))
    return found


def read_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """-> what the estimate itself is told, the flags of the system"""
    parser = argparse.ArgumentParser(
        prog="estimate.py",
        description=__doc__.split("\n\n")[0],
        allow_abbrev=False,
        epilog="Every other flag is one of the system's train.py, --config and --demo too.",
    )
    parser.add_argument("system", help=", ".join(SYSTEMS))
    parser.add_argument("--world_size", type=int, default=1, help="devices that share the training")
    parser.add_argument("--text_tokens", type=int, default=0, help="of a text; 0: as long as the settings allow")
    parser.add_argument("--gpu_memory_gib", type=float, default=0.0, help="look for the largest batch that fits")
    parser.add_argument("--tflops", type=float, default=0.0, help="of a device, for a time: 10^12 operations a second")
    parser.add_argument("--utilization", type=float, default=0.4, help="share of --tflops that a step reaches")

    def refuse(why: str) -> None:
        raise ValueError(why)

    parser.error = refuse
    asked, rest = parser.parse_known_args(argv)
    if asked.system not in SYSTEMS:
        raise ValueError(unknown_name(asked.system, list(SYSTEMS), "system") + f" (one of {', '.join(SYSTEMS)})")
    for name, least in (("world_size", 1), ("text_tokens", 0), ("gpu_memory_gib", 0), ("tflops", 0)):
        if getattr(asked, name) < least:
            raise ValueError(f"--{name} {getattr(asked, name)}: expected {least} or more")
    if not 0 < asked.utilization <= 1:
        raise ValueError(f"--utilization {asked.utilization}: expected a share above 0, at most 1")
    return asked, rest


def read_step(asked: argparse.Namespace, rest: list[str]) -> TrainingStep:
    make = SYSTEMS[asked.system]
    told = {"world": asked.world_size}
    if "text_tokens" in inspect.signature(make).parameters:
        told["text_tokens"] = asked.text_tokens
    elif asked.text_tokens:
        raise ValueError(f"--text_tokens: {asked.system} reads no text")
    return make(rest, **told)


def _checkpointing(step: TrainingStep) -> list[bool]:
    return [False] if step.checkpointing is None else [step.checkpointing, not step.checkpointing]


def describe(step: TrainingStep, found: dict[Way, StepMemory], asked: argparse.Namespace) -> list[str]:
    first = next(iter(found.values()))
    lines = [
        f"{asked.system}: {step.what}",
        f"{step.samples} {step.unit} in a forward pass of a device, {step.accumulation} of these a step, "
        f"{asked.world_size} device(s); {first.learning_count:,} weights learn, {first.frozen_count:,} stand still",
        *(f"assumed: {note}" for note in step.notes),
        "",
        _row("GiB of one device, undivided", [_name(way) for way in found]),
    ]
    kinds = (
        ("weights that learn", "learning"),
        ("weights that stand still", "frozen"),
        ("buffers", "buffers"),
        ("gradients", "gradients"),
        ("optimizer's state", "state"),
        ("moving average", "average"),
        ("batch", "batch"),
        ("activations, at their most", "activations"),
        ("peak of a step", "peak"),
    )
    lines += [_row(label, [f"{getattr(one, kind) / GIB:.3f}" for one in found.values()]) for label, kind in kinds]
    lines.append(_row("  reached in", [one.phase for one in found.values()]))
    lines.append(_row("10^12 operations of a step", [f"{one.operations / 1e12:.3f}" for one in found.values()]))
    if asked.tflops:
        for share in (1.0, asked.utilization):
            times = [f"{one.operations / asked.tflops / 1e12 / share:.4f}" for one in found.values()]
            lines.append(_row(f"seconds at {share:.0%} of {asked.tflops:g} TFLOPS", times))
    if asked.gpu_memory_gib:
        fits = [str(largest_batch(step, way, one, asked.gpu_memory_gib * GIB)) for way, one in found.items()]
        lines.append(_row(f"{step.unit} that fit into {asked.gpu_memory_gib:g} GiB", fits))
    if asked.world_size > 1:
        lines += ["", *_divided(step, found, asked.world_size)]
    return lines


def _divided(step: TrainingStep, found: dict[Way, StepMemory], world: int) -> list[str]:
    """Each engine's formula, for the ways that the settings ask for."""
    lines = [
        _row(
            f"GiB of each of {world} devices, by formula",
            ["weights", "gradients", "state", "rest", "at most", "sent a step"],
        )
    ]
    for (precision, checked), one in found.items():
        if checked != _checkpointing(step)[0]:
            continue
        for engine in step.engines:
            share: Share = divide(one, engine, world, precision)
            parts = (share.weights, share.gradients, share.state, share.rest, share.total, share.sent)
            lines.append(_row(f"{engine}, {_name((precision, checked))}", [f"{part / GIB:.3f}" for part in parts]))
    return lines


def largest_batch(step: TrainingStep, way: Way, one: StepMemory, room: float) -> int:
    """Samples of a forward pass whose peak stays within `room` bytes, found by steps that are tried; 0: not one does.

    Between two sizes that were tried the peak is taken for a straight line, and the found size is tried again.
    """
    tried = {step.samples: one.peak, max(step.samples // 2, 2): 0}
    tried = {samples: peak or dry_step(step, *way, samples).peak for samples, peak in tried.items()}
    for _ in range(3):
        (less, lower), *_, (more, upper) = sorted(tried.items()) if len(tried) > 1 else [(0, 0), *tried.items()]
        wanted = int(less + (room * 0.995 - lower) * (more - less) / max(upper - lower, 1))
        wanted = max(min(wanted, MOST_SAMPLES), 2)
        if wanted in tried:
            break
        tried[wanted] = dry_step(step, *way, wanted).peak
        if 0.99 * room < tried[wanted] <= room:
            break
    return max((samples for samples, peak in tried.items() if peak <= room), default=0)


def _name(way: Way) -> str:
    return f"{way[0]}, checkpointed" if way[1] else way[0]


def _row(label: str, cells: list[str]) -> str:
    return f"{label:36}" + "".join(f"{cell:>20}" for cell in cells)


if __name__ == "__main__":
    run_script(main)
