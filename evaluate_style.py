"""Evaluate how well a style encoder separates styles, compared with baselines that need no training.

    python evaluate_style.py --weights checkpoints/best.pth --data_dir data [--grey] [--json]

images -> vectors by four methods -> pair ROC-AUC, precision@1, MAP@R for style (higher is better), and the same three
for content where styles share file names (lower is better: how much of the content leaks into the style vector).
"""

from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from common.cli.errors import run_script
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.images.cache import CACHE_SCALE, ImageCache
from common.metrics.embedding import retrieval_metrics
from common.models.eval_mode import eval_mode
from common.text.files import write_json
from common.training.device import choose_device
from common.training.skip_log import report_skipped
from dataset import StyleDataset, find_samples, unused_images
from model import VisionStyleEncoder, colour_histogram
from style_encoder import build_untrained, load_encoder
from targets import TargetShapes

METRICS = ("auc", "precision_at_1", "map_at_r")


@tool
def main(
    *,
    weights: str,  # a .pth written by train.py
    data_dir: str,  # folder of <style>/<name>_img.*, or of ordinary image folders
    styles: Sequence[str] = (),  # only these style folders
    names: Sequence[str] = (),  # only these contents: paths below a style folder, without _img and suffix
    grey: bool = False,  # remove the colours first
    device: str = "auto",
    output: Path | None = None,  # write the results to this JSON file
    json: bool = False,
) -> dict[str, Any]:
    torch_device = choose_device(device)
    encoder, content = load_encoder(weights, torch_device)
    samples = find_samples(data_dir)
    report_skipped(unused_images(data_dir, samples))
    for flag, selected, attribute in (("--styles", styles, "style"), ("--names", names, "name")):
        if missing := set(selected) - {getattr(sample, attribute) for sample in samples}:
            raise ValueError(f"{flag}: no {', '.join(sorted(missing))} in {data_dir}")
        samples = [sample for sample in samples if not selected or getattr(sample, attribute) in selected]
    size = encoder.tower.image_size
    images = ImageCache([sample.image for sample in samples], round(CACHE_SCALE * size), cache_dir=None)
    report_skipped(images.skipped)
    dataset = StyleDataset(images.readable(samples), images, size, TargetShapes(), grey=grey)
    untrained, problem = build_untrained(content, torch_device)

    vectors = {"style encoder": style_vectors(encoder, dataset, torch_device)}
    vectors |= baseline_vectors(untrained, dataset, torch_device)
    results = {name: score(rows, dataset, per_style=True) for name, rows in vectors.items()}
    report = {
        "weights": weights,
        "data_dir": data_dir,
        "grey": grey,
        "images": len(dataset),
        "styles": len(dataset.styles),
        "results": results,
    }
    if output:
        write_json(output, report)
    lines = [f"{len(dataset)} images of {len(dataset.styles)} styles{', without colour' if grey else ''}"]
    lines += [format_table(results), *([f"the untrained backbone could not be built: {problem}"] if problem else [])]
    lines.append("\nper style, style encoder:" + f"{'P@1':>17}{'MAP@R':>8}")
    for style, values in results["style encoder"]["style"].get("per_style", {}).items():
        lines.append(f"  {style:32}{values['precision_at_1']:8.3f}{values['map_at_r']:8.3f}")
    print(dumps(report, indent=2, ensure_ascii=False) if json else "\n".join(lines))
    return report


def style_vectors(encoder: VisionStyleEncoder, dataset: StyleDataset, device: torch.device) -> torch.Tensor:
    """-> style (N, S) of every image of a dataset, in its order."""

    def encode(image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"style": encoder(image.to(device)).style}

    with eval_mode(encoder):
        return _encode_dataset(dataset, encode, "encoding")["style"]


def baseline_vectors(
    untrained: VisionStyleEncoder | None, dataset: StyleDataset, device: torch.device
) -> dict[str, torch.Tensor]:
    """-> {name: (N, W)}: baselines for the style encoder on the same images; untrained None: the histogram alone."""

    def encode(image: torch.Tensor) -> dict[str, torch.Tensor]:
        vectors = {"colour histogram": colour_histogram(image)}
        if untrained:
            features = untrained.eval().tower(image.to(device))
            vectors["backbone before training"] = features.pooled
            vectors["Gram matrices"] = gram_vectors(features.feature_maps)
        return vectors

    return _encode_dataset(dataset, encode, "baselines")


@torch.inference_mode()
def _encode_dataset(
    dataset: StyleDataset, encode: Callable[[torch.Tensor], dict[str, torch.Tensor]], label: str
) -> dict[str, torch.Tensor]:
    """encode(image (B, 3, S, S)) -> {name: (B, W)}, over a dataset: {name: (N, W)}."""
    loader = DataLoader(dataset, 64, generator=torch.Generator())  # its own: the global one belongs to training
    batches = [
        {name: vectors.float().cpu() for name, vectors in encode(batch["image"]).items()}
        for batch in progress_bar(loader, label)
    ]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def gram_vectors(feature_maps: list[torch.Tensor], width: int = 64) -> torch.Tensor:
    """Gram matrices of feature maps (Gatys et al. 2016, equation 3) -> (B, W), each normalised to unit length.

    Maps with more than `width` channels are first projected to `width` by one fixed random orthogonal matrix, or the
    matrices of a wide backbone would need gigabytes.
    """
    parts = []
    for feature_map in feature_maps:
        maps = feature_map.float().flatten(2)  # (B, C, hw)
        if maps.shape[1] > width:
            random = torch.randn(maps.shape[1], width, generator=torch.Generator().manual_seed(0))
            maps = torch.linalg.qr(random)[0].to(maps).T @ maps
        gram = maps @ maps.transpose(1, 2) / maps.shape[2]
        rows, columns = torch.triu_indices(gram.shape[1], gram.shape[1])
        parts.append(F.normalize(gram[:, rows, columns], dim=1))
    return torch.cat(parts, 1)


def score(vectors: torch.Tensor, dataset: StyleDataset, per_style: bool = False) -> dict:
    """{'style': metrics, 'content': metrics or {}} of vectors (N, W) in the dataset's order."""
    style = retrieval_metrics(vectors, torch.tensor(dataset.style_ids), per_class=per_style)
    if "per_class" in style:
        style["per_style"] = {dataset.styles[label]: values for label, values in style.pop("per_class").items()}
    return {"style": style, "content": retrieval_metrics(vectors, torch.tensor(dataset.name_ids))}


def format_table(results: dict[str, dict]) -> str:
    """{method: score} as a table."""
    lines = [
        f"{'':26}{'style (higher is better)':^29}{'content (lower is better)':^29}",
        f"{'':26}" + (f"{'AUC':>8}{'P@1':>8}{'MAP@R':>8}     " * 2).rstrip(),
    ]
    for name, result in results.items():
        cells = [
            "".join(f"{values[metric]:8.3f}" if values else f"{'-':>8}" for metric in METRICS)
            for values in (result["style"], result["content"])
        ]
        lines.append(f"{name:26}{'     '.join(cells)}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
