"""Tables of benchmarks/llava_real.py: AUC of each score on each part, with spread over seeds and intervals."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.emoji_grid import PARTS, split_grid
from clip.embed import embed_texts
from clip.model import CLIPModel
from common.images.io import open_image
from common.metrics.bootstrap import interval_of
from common.text.files import iter_lines, write_json
from common.training.skip_log import SkipLog
from llava.build_model import words_of
from llava.checkpoint import load_image_text_model
from llava.make_scoring_data import read_images
from llava.metrics import rank_agreement, resample_clusters

CLIP = Path("clip_run/best_model.pth")
SCORES = {
    "score": "stated score",
    "expected_score": "expected score",
    "p_yes": "P(Yes)",
    "words": "its words alone",
    "clip": "CLIP's cosine",
}
KINDS = ("all", "same group", "any group")


def score_rows(folder: Path, seed: int, data_dir: Path, language: str) -> list[dict[str, Any]]:
    """Pairs of all parts of a seed, with their scores."""
    groups = {
        drawing.fields[f"name_{language}"]: drawing.fields["group"]
        for drawings in split_grid(data_dir, seed).values()
        for drawing in drawings
    }
    model, _ = CLIPModel.open(folder / CLIP)
    rows = []
    for part in PARTS[1:]:
        pairs = [json.loads(line) for _, line in iter_lines(folder / part / "per_sample.jsonl")]
        for pair, cosine, likelihood in zip(
            pairs, clip_scores(model, pairs), word_scores(folder, pairs, language), strict=True
        ):
            is_hard = not pair["matching"] and groups[pair["text"]] == pair["group"]
            kind = "fits" if pair["matching"] else KINDS[1] if is_hard else KINDS[2]
            scores = {name: pair.get(name) for name in SCORES} | {"clip": cosine, "words": likelihood}
            rows.append({"seed": seed, "part": part, "kind": kind, "content": Path(pair["image"]).name, **scores})
    return rows


@torch.inference_mode()
def clip_scores(model: CLIPModel, pairs: Sequence[dict[str, Any]]) -> list[float]:
    """Cosines of each pair's image and text."""
    paths = list(dict.fromkeys(pair["image"] for pair in pairs))
    images = torch.stack([model.preprocess(open_image(path)) for path in paths])
    vectors = torch.cat([model.encode_image(some) for some in images.split(64)])
    texts = embed_texts(model, [pair["text"] for pair in pairs], torch.device("cpu"), quiet=True)
    return (vectors[[paths.index(pair["image"]) for pair in pairs]] * texts).sum(1).tolist()


@torch.inference_mode()
def word_scores(folder: Path, pairs: Sequence[dict[str, Any]], language: str) -> list[float]:
    """What the image tokens say without the language model: mean log probability of the text's words, in nats, those
    of no training text apart."""
    loaded = load_image_text_model(str(folder / "start"), device="cpu", precision="fp32")
    tokenizer, tower = loaded.processor.tokenizer, loaded.model.model.vision_tower
    drawings = read_images(folder / "training.jsonl", language, True, (), folder, SkipLog())
    vocabulary = sorted(set().union(*(words_of(drawing.texts, tokenizer) for drawing in drawings)))
    paths = list(dict.fromkeys(pair["image"] for pair in pairs))
    pixels = loaded.processor.image_processor([open_image(path) for path in paths], return_tensors="pt")["pixel_values"]
    said = torch.cat([tower.word_probabilities(some) for some in pixels.split(64)]).log()  # (N, W)
    scores = []
    for pair in pairs:
        known = [vocabulary.index(word) for word in words_of([pair["text"]], tokenizer) & set(vocabulary)]
        scores.append(float(said[paths.index(pair["image"]), known].mean()) if known else float(said.min()))
    return scores


def mean_auc(rows: Sequence[dict[str, Any]], name: str) -> tuple[float, list[float], tuple[float, float]]:
    """-> mean over seeds, of each seed, 95 % interval of the mean over resampled contents of each seed.

    A missing score counts as the lowest.
    """
    aucs, draws, count = [], [], 0
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed]
        values = np.array([-1.0 if row[name] is None else row[name] for row in own])
        match = np.array([row["kind"] == "fits" for row in own])
        _, owners = np.unique([row["content"] for row in own], return_inverse=True)
        count = int(owners.max()) + 1
        aucs.append(float(rank_agreement(values, match, np.ones((1, len(own))))[0][0]))
        resampled = [
            rank_agreement(values, match, some[:, owners])[0] for some in resample_clusters(count, len(own), seed)
        ]
        draws.append(np.concatenate(resampled))
    return float(np.mean(aucs)), aucs, interval_of(np.nanmean(draws, axis=0), count, 1.0)


def report(rows: list[dict[str, Any]], work_dir: Path) -> None:
    results = []
    for kind in KINDS:
        chosen = [row for row in rows if kind == "all" or row["kind"] in ("fits", kind)]
        print(f"\nAUC against texts of {'both kinds' if kind == 'all' else kind}\n")
        print(f"| part | {' | '.join(SCORES.values())} |")
        print("|---|" + "---|" * len(SCORES))
        for part in PARTS[1:]:
            own = [row for row in chosen if row["part"] == part]
            cells = []
            for name in SCORES:
                mean, seeds, (low, high) = mean_auc(own, name)
                spread = " ".join(f"{auc:.2f}" for auc in seeds)
                cells.append(f"{mean:.3f} ({low:.3f} .. {high:.3f}; {spread})")
                place = {"kind": kind, "part": part, "score": name}
                results.append({**place, "auc": mean, "interval": [low, high], "seeds": seeds})
            print(f"| {part} | {' | '.join(cells)} |")
    missing = sum(row["score"] is None for row in rows)
    print(f"\n{len(rows)} pairs, {missing} without a stated score")
    minutes = {path.parent.name: json.loads(path.read_text()) for path in sorted(work_dir.glob("seed_*/minutes.json"))}
    for seed, stages in minutes.items():
        print(f"{seed}: " + ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items()) + " processor minutes")
    write_json(work_dir / "results.json", {"aucs": results, "minutes": minutes})
