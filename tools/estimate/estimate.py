"""Estimate of the memory and time of a training, before anything is loaded.

    python tools/estimate/estimate.py clip --model_name ViT-B/16 --batch_size 1024 --world_size 8 --gpu_memory_gib 80
    python tools/estimate/estimate.py vitp --vision_config vit.json --llm llm.json --max_seq_length 4096
    python tools/estimate/estimate.py blip2 --config artquest         every flag of the system's train.py is accepted

<system> + its settings -> its training step -> a step on fake tensors (tools/estimate/dry_run.py) -> one table
"""

import sys
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Literal

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from common.cli.errors import run_script
from common.cli.tool_parser import Share, tool
from tools.estimate import blip2_gated, clip, llava, style, vitp
from tools.estimate.dry_run import StepMemory, dry_step
from tools.estimate.sharding import divide
from tools.estimate.training_step import PRECISIONS, TrainingStep

SYSTEMS = {
    "style": style.training_step,
    "clip": clip.training_step,
    "vitp": vitp.training_step,
    "blip2": blip2_gated.training_step,
    "llava": llava.training_step,
}
GIB = 2**30
MAX_SAMPLES = 2**16  # of a device, the upper end of the search for the largest batch
UNDIVIDED = {  # label -> field of StepMemory
    "trainable weights": "trainable",
    "frozen weights": "frozen",
    "buffers": "buffers",
    "gradients": "gradients",
    "optimizer state": "optimizer_state",
    "moving average": "moving_average",
    "batch": "batch",
    "activations, at most": "activations",
    "peak of a step": "peak",
}
DIVIDED = {  # label -> field of Share
    "weights": "weights",
    "gradients": "gradients",
    "state": "optimizer_state",
    "rest": "rest",
    "at most": "total",
    "sent a step": "sent",
}
Variant = tuple[str, bool]  # precision, gradient checkpointing


@dataclass(frozen=True)
class Options:
    """The flags of the estimate itself."""

    system: Literal["style", "clip", "vitp", "blip2", "llava"]  # every other flag is one of this system's train.py
    _: KW_ONLY
    world_size: PositiveInt = 1  # devices that share the training
    text_tokens: NonNegativeInt = 0  # of a text; 0: as long as the settings allow
    gpu_memory_gib: NonNegativeFloat = 0.0  # search for the largest batch that fits
    tflops: NonNegativeFloat = 0.0  # of a device, to estimate the time: 10^12 operations a second
    utilization: Share = 0.4  # share of --tflops that a step reaches


def main(argv: list[str]) -> dict[Variant, StepMemory]:
    """Print the table -> memory of each precision, with and without gradient checkpointing."""
    options, step = read_step(argv)
    checkpointing = [False] if step.checkpointing is None else [step.checkpointing, not step.checkpointing]
    estimates = {
        (precision, checkpointed): dry_step(step, precision, checkpointed, step.samples)
        for checkpointed in checkpointing
        for precision in PRECISIONS
    }
    print("\n".join(describe(step, estimates, options)))
    return estimates


@tool
def read_step(
    options: Options,
    *system_flags: str,  # of the system's train.py
) -> tuple[Options, TrainingStep]:
    return options, SYSTEMS[options.system](list(system_flags), options.world_size, options.text_tokens)


def describe(step: TrainingStep, estimates: dict[Variant, StepMemory], options: Options) -> list[str]:
    """The lines of the table, a column for each variant."""
    memories = list(estimates.values())
    lines = [
        f"{options.system}: {step.description}",
        f"{step.samples} {step.unit} in a forward pass of a device, {step.accumulation} forward passes a step, "
        f"{options.world_size} device(s); {memories[0].trainable_count:,} trainable weights, "
        f"{memories[0].frozen_count:,} frozen",
        *(f"assumed: {assumption}" for assumption in step.assumptions),
        "",
        _row("GiB of one device, undivided", [_name(variant) for variant in estimates]),
        *(
            _row(label, [f"{getattr(memory, field) / GIB:.3f}" for memory in memories])
            for label, field in UNDIVIDED.items()
        ),
        _row("  reached in", [memory.phase for memory in memories]),
        _row("10^12 operations of a step", [f"{memory.operations / 1e12:.3f}" for memory in memories]),
    ]
    for share in (1.0, options.utilization) if options.tflops else ():
        seconds = [f"{memory.operations / options.tflops / 1e12 / share:.4f}" for memory in memories]
        lines.append(_row(f"seconds at {share:.0%} of {options.tflops:g} TFLOPS", seconds))
    if options.gpu_memory_gib:
        samples = [largest_batch(step, *pair, options.gpu_memory_gib * GIB) for pair in estimates.items()]
        lines.append(_row(f"{step.unit} that fit into {options.gpu_memory_gib:g} GiB", samples))
    if options.world_size > 1:
        lines += ["", _row(f"GiB of each of {options.world_size} devices, by formula", DIVIDED)]
        for (precision, checkpointed), memory in estimates.items():
            for engine in step.engines if checkpointed == bool(step.checkpointing) else ():
                share = divide(memory, engine, options.world_size, precision)
                cells = [f"{getattr(share, field) / GIB:.3f}" for field in DIVIDED.values()]
                lines.append(_row(f"{engine}, {_name((precision, checkpointed))}", cells))
    return lines


def largest_batch(step: TrainingStep, variant: Variant, memory: StepMemory, limit: float) -> int:
    """Samples of a forward pass whose peak stays within `limit` bytes, found by trial; 0: none.

    Between two sizes that were tried the peak is taken to be linear; the interpolated size is tried in turn.
    """
    half = max(step.samples // 2, 2)
    peaks = {half: dry_step(step, *variant, half).peak, step.samples: memory.peak}
    for _ in range(3):
        (less, lower), *_, (more, upper) = sorted(peaks.items()) if len(peaks) > 1 else [(0, 0), *peaks.items()]
        samples = int(less + (limit * 0.995 - lower) * (more - less) / max(upper - lower, 1))
        samples = max(min(samples, MAX_SAMPLES), 2)
        if samples in peaks:
            break
        peaks[samples] = dry_step(step, *variant, samples).peak
        if 0.99 * limit < peaks[samples] <= limit:
            break
    return max((samples for samples, peak in peaks.items() if peak <= limit), default=0)


def _name(variant: Variant) -> str:
    return f"{variant[0]}, checkpointed" if variant[1] else variant[0]


def _row(label: str, cells: Iterable[Any]) -> str:
    return f"{label:36}" + "".join(f"{cell:>20}" for cell in cells)


if __name__ == "__main__":
    run_script(main)
