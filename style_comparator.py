"""Compare the styles of two images or folders.

    python style_comparator.py a.png b.png --weights checkpoints/best.pth       one number in [-1, 1]
    python style_comparator.py a.png folder/ --weights ...                      a folder, ranked by similarity to a.png
    python style_comparator.py folder_a/ folder_b/ --weights ...                every pair, and a plot of the matrix

Cosines of different models cannot be compared. Where the weights carry validation statistics, the score comes with the
percentage of pairs of different styles below it, and with the CSLS score, which corrects for images that are similar to
all others.
"""

from json import dumps
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from matplotlib.figure import Figure

from common.cli.errors import run_script
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.images.io import list_images
from common.metrics.embedding import csls
from common.training.device import choose_device
from common.training.plots import save_figure
from model import VisionStyleEncoder
from style_encoder import load_encoder, read_image

MATRIX_IMAGES = 40  # more images on a side are plotted as the mean of each folder


@tool
def main(
    first: Path,  # an image or a folder
    second: Path,  # an image or a folder
    *,
    weights: str,  # a .pth written by train.py
    output: Path = Path("style_matrix.png"),  # plot of a folder comparison
    top: PositiveInt = 10,  # rows to print of a ranked folder
    device: str = "auto",
    json: bool = False,
) -> dict[str, Any]:
    torch_device = choose_device(device)
    encoder, content = load_encoder(weights, torch_device)
    statistics = content.get("validation", {})
    if first.is_dir() and second.is_dir():
        result, text = compare_folders(first, second, encoder, torch_device, output)
    elif first.is_dir() or second.is_dir():
        image, folder = (second, first) if first.is_dir() else (first, second)
        result, text = rank_folder(image, folder, encoder, statistics, torch_device, top)
    else:
        result, text = compare_images(first, second, encoder, statistics, torch_device)
    print(dumps(result, ensure_ascii=False) if json else text)
    return result


def compare_images(
    first: Path, second: Path, encoder: VisionStyleEncoder, statistics: dict, device: torch.device
) -> tuple[dict, str]:
    """-> result, report. statistics: those of the weights' validation, {} for none."""
    vectors = encode_files([first, second], encoder, device)
    result = compare(vectors[:1], vectors[1:], statistics)[0]
    text = f"style similarity: {result['similarity']:.4f}   (from -1, unlike, to 1, alike)"
    if statistics:
        text += (
            f"\n  higher than {result['other_style_percentile']:.1f} % of validation pairs of different styles"
            f"\n  CSLS, corrected for images that are similar to all others: {result['csls']:.4f}"
        )
    return result, text


def rank_folder(
    image: Path, folder: Path, encoder: VisionStyleEncoder, statistics: dict, device: torch.device, top: int
) -> tuple[dict, str]:
    """Images of a folder by their similarity to one image -> result, report."""
    paths = list_images(folder)
    vectors = encode_files([image, *paths], encoder, device)
    scores = compare(vectors[:1].expand(len(paths), -1), vectors[1:], statistics)
    rows: list[dict[str, Any]] = [{"image": str(path), **score} for path, score in zip(paths, scores)]
    ranked = sorted(rows, key=lambda row: -row["similarity"])
    mean = sum(row["similarity"] for row in ranked) / len(ranked)
    lines = [f"{len(ranked)} images in {folder}, mean style similarity {mean:.4f}; the most similar:"]
    for row in ranked[:top]:
        percentile = f"{row['other_style_percentile']:8.1f} %" if statistics else ""
        lines.append(f"{row['similarity']:8.4f}{percentile}  {row['image']}")
    return {"mean_similarity": mean, "ranked": ranked}, "\n".join(lines)


def compare_folders(
    first: Path, second: Path, encoder: VisionStyleEncoder, device: torch.device, output: Path
) -> tuple[dict, str]:
    """Every image of one folder with every image of another, plotted to `output` -> result, report."""
    folders = {folder: list_images(folder) for folder in (first, second)}
    rows, columns = (
        [str(path.relative_to(folder).with_suffix("")).removesuffix("_img") for path in folders[folder]]
        for folder in (first, second)
    )
    similarity = encode_files(folders[first], encoder, device) @ encode_files(folders[second], encoder, device).T
    mean, shape = float(similarity.mean()), f"{len(rows)} x {len(columns)}"
    if max(similarity.shape) > MATRIX_IMAGES:
        groups = ([path.parent.name for path in folders[folder]] for folder in (first, second))
        similarity, rows, columns = group_means(similarity, *groups)
    plot_matrix(output, similarity, rows, columns)
    result = {"mean_similarity": mean, "rows": rows, "columns": columns, "similarity": similarity.tolist()}
    text = f"{shape} images, mean style similarity {mean:.4f}; the matrix is plotted in {output}"
    return {**result, "picture": str(output)}, text


@torch.inference_mode()
def encode_files(paths: list[Path], encoder: VisionStyleEncoder, device: torch.device) -> torch.Tensor:
    """-> style (N, S), unit length."""
    vectors = []
    for start in progress_bar(range(0, len(paths), 32), "encoding", quiet=len(paths) <= 32):
        images = torch.stack([read_image(path, encoder) for path in paths[start : start + 32]])
        vectors.append(encoder(images.to(device)).style.float().cpu())
    return torch.cat(vectors)


def compare(first: torch.Tensor, second: torch.Tensor, statistics: dict) -> list[dict[str, float]]:
    """Unit vectors (N, S) and (N, S), row by row -> similarity, and with statistics also percentile and CSLS.

    other_style_percentile: share of validation pairs of different styles with a lower similarity, 0..100.
    """
    similarity = (first * second).sum(1).clamp(-1, 1)
    columns = {"similarity": similarity}
    if statistics:
        quantiles, bank = statistics["other_style_quantiles"], statistics["bank"]
        below = (torch.searchsorted(quantiles, similarity) / (len(quantiles) - 1)).clamp(0, 1)
        columns |= {"other_style_percentile": 100 * below, "csls": csls(similarity, first @ bank.T, second @ bank.T)}
    return [dict(zip(columns, map(float, values))) for values in zip(*columns.values())]


def plot_matrix(path: Path, similarity: torch.Tensor, rows: list[str], columns: list[str]) -> None:
    """A heat map of similarities (R, C) with names and, where there is room, numbers."""
    height, width = 1.6 + 0.34 * len(rows), 3.2 + 0.42 * len(columns)
    figure = Figure(figsize=(max(width, 5), max(height, 3)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(similarity.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    if max(similarity.shape) <= 16:
        for row, values in enumerate(similarity.tolist()):
            for column, value in enumerate(values):
                colour = "white" if abs(value) > 0.6 else "black"
                axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, label="style similarity")
    save_figure(figure, path)


def group_means(
    similarity: torch.Tensor, rows: list[str], columns: list[str]
) -> tuple[torch.Tensor, list[str], list[str]]:
    """Mean similarity (R, C) of every pair of groups -> (groups, groups), their names; the pair of an image with itself
    does not count."""
    row_names, column_names = sorted(set(rows)), sorted(set(columns))
    in_row, in_column = (  # (groups, images), 1 = of this group
        torch.tensor([[float(group == name) for name in names] for group in groups])
        for names, groups in ((rows, row_names), (columns, column_names))
    )
    counted = (similarity < 1 - 1e-6).float()
    counts = in_row @ counted @ in_column.T
    means = in_row @ (similarity * counted) @ in_column.T / counts
    return means.where(counts > 0, 1.0), row_names, column_names


if __name__ == "__main__":
    run_script(main)
