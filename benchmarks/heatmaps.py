"""Localisation by heat maps: how well each kind finds the object that a text names.

    python benchmarks/heatmaps.py --weights best_model.pth [--scenes 200] [--json FILE]

Drawn scenes that the model was not trained on, with things of two kinds and known boxes. Each kind is a text of its own
("two small yellow stars"), so a map that only finds "something" is wrong half of the time. Of every method, as it is,
with the mean of all texts subtracted, and with the empty text subtracted:

  pointing    share of questions with the map's highest place in a box of the named kind (Zhang et al. 2018)
  other       the same for the boxes of the other kind
  energy      share of the map's sum inside the named boxes (Wang et al. 2020, Score-CAM, section 4.2)
  deletion    mean cosine while patches are blurred, hottest first: lower is better (Petsiuk et al. 2018, RISE)
  insertion   mean cosine while patches of the blurred image become sharp, hottest first: higher is better

For comparison: a random map, a map that is hot in the middle, and attention rollout, which never sees the text. Without
--weights a small model is trained on other drawn scenes first.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from tqdm import tqdm

from clip import train as clip_train
from clip.attention_maps import attend, finish_block, min_max, to_grid
from clip.checkpoint import load_clip
from clip.heatmaps import enlarge, heatmap, methods_of
from clip.model import CLIPModel
from common.cli.errors import run_script
from common.images.io import open_image
from common.samples.layouts import create_sample_dataset
from common.samples.scenes import Scene, SceneObject
from common.text.files import write_json
from common.training.device import choose_device

SEED = 77_000  # far from the seeds that people train with
STEPS = 12  # of deletion and insertion
METRICS = ("pointing", "other", "energy", "deletion", "insertion")


class Question(NamedTuple):
    image: int
    text: str
    named: torch.Tensor  # (S, S) True inside a box of the named kind
    other: torch.Tensor  # (S, S) True inside a box of the other kind


def draw_questions(model: CLIPModel, scenes: int, folder: Path) -> tuple[torch.Tensor, list[Question]]:
    """-> images (I, 3, S, S) uint8 of scenes with two kinds, two questions each."""
    create_sample_dataset(folder, scenes, seed=SEED, layout="captions", size=max(128, model.image_size))
    images, questions = [], []
    for entry in json.loads((folder / "scenes.json").read_text(encoding="utf-8")):
        if not entry["relation"]:
            continue
        things = tuple(SceneObject(**one) for one in entry["objects"])
        scene = Scene(things, tuple(map(tuple, entry["groups"])), entry["background"], entry["tint"])
        masks = [box_mask([things[one].box for one in group], model.image_size) for group in scene.groups]
        for group in (0, 1):
            questions.append(Question(len(images), scene.phrase(group), masks[group], masks[1 - group]))
        images.append(model.preprocess(open_image(folder / entry["name"])))
    return torch.stack(images), questions


def box_mask(boxes: list[tuple], size: int) -> torch.Tensor:
    """Boxes in fractions of the side -> (S, S), True where the centre of a pixel is in one."""
    centre = (torch.arange(size) + 0.5) / size
    inside = [
        ((centre >= top) & (centre < bottom))[:, None] & (centre >= left) & (centre < right)
        for left, top, right, bottom in boxes
    ]
    return torch.stack(inside).any(0)


def rollout(model: CLIPModel, image: torch.Tensor) -> torch.Tensor:
    """Abnar & Zuidema 2020: the product over the blocks of (attention + identity) / 2, as the class token sees it."""
    visual = model.network.visual
    with torch.no_grad():
        tokens = visual._embeds(model.normalise(image))
        joint = torch.eye(tokens.shape[1], device=tokens.device)
        for block in visual.transformer.resblocks:
            attention = attend(block, tokens)
            tokens = finish_block(block, tokens, attention)
            joint = (attention.weights.mean(1) + torch.eye(tokens.shape[1], device=tokens.device)) / 2 @ joint
    return min_max(to_grid(visual, joint[:, 0, 1:]))


def fading_curve(model: CLIPModel, image: torch.Tensor, texts: torch.Tensor, maps: torch.Tensor, insert: bool):
    """(B, 3, S, S), (B, D), (B, rows, columns) -> (B,) mean cosine while patches go (or come), the hottest first."""
    unit, size = image / 255, image.shape[-2:]
    blurred = F.interpolate(F.adaptive_avg_pool2d(unit, 4), size, mode="bilinear")  # colours without any shape
    before, after = (blurred, unit) if insert else (unit, blurred)
    count = maps[0].numel()
    place = maps.flatten(1).argsort(descending=True, dim=1).argsort(dim=1).view_as(maps)  # 0 = the hottest patch
    cosines = []
    for step in range(STEPS + 1):
        done = (place < count * step / STEPS).float()[:, None]
        done = F.interpolate(done, size, mode="nearest")
        cosines.append((model.encode_image(before * (1 - done) + after * done) * texts).sum(1))
    return torch.trapezoid(torch.stack(cosines), dim=0) / STEPS


@torch.no_grad()
def measure(model: CLIPModel, maps: torch.Tensor, image: torch.Tensor, texts: torch.Tensor, asked: list[Question]):
    """One batch of questions and their maps -> (B,) of each of METRICS."""
    large = enlarge(maps, image.shape[-1]).cpu()
    peak = large.flatten(1).argmax(1)
    named, other = (torch.stack([one[field] for one in asked]).flatten(1) for field in (2, 3))
    rows = torch.arange(len(asked))
    energy = (large.flatten(1) * named).sum(1) / large.flatten(1).sum(1).clamp(min=1e-9)
    return {
        "pointing": named[rows, peak].float(),
        "other": other[rows, peak].float(),
        "energy": energy,
        "deletion": fading_curve(model, image, texts, maps, insert=False).cpu(),
        "insertion": fading_curve(model, image, texts, maps, insert=True).cpu(),
    }


def ways_to_look(model: CLIPModel, text_vectors: torch.Tensor) -> dict[str, Callable]:
    """Name -> function of a batch of images and text vectors, to maps."""
    with torch.no_grad():
        shared = {"": None, ", mean text off": text_vectors.mean(0), ", empty text off": model.encode_text([""])[0]}
    ways = {
        f"{method}{words}": lambda image, texts, method=method, taken=taken: heatmap(model, image, texts, method, taken)
        for method in methods_of(model)
        for words, taken in shared.items()
    }
    image = torch.zeros(1, 3, model.image_size, model.image_size, dtype=torch.uint8, device=text_vectors.device)
    grid = ways[next(iter(ways))](image, text_vectors[:1]).shape[1:]
    generator = torch.Generator().manual_seed(0)
    down, across = (torch.linspace(-1, 1, side)[:, None] for side in grid)
    middle = torch.exp(-(down**2 + across.T**2)).to(text_vectors.device)
    if hasattr(model.network.visual, "transformer"):
        ways["rollout (no text)"] = lambda image, texts: rollout(model, image)
    ways["middle (no model)"] = lambda image, texts: middle.expand(len(image), -1, -1)
    ways["random (no model)"] = lambda image, texts: torch.rand(len(image), *grid, generator=generator).to(image.device)
    return ways


def train_small_model(folder: Path, scenes: int, epochs: int) -> Path:
    """clip/train.py's demo on more scenes, with more patches -> its best_model.pth."""
    create_sample_dataset(folder / "train", scenes, layout="captions")
    places = {
        "data_dir": "train",
        "cache_dir": "cache",
        "checkpoint_dir": "model",
        "results_dir": "results",
        "log_dir": "logs",
    }
    flags = [word for name, place in places.items() for word in (f"--{name}", str(folder / place))]
    clip_train.main(["--demo", "--image_size", "96", "--num_epochs", str(epochs), *flags])
    return folder / "model" / "best_model.pth"


