"""How alike are two styles?

    python style_comparator.py a.png b.png --weights checkpoints/best.pth       one number in [-1, 1]
    python style_comparator.py a.png folder/ --weights ...                      a folder, ranked by likeness to a.png
    python style_comparator.py folder_a/ folder_b/ --weights ...                every pair, and a picture of the matrix

Cosines of one model are not those of another. Where the weights carry validation statistics, the score comes with the
share of other-style pairs that lie below it, and with the CSLS score, which takes away what an image has with all.
"""

import argparse
import json
from pathlib import Path

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from common.cli.errors import run_script
from common.images.io import list_images
from common.metrics.embedding import csls
from common.training.device import choose_device
from common.training.plots import save_figure
from model import VisionStyleEncoder
from style_encoder import load_encoder, read_image

MATRIX_IMAGES = 40  # more images on a side are shown as the mean of each folder


@torch.inference_mode()
def encode_files(paths: list[Path], encoder: VisionStyleEncoder, device: torch.device) -> torch.Tensor:
    """-> style (N, S), unit length."""
    vectors = []
    for start in tqdm(range(0, len(paths), 32), desc="encoding", leave=False, disable=len(paths) <= 32):
        images = torch.stack([read_image(path, encoder) for path in paths[start : start + 32]])
        vectors.append(encoder(images.to(device)).style.float().cpu())
    return torch.cat(vectors)


def compare(first: torch.Tensor, second: torch.Tensor, statistics: dict) -> list[dict[str, float]]:
    """Unit vectors (N, S) and (N, S), row by row -> similarity, and where statistics are there, percentile and CSLS.

    other_style_percentile: share of validation pairs of two styles that are less alike, 0..100.
    """
    similarity = (first * second).sum(1).clamp(-1, 1)
    results = [{"similarity": float(value)} for value in similarity]
    if statistics:
        quantiles, bank = statistics["other_style_quantiles"], statistics["bank"]
        below = torch.searchsorted(quantiles, similarity) / (len(quantiles) - 1)
        corrected = csls(similarity, first @ bank.T, second @ bank.T)
        for result, share, value in zip(results, below.clamp(0, 1), corrected):
            result |= {"other_style_percentile": float(100 * share), "csls": float(value)}
    return results


def draw_matrix(path: str | Path, similarity: torch.Tensor, rows: list[str], columns: list[str]) -> None:
    """A heat map of similarities (R, C) with names and, where they fit, numbers."""
    height, width = 1.6 + 0.34 * len(rows), 3.2 + 0.42 * len(columns)
    figure = Figure(figsize=(max(width, 5), max(height, 3)), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(similarity.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    if max(similarity.shape) <= 16:
        for row, values in enumerate(similarity.tolist()):
            for column, value in enumerate(values):
                colour = "white" if abs(value) > 0.6 else "black"
                axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(picture, label="style similarity")
    save_figure(figure, path)


def group_means(similarity: torch.Tensor, rows: list[str], columns: list[str]) -> tuple[torch.Tensor, list, list]:
    """Mean similarity (R, C) of every pair of groups -> (groups, groups), their names; a pair of one image with
    itself does not count."""
    row_names, column_names = sorted(set(rows)), sorted(set(columns))
    means = torch.zeros(len(row_names), len(column_names))
    for i, row in enumerate(row_names):
        for j, column in enumerate(column_names):
            block = similarity[[name == row for name in rows]][:, [name == column for name in columns]]
            means[i, j] = block[block < 1 - 1e-6].mean() if (block < 1 - 1e-6).any() else 1.0
    return means, row_names, column_names


def compare_images(first: Path, second: Path, encoder, statistics, device) -> tuple[dict, str]:
    vectors = encode_files([first, second], encoder, device)
    result = compare(vectors[:1], vectors[1:], statistics)[0]
    text = f"style similarity: {result['similarity']:.4f}   (from -1, unlike, to 1, alike)"
    if statistics:
        text += (
            f"\n  more alike than {result['other_style_percentile']:.1f} % of validation pairs of different styles"
            f"\n  CSLS, corrected for images that are like everything: {result['csls']:.4f}"
        )
    return result, text


def rank_folder(image: Path, folder: Path, encoder, statistics, device, top: int) -> tuple[dict, str]:
    paths = list_images(folder)
    vectors = encode_files([image, *paths], encoder, device)
    scores = compare(vectors[:1].expand(len(paths), -1), vectors[1:], statistics)
    ranked = sorted(
        ({"image": str(path), **score} for path, score in zip(paths, scores)), key=lambda row: -row["similarity"]
    )
    mean = sum(row["similarity"] for row in ranked) / len(ranked)
    lines = [f"{len(ranked)} images in {folder}, mean style similarity {mean:.4f}; the most alike:"]
    lines += [
        f"{row['similarity']:8.4f}"
        + (f"{row['other_style_percentile']:8.1f} %" if statistics else "")
        + f"  {row['image']}"
        for row in ranked[:top]
    ]
    return {"mean_similarity": mean, "ranked": ranked}, "\n".join(lines)


def compare_folders(first: Path, second: Path, encoder, device, output: Path) -> tuple[dict, str]:
    paths = list_images(first), list_images(second)
    vectors = [encode_files(one, encoder, device) for one in paths]
    similarity = vectors[0] @ vectors[1].T
    names = [
        [str(path.relative_to(folder).with_suffix("")).removesuffix("_img") for path in one]
        for folder, one in zip((first, second), paths)
    ]
    shown = similarity, *names
    if max(similarity.shape) > MATRIX_IMAGES:
        shown = group_means(similarity, *[[path.parent.name for path in one] for one in paths])
    draw_matrix(output, *shown)
    mean = float(similarity.mean())
    result = {"mean_similarity": mean, "rows": shown[1], "columns": shown[2], "similarity": shown[0].tolist()}
    text = f"{len(paths[0])} x {len(paths[1])} images, mean style similarity {mean:.4f}; the matrix is in {output}"
    return {**result, "picture": str(output)}, text


def main(argv: list[str]) -> dict:
    parser = argparse.ArgumentParser(prog="style_comparator.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("first", type=Path, help="an image or a folder")
    parser.add_argument("second", type=Path, help="an image or a folder")
    parser.add_argument("--weights", required=True, help="a .pth that train.py wrote")
    parser.add_argument("--output", type=Path, default=Path("style_matrix.png"), help="picture of a folder comparison")
    parser.add_argument("--top", type=int, default=10, help="rows to print of a ranked folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    args = parser.parse_args(argv)

    device = choose_device(args.device)
    encoder, content = load_encoder(args.weights, device)
    statistics = content.get("validation", {})
    if args.first.is_dir() and args.second.is_dir():
        result, text = compare_folders(args.first, args.second, encoder, device, args.output)
    elif args.first.is_dir() or args.second.is_dir():
        image, folder = (args.second, args.first) if args.first.is_dir() else (args.first, args.second)
        result, text = rank_folder(image, folder, encoder, statistics, device, args.top)
    else:
        result, text = compare_images(args.first, args.second, encoder, statistics, device)
    print(json.dumps(result, ensure_ascii=False) if args.json else text)
    return result


if __name__ == "__main__":
    run_script(main)
