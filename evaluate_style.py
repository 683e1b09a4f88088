"""How well does a style encoder tell styles apart, beside what needs no training?

    python evaluate_style.py --weights checkpoints/best.pth --data_dir data [--grey] [--json]

images -> vectors by four methods -> pair ROC-AUC, precision@1, MAP@R for style (higher is better), and the same three
for content (lower is better: how much of what is drawn leaks in), where file names are shared between styles.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.cli.errors import run_script
from common.images.cache import CACHE_SCALE, ImageCache
from common.metrics.embedding import retrieval_metrics
from common.text.files import write_json
from common.training.device import choose_device
from common.training.skip_log import report_skipped
from dataset import StyleDataset, TargetShapes, find_samples
from model import VisionStyleEncoder, colour_histogram
from style_encoder import build_untrained, load_encoder

METRICS = ("auc", "precision_at_1", "map_at_r")


@torch.inference_mode()
def style_vectors(encoder: VisionStyleEncoder, dataset: StyleDataset, device: torch.device, batch_size: int = 64):
    """-> style (N, S), pooled backbone features (N, V) of every image of a data set, in its order."""
    was_training = encoder.training
    encoder.eval()
    loader = DataLoader(dataset, batch_size, generator=torch.Generator())  # its own: the global one belongs to training
    styles, pooled = [], []
    for batch in tqdm(loader, desc="encoding", leave=False, dynamic_ncols=True):
        output = encoder(batch["image"].to(device))
        styles.append(output.style.float().cpu())
        pooled.append(output.features.pooled.float().cpu())
    encoder.train(was_training)
    return torch.cat(styles), torch.cat(pooled)


@torch.inference_mode()
def baseline_vectors(untrained: VisionStyleEncoder | None, dataset: StyleDataset, device: torch.device):
    """-> {name: (N, W)}: what a style encoder has to beat on the same images."""
    vectors: dict[str, list[torch.Tensor]] = {"colour histogram": []}
    if untrained:
        vectors |= {"backbone before training": [], "Gram matrices": []}
        untrained.eval()
    loader = DataLoader(dataset, 64, generator=torch.Generator())
    for batch in tqdm(loader, desc="baselines", leave=False, dynamic_ncols=True):
        vectors["colour histogram"].append(colour_histogram(batch["image"]))
        if untrained:
            features = untrained.tower(batch["image"].to(device))
            vectors["backbone before training"].append(features.pooled.float().cpu())
            vectors["Gram matrices"].append(gram_vectors(features.levels).cpu())
    return {name: torch.cat(parts) for name, parts in vectors.items()}


def gram_vectors(levels: list[torch.Tensor], width: int = 64) -> torch.Tensor:
    """Gram matrices of feature maps (Gatys et al. 2016, equation 3) -> (B, W), each level normalised to unit length.

    Maps with more than `width` channels are first projected to `width` by one fixed random orthogonal matrix, or the
    matrices of a wide backbone would need gigabytes.
    """
    parts = []
    for level in levels:
        maps = level.float().flatten(2)  # (B, C, hw)
        if maps.shape[1] > width:
            random = torch.randn(maps.shape[1], width, generator=torch.Generator().manual_seed(0))
            maps = torch.linalg.qr(random)[0].to(maps).T @ maps
        gram = maps @ maps.transpose(1, 2) / maps.shape[2]
        rows, columns = torch.triu_indices(gram.shape[1], gram.shape[1])
        parts.append(F.normalize(gram[:, rows, columns], dim=1))
    return torch.cat(parts, 1)


def score(vectors: torch.Tensor, dataset: StyleDataset, per_style: bool = False) -> dict:
    """{'style': metrics, 'content': metrics or {}} of vectors (N, W) in the data set's order."""
    style = retrieval_metrics(vectors, torch.tensor(dataset.style_ids), per_class=per_style)
    if "per_class" in style:
        style["per_style"] = {dataset.styles[label]: values for label, values in style.pop("per_class").items()}
    return {"style": style, "content": retrieval_metrics(vectors, torch.tensor(dataset.name_ids))}


def evaluate_all(
    encoder: VisionStyleEncoder, untrained: VisionStyleEncoder | None, dataset: StyleDataset, device: torch.device
) -> dict[str, dict]:
    """{method: score} for the encoder and the baselines."""
    methods = {"style encoder": style_vectors(encoder, dataset, device)[0]}
    methods |= baseline_vectors(untrained, dataset, device)
    return {name: score(vectors, dataset, per_style=True) for name, vectors in methods.items()}


def format_table(results: dict[str, dict]) -> str:
    """The results of evaluate_all as text for a terminal."""
    lines = [
        f"{'':26}{'style (higher is better)':^29}{'content (lower is better)':^29}",
        f"{'':26}" + (f"{'AUC':>8}{'P@1':>8}{'MAP@R':>8}     " * 2).rstrip(),
    ]
    for name, result in results.items():
        cells = ""
        for question in ("style", "content"):
            values = result[question]
            cells += "".join(f"{values[metric]:8.3f}" if values else f"{'-':>8}" for metric in METRICS) + "     "
        lines.append(f"{name:26}{cells.rstrip()}")
    return "\n".join(lines)


def main(argv: list[str]) -> dict:
    parser = argparse.ArgumentParser(prog="evaluate_style.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--weights", required=True, help="a .pth that train.py wrote")
    parser.add_argument("--data_dir", required=True, help="folder of <style>/<name>_img.*")
    parser.add_argument("--styles", nargs="*", help="only these style folders")
    parser.add_argument("--names", nargs="*", help="only these contents: file names without _img and suffix")
    parser.add_argument("--grey", action="store_true", help="take the colours away first")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--output", help="write the results to this JSON file")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args(argv)

    device = choose_device(args.device)
    encoder, content = load_encoder(args.weights, device)
    samples = find_samples(args.data_dir)
    for flag, wanted, attribute in (("--styles", args.styles, "style"), ("--names", args.names, "name")):
        if wanted and (missing := set(wanted) - {getattr(sample, attribute) for sample in samples}):
            raise ValueError(f"{flag}: no {', '.join(sorted(missing))} in {args.data_dir}")
        samples = [sample for sample in samples if not wanted or getattr(sample, attribute) in wanted]
    size = encoder.tower.image_size
    images = ImageCache([sample.image for sample in samples], round(CACHE_SCALE * size), cache_dir=None)
    report_skipped(images.skipped)
    samples = images.readable(samples)
    dataset = StyleDataset(samples, images, size, TargetShapes(), grey=args.grey)
    untrained, why = build_untrained(content, device)

    results = evaluate_all(encoder, untrained, dataset, device)
    report = {
        "weights": str(args.weights),
        "data_dir": str(args.data_dir),
        "grey": args.grey,
        "images": len(samples),
        "styles": len(dataset.styles),
        "results": results,
    }
    if args.output:
        write_json(Path(args.output), report)
    if args.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return report
    print(f"{len(samples)} images of {len(dataset.styles)} styles{', without colour' if args.grey else ''}")
    print(format_table(results))
    if why:
        print(f"the untrained backbone could not be built: {why}")
    print("\nper style, style encoder:" + f"{'P@1':>17}{'MAP@R':>8}")
    for style, values in results["style encoder"]["style"].get("per_style", {}).items():
        print(f"  {style:32}{values['precision_at_1']:8.3f}{values['map_at_r']:8.3f}")
    return report


if __name__ == "__main__":
    run_script(main)