def main(argv: list[str]) -> dict:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", help="a best_model.pth of clip/train.py, or a Hugging Face CLIP")
    parser.add_argument("--scenes", type=int, default=200, help="scenes to draw; about half have two kinds")
    parser.add_argument("--train_scenes", type=int, default=4000, help="without --weights: scenes to train on")
    parser.add_argument("--epochs", type=int, default=12, help="without --weights: epochs to train for")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args(argv)

    device = choose_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights or train_small_model(Path(folder), args.train_scenes, args.epochs)
        model, _ = load_clip(weights, device)
        images, questions = draw_questions(model, args.scenes, Path(folder) / "scenes")
    with torch.no_grad():
        text_vectors = torch.cat([model.encode_text([one.text]) for one in questions])
    found = {}
    for name, look in tqdm(ways_to_look(model, text_vectors).items(), leave=False):
        parts = []
        for start in range(0, len(questions), args.batch_size):
            asked = questions[start : start + args.batch_size]
            image = images[[one.image for one in asked]].to(device)
            texts = text_vectors[start : start + args.batch_size]
            parts.append(measure(model, look(image, texts), image, texts, asked))
        found[name] = {metric: float(torch.cat([part[metric] for part in parts]).mean()) for metric in METRICS}
    margin = 1.96 * (0.25 / len(questions)) ** 0.5
    print(
        f"{len(questions)} questions about {len(images)} scenes, {model.image_size} px; pointing +- {margin:.2f} (95 %)"
    )
    print(f"{'':32}" + "".join(f"{metric:>11}" for metric in METRICS))
    for name, numbers in sorted(found.items(), key=lambda item: -item[1]["pointing"]):
        print(f"{name:32}" + "".join(f"{numbers[metric]:11.3f}" for metric in METRICS))
    result = {"questions": len(questions), "weights": str(args.weights), "methods": found}
    if args.json:
        write_json(args.json, result)
    return result


if __name__ == "__main__":
    run_script(main)
