"""Speed of an exported network compared with PyTorch, on one thread.

    python benchmarks/export_speed.py --weights checkpoints/best.pth [--batch_size 8] [--rounds 7]

weights of a style encoder or of a CLIP (its image tower) -> a Markdown row: images per second of PyTorch in inference
mode and of onnxruntime on the CPU, from equal pixels; the two take turns, the median over the rounds counts. Seconds
are the processor's: on one thread they are the clock's, less what other programs took.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from clip.checkpoint import load_clip
from common.models.onnx_export import OutputTuple, open_session, random_images, write_onnx
from retrieval.encoders import kind_of
from style_encoder import load_encoder
from tools.export_style import output_tuple


def read_module(weights: str) -> tuple[torch.nn.Module, list[str], int, str]:
    """-> module, names of its outputs, pixels of its input, what it is called in the row."""
    if kind_of(weights) == "clip":
        model, _ = load_clip(weights)
        return OutputTuple(model, model.encode_image), ["vectors"], model.image_size, "CLIP, image tower"
    encoder, _ = load_encoder(weights, torch.device("cpu"))
    module, names = output_tuple(encoder)
    return module, names, encoder.tower.image_size, f"style encoder, {encoder.build['model_name']}"


def images_per_second(run: Callable[[], object], batch_size: int, seconds: float) -> float:
    run()
    start, batches = time.process_time(), 0
    while time.process_time() - start < seconds:
        run()
        batches += 1
    return batches * batch_size / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", required=True, help="a style encoder's or a CLIP's")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each way in a round")
    args = parser.parse_args()
    torch.set_num_threads(1)
    module, names, size, what = read_module(args.weights)
    make_input = random_images(size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        differences = write_onnx(path, module, make_input, "image", names)
        session = open_session(str(path), threads=1)
    image = make_input(args.batch_size)

    @torch.inference_mode()
    def with_torch() -> object:
        return module(image)

    ways = {"torch": with_torch, "onnxruntime": lambda: session.run(names, {"image": image.numpy()})}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, run in ways.items():
            rates[name].append(images_per_second(run, args.batch_size, args.seconds))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    spreads = {name: f"{min(values):.1f} to {max(values):.1f}" for name, values in rates.items()}
    gain = statistics.median(one / other for one, other in zip(rates["onnxruntime"], rates["torch"]))
    print("| network | pixels | batch | torch, images/s | onnxruntime, images/s | factor | largest difference |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {what} | {size} | {args.batch_size} | {medians['torch']:.1f} ({spreads['torch']}) | "
        f"{medians['onnxruntime']:.1f} ({spreads['onnxruntime']}) | {gain:.2f} | {max(differences.values()):.1e} |"
    )


if __name__ == "__main__":
    main()
