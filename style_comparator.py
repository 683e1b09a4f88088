"""Compare the styles of images and folders.

    python style_comparator.py a.png b.png --weights checkpoints/best.pth       one number in [-1, 1]
    python style_comparator.py a.png folder/ --weights ...                      a folder, ranked by similarity to a.png
    python style_comparator.py folder_a/ folder_b/ --weights ...                every pair, and a plot of the matrix
    python style_comparator.py new.png style_a/ style_b/ ... --weights ...      styles, ranked by similarity to new.png
    python style_comparator.py a.png --names "pixel art" woodcut --weights ...  names, ranked by how well they fit

The fourth takes a folder of new images, too. A style is the mean of its images: nothing is trained, and ten are enough.

Cosines of different models cannot be compared. Where the weights carry validation statistics, the score comes with a
calibrated probability, the percentages of validation pairs below it, and the CSLS score, which corrects for images that
are similar to all others.
"""

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Any

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from jsonargparse.typing import PositiveInt
from matplotlib.figure import Figure

from common.cli.errors import printable, run_script
from common.cli.tool_parser import tool
from common.metrics.embedding import csls
from common.training.device import choose_device
from common.training.plots import readable, save_figure
from few_shot import prototype_similarity
from model import VisionStyleEncoder
from style_bank import calibration_notes, percentile, style_probabilities, verdict
from style_encoder import encode_folder, encode_images, load_encoder
from style_names import rank_names
from style_ranking import hidden_rows, percent, rank_styles, same_images

LABEL_LETTERS, LEGIBLE = 40, 16  # of an image's name in the plot; rows and columns of a matrix with its numbers
MATRIX_IMAGES = 40  # of more images on a side the mean of each subfolder is plotted, or so many of a folder without


@tool
def main(
    paths: list[Path],  # an image or a folder, and one or more images or folders to compare it with
    *,
    weights: str,  # a .pth written by train.py
    names: Sequence[str] = (),  # of styles, in place of images to compare with
    output: Path = Path("style_matrix.png"),  # plot of the comparison of two folders
    top: PositiveInt = 10,  # rows to print of each ranking
    probe: bool = False,  # fit a linear probe on the images of two or more styles, too
    device: str = "auto",
    json: bool = False,
) -> dict[str, Any]:
    if names and (len(paths) > 1 or not all(name.strip() for name in names)):
        raise ValueError("--names: ranks names of styles, none of them empty, for one image or folder")
    if len(paths) < 2 and not names:
        raise ValueError(f"{paths[0]}: nothing to compare it with; give a second image or folder, or --names")
    if probe and len(paths) < 3:
        raise ValueError("--probe tells styles apart; give what to rank, then two or more folders of one style each")
    encoder, content = load_encoder(weights, choose_device(device))
    statistics = content.get("validation", {})
    first, second = paths[0], paths[-1]
    if names:
        result, text = rank_names(first, names, encoder, content, top)
    elif len(paths) > 2:
        result, text = rank_styles(first, paths[1:], encoder, statistics, top, probe)
    elif first.is_dir() and second.is_dir():
        result, text = compare_folders(first, second, encoder, statistics, output)
    elif first.is_dir() or second.is_dir():
        image, folder = (second, first) if first.is_dir() else (first, second)
        result, text = rank_folder(image, folder, encoder, statistics, top)
    else:
        result, text = compare_images(first, second, encoder, statistics)
    print(dumps(result, ensure_ascii=False) if json else text)
    return result


def compare_images(first: Path, second: Path, encoder: VisionStyleEncoder, statistics: dict) -> tuple[dict, str]:
    """-> result, report. statistics: those of the weights' validation, {} for none."""
    vectors = encode_images([first, second], encoder)
    result = compare(vectors[:1], vectors[1:], statistics)[0]
    lines = [f"style similarity: {result['similarity']:.4f}   (from -1 to 1; higher: more alike)"]
    if "probability" in result:
        probability = result["probability"]
        words = verdict({"one style": probability, "different styles": 1 - probability})
        lines += [
            f"  {words}: probability of one style {percent(probability)} (prior 50 %)",
            f"  higher than {result['same_style_percentile']:.1f} % of validation pairs of one style",
        ]
    if statistics:
        lines += [
            f"  higher than {result['other_style_percentile']:.1f} % of validation pairs of different styles",
            f"  CSLS, corrected for images that are similar to all others: {result['csls']:.4f}",
        ]
    if "probability" in result:
        lines += [f"  {note}" for note in calibration_notes(vectors, statistics)]
    return result, "\n".join(lines)


