"""Effect of keeping freed memory on a CPU, as common/training/device.py does.

    python benchmarks/freed_memory.py [--rounds 3]

Each round trains the same steps in two fresh processes, with glibc's defaults and with disable_malloc_trim().
"""

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.turns import median_of, peak_memory, run_in_turns
from common.training.device import disable_malloc_trim
from model import StyleTrainingModel, VisionStyleEncoder

STEPS, BATCH, SIZE = 12, 48, 128


def measure(way: str) -> dict[str, float]:
    """Train a few steps on one batch in memory -> images per second, kernel seconds, peak memory in MB."""
    if way == "kept":
        disable_malloc_trim()
    torch.manual_seed(0)
    learner = StyleTrainingModel(VisionStyleEncoder("tf_efficientnet_lite0", image_size=SIZE), {"style": 1.0})
    optimizer = torch.optim.AdamW(learner.parameters(), fused=True)
    image = torch.randint(256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
    style_ids = torch.arange(BATCH // 4).repeat_interleave(4)
    for step in range(STEPS + 2):
        if step == 2:
            start = time.perf_counter()
        loss, _ = learner(image=image, style_ids=style_ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    speed = STEPS * BATCH / (time.perf_counter() - start)
    kernel = resource.getrusage(resource.RUSAGE_SELF).ru_stime
    return {"images_per_second": speed, "kernel_seconds": kernel, "peak_mb": peak_memory()}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    for name, runs in run_in_turns(measure, ("default", "kept"), args.rounds).items():
        columns = "  ".join(f"{key} {median_of(runs, key)[0]:,.1f}" for key in runs[0])
        print(f"{name:8}{columns}  {median_of(runs, 'images_per_second', 1)[1]} img/s")


if __name__ == "__main__":
    main(sys.argv[1:])
