"""Does it pay on a CPU to keep freed memory, as common/device.py does?

    python benchmarks/freed_memory.py [--rounds 3]

Each round trains the same steps in two fresh processes, with glibc's defaults and with keep_freed_memory().
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common.device import keep_freed_memory
from model import StyleLearner, VisionStyleEncoder

STEPS, BATCH, SIZE = 12, 48, 128


def measure(keep: bool) -> dict[str, float]:
    """Train a few steps on one batch in memory -> images per second, kernel seconds, peak memory in MB."""
    if keep:
        keep_freed_memory()
    torch.manual_seed(0)
    learner = StyleLearner(VisionStyleEncoder("tf_efficientnet_lite0", image_size=SIZE), {"style": 1.0})
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
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"images_per_second": speed, "kernel_seconds": used.ru_stime, "peak_mb": used.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=("default", "kept"), help="measure in this process and print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one == "kept")))
        return
    found = {"default": [], "kept": []}
    for _ in range(args.rounds):
        for name, measured in found.items():
            output = subprocess.run(
                [sys.executable, __file__, "--one", name], capture_output=True, text=True, check=True
            )
            measured.append(json.loads(output.stdout.splitlines()[-1]))
    for name, measured in found.items():
        columns = {key: statistics.median(one[key] for one in measured) for key in measured[0]}
        spread = [one["images_per_second"] for one in measured]
        print(f"{name:8}" + "  ".join(f"{key} {value:,.1f}" for key, value in columns.items())
              + f"  ({min(spread):.1f} .. {max(spread):.1f} img/s)")  # fmt: skip


if __name__ == "__main__":
    main()