def rank_folder(image: Path, folder: Path, encoder: VisionStyleEncoder, statistics: dict, top: int) -> tuple[dict, str]:
    """Images of a folder by their similarity to one image -> result, report."""
    vector = encode_images([image], encoder)
    paths, vectors = encode_folder(folder, encoder)
    scores = compare(vector.expand(len(paths), -1), vectors, statistics)
    rows: list[dict[str, Any]] = [{"image": str(path), **score} for path, score in zip(paths, scores)]
    ranked = sorted(rows, key=lambda row: -row["similarity"])
    mean = sum(row["similarity"] for row in ranked) / len(ranked)
    lines = [f"{len(ranked)} images in {printable(folder)}, mean style similarity {mean:.4f}; the most similar:"]
    for row in ranked[:top]:
        probability = f"{percent(row['probability']):>9}" if "probability" in row else ""
        lines.append(f"{row['similarity']:8.4f}{probability}  {printable(row['image'])}")
    lines += hidden_rows(len(ranked), top)
    result = {"mean_similarity": mean, "ranked": ranked}
    if "calibration" in statistics:
        lines += ["percentages: probability of one style (prior 50 %)"]
        if len({path.parent for path in paths}) == 1:
            result["probability"] = float(folder_probabilities([image], vector, paths, vectors, statistics))
            lines.append(f"probability of the style of the whole folder: {percent(result['probability'])}")
        else:
            lines.append(
                f"to rank whole styles: style_comparator.py {printable(image)} {printable(folder)}/*/ --weights ..."
            )
        lines += calibration_notes(torch.cat([vector, vectors]), statistics)
    return result, "\n".join(lines)


def compare_folders(
    first: Path, second: Path, encoder: VisionStyleEncoder, statistics: dict, output: Path
) -> tuple[dict, str]:
    """Every image of one folder with every image of another, plotted to `output` -> result, report."""
    (first_paths, first_vectors), (second_paths, second_vectors) = (
        encode_folder(folder, encoder) for folder in (first, second)
    )
    similarity = first_vectors @ second_vectors.T
    mean, shape = float(similarity.mean()), f"{len(first_paths)} x {len(second_paths)}"
    (row_of, in_rows), (column_of, in_columns) = matrix_side(first, first_paths), matrix_side(second, second_paths)
    similarity, rows, columns = group_means(similarity[in_rows][:, in_columns], row_of, column_of)
    plot_matrix(output, similarity, rows, columns, first.resolve().name, second.resolve().name)
    result = {"mean_similarity": mean, "rows": rows, "columns": columns, "similarity": similarity.tolist()}
    lines = [f"{shape} images, mean style similarity {mean:.4f}; the matrix is plotted in {output}"]
    if (len(in_rows), len(in_columns)) != (len(first_paths), len(second_paths)):
        lines.append(f"it shows {len(in_rows)} x {len(in_columns)} of them, evenly spaced")
    if "calibration" in statistics:
        probability = folder_probabilities(first_paths, first_vectors, second_paths, second_vectors, statistics).mean()
        result["probability"] = float(probability)
        lines.append(f"probability that an image of {printable(first)} is of the style of {printable(second)}:")
        lines.append(f"{percent(float(probability))} on average (prior 50 %)")
        lines += calibration_notes(torch.cat([first_vectors, second_vectors]), statistics)
    return {**result, "picture": str(output)}, "\n".join(lines)


