"""Speed of an image encoder in ONNX Runtime and compiled by torch.compile, compared with PyTorch, on one thread.

    python benchmarks/export_speed.py --weights tf_efficientnet_lite0:random vit_base_patch16_224:random
    python benchmarks/export_speed.py --weights checkpoints/best.pth --batch_sizes 8 --rounds 7

weights as the retrieval tools take them -> a Markdown row for each batch size: images per second of PyTorch in
inference mode, compiled, and in ONNX Runtime, from equal pixels; the ways take turns, the median over the rounds
counts. Then the seconds until each way can be used, and from how many images on it is faster than PyTorch with them.
Seconds are the processor's: on one thread they are the clock's, less what other programs took.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common.models.onnx_export import random_images
from common.models.pooling import ImageEncoder
from common.training.device import disable_malloc_trim
from common.vectors.onnx_encoder import onnx_encoder
from retrieval.encoders import open_encoder

WAYS = ("PyTorch", "compiled", "ONNX Runtime")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", nargs="+", required=True, help="files, folders, or names of timm with :random")
    parser.add_argument("--image_size", type=int, default=0, help="pixels; 0: the network's own")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="besides PyTorch")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each way in a round")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    disable_malloc_trim()  # as in extraction
    columns = [f"{way}, images/s | {way}, factor | starts in s | pays from" for way in args.ways if way != WAYS[0]]
    print(f"| encoder | pixels | batch | PyTorch, images/s | {' | '.join(columns)} |")
    print(f"|{'---|' * (4 + 4 * len(columns))}")
    for weights in args.weights:
        encoder = open_encoder(weights, image_size=args.image_size).requires_grad_(False)
        for batch_size in args.batch_sizes:
            print_row(weights, encoder, batch_size, args)


def print_row(weights: str, encoder: ImageEncoder, batch_size: int, args: argparse.Namespace) -> None:
    pixels = random_images(encoder.image_size)(batch_size)
    runs: dict[str, Callable] = {WAYS[0]: encoder}
    started = dict.fromkeys(WAYS, 0.0)
    for way in args.ways:
        start = time.process_time()
        if way == "compiled":
            runs[way] = torch.compile(encoder, dynamic=False)
            with torch.inference_mode():
                runs[way](pixels)
        elif way == "ONNX Runtime":
            runs[way] = onnx_encoder(encoder, encoder, pixels)
        started[way] = time.process_time() - start
    rates: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(args.rounds):
        for way, run in runs.items():
            rates[way].append(images_per_second(run, pixels, args.seconds))
    medians = {way: statistics.median(values) for way, values in rates.items()}
    cells = [weights, str(encoder.image_size), str(batch_size)]
    for way, values in rates.items():
        cells.append(f"{medians[way]:.1f} ({min(values):.1f} to {max(values):.1f})")
        if way != WAYS[0]:
            saved = 1 / medians[WAYS[0]] - 1 / medians[way]  # seconds an image
            pays = f"{started[way] / saved:,.0f} images" if saved > 0 else "never"
            cells += [f"{medians[way] / medians[WAYS[0]]:.2f}", f"{started[way]:.1f}", pays]
    print(f"| {' | '.join(cells)} |", flush=True)


@torch.inference_mode()
def images_per_second(run: Callable, pixels: torch.Tensor, seconds: float) -> float:
    run(pixels)
    start, batches = time.process_time(), 0
    while time.process_time() - start < seconds:
        run(pixels)
        batches += 1
    return batches * len(pixels) / (time.process_time() - start)


if __name__ == "__main__":
    main(sys.argv[1:])