def folder_probabilities(
    queries: list[Path], vectors: torch.Tensor, paths: list[Path], references: torch.Tensor, statistics: dict
) -> torch.Tensor:
    """Queries (Q, S), the references (N, S) of one style -> (Q,), probability that the query is of that style."""
    style_ids = torch.zeros(len(paths), dtype=torch.long)
    similarity, counts = prototype_similarity(vectors, references, style_ids, same_images(queries, paths))
    return style_probabilities(similarity, counts, statistics["calibration"])[:, 0]


def compare(first: torch.Tensor, second: torch.Tensor, statistics: dict) -> list[dict[str, float]]:
    """Unit vectors (N, S) and (N, S), row by row -> similarity, and with statistics percentiles, CSLS and probability.

    other_style_percentile, same_style_percentile: share of validation pairs of different styles and of one style with a
    lower similarity, 0..100. probability: of one style, 0..1, prior 0.5.
    """
    similarity = (first * second).sum(1).clamp(-1, 1)
    columns = {"similarity": similarity}
    if statistics:
        bank = statistics["bank"]
        columns["other_style_percentile"] = percentile(similarity, statistics["other_style_quantiles"])
        columns["csls"] = csls(similarity, first @ bank.T, second @ bank.T)
    if "calibration" in statistics:
        columns["same_style_percentile"] = percentile(similarity, statistics["same_style_quantiles"])
        pairs = similarity[:, None]
        columns["probability"] = style_probabilities(pairs, torch.ones_like(pairs), statistics["calibration"])[:, 0]
    return [dict(zip(columns, map(float, values))) for values in zip(*columns.values())]


@readable
def plot_matrix(
    path: Path, similarity: torch.Tensor, rows: list[str], columns: list[str], row_label: str, column_label: str
) -> None:
    """A heat map of similarities (R, C) with names and, where there is room, numbers."""
    font = 11 if max(similarity.shape) <= LEGIBLE else 8  # a large matrix is for a large screen
    height, width = 1.8 + 0.033 * font * len(rows), 2.4 + 0.042 * font * len(columns)
    figure = Figure(figsize=(max(width, 5), max(height, 3.4)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(similarity.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
    # File names are no formulas: $ is a letter in them.
    axis.set_xticks(range(len(columns)), map(_label, columns), rotation=60, ha="right", fontsize=font, parse_math=False)
    axis.set_yticks(range(len(rows)), map(_label, rows), fontsize=font, parse_math=False)
    axis.set_xlabel(printable(column_label), parse_math=False)
    axis.set_ylabel(printable(row_label), parse_math=False)
    if max(similarity.shape) <= LEGIBLE:
        for row, values in enumerate(similarity.tolist()):
            for column, value in enumerate(values):
                colour = "white" if abs(value) > 0.6 else "black"
                axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=font - 2, color=colour)
    figure.colorbar(image, label="style similarity")
    save_figure(figure, path)


def _label(name: str) -> str:
    """A name, or the end of a long one, which would leave the plot no room."""
    text = printable(name)
    return text if len(text) <= LABEL_LETTERS else f"…{text[1 - LABEL_LETTERS :]}"


def matrix_side(folder: Path, paths: list[Path]) -> tuple[list[str], list[int]]:
    """-> what is averaged on one side of the matrix, and the images shown: of few each is shown alone, of many the mean
    of each subfolder, and where there is none every nth image."""
    subfolders = [path.parent.name for path in paths]
    if len(paths) > MATRIX_IMAGES and len(set(subfolders)) > 1:
        return subfolders, list(range(len(paths)))
    shown = min(len(paths), MATRIX_IMAGES)
    indices = [number * len(paths) // shown for number in range(shown)]
    names = [str(paths[index].relative_to(folder).with_suffix("")).removesuffix("_img") for index in indices]
    return names, indices


def group_means(
    similarity: torch.Tensor, rows: list[str], columns: list[str]
) -> tuple[torch.Tensor, list[str], list[str]]:
    """Mean similarity (R, C) of every pair of groups -> (groups, groups), their names; the pair of an image with itself
    does not count."""
    row_names, column_names = list(dict.fromkeys(rows)), list(dict.fromkeys(columns))
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
