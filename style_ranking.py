"""Ranking of styles, each given by a few reference images: style_comparator.py new.png style_a/ style_b/ ...

image or folder of images, K folders -> similarity and probability of each style, and of none of them
"""

from pathlib import Path
from typing import Any

import torch

from common.cli.errors import printable
from few_shot import PROBE_MIN_IMAGES, fit_probe, leave_one_out_accuracy, prototype_similarity
from model import VisionStyleEncoder
from style_bank import NONE_PRIOR, calibration_notes, style_probabilities, verdict
from style_encoder import encode_folder, encode_images

NONE = "none of these"


def rank_styles(
    query: Path, folders: list[Path], encoder: VisionStyleEncoder, statistics: dict, top: int, with_probe: bool
) -> tuple[dict, str]:
    """query: an image or a folder of them; folders: one style each, an image is a style of one -> result, report."""
    queries, vectors = encode_path(query, encoder)
    paths, references, style_ids = encode_styles(folders, encoder)
    names, sizes = name_styles(folders), torch.bincount(style_ids).tolist()
    own = same_images(queries, paths)
    similarity, counts = prototype_similarity(vectors, references, style_ids, own)
    if not counts.all():
        query_row, style = (counts == 0).nonzero()[0].tolist()
        raise ValueError(
            f"{queries[query_row]}: is the only reference of '{names[style]}'; add other images of that style"
        )
    columns = {"similarity": similarity.clamp(-1, 1)}
    if "calibration" in statistics:
        columns["probability"] = style_probabilities(similarity, counts, statistics["calibration"])
    accuracy = {"prototypes": leave_one_out_accuracy(references, style_ids)}
    if with_probe:
        kept = torch.ones(len(paths), dtype=torch.bool)
        kept[own[own >= 0]] = False  # a query that is a reference does not vote for itself
        check_probe_images(names, style_ids[kept])
        probe, accuracy["probe"] = fit_probe(references[kept], style_ids[kept])
        columns["probe"] = torch.from_numpy(probe.predict_proba(vectors.numpy()))
    result = {
        "styles": [{"style": name, "folder": str(f), "images": n} for name, f, n in zip(names, folders, sizes)],
        "queries": [rank_one(row, str(path), names, columns) for row, path in enumerate(queries)],
        "accuracy": accuracy,
    }
    return result, report(result, query, statistics, vectors, top)


def encode_path(path: Path, encoder: VisionStyleEncoder) -> tuple[list[Path], torch.Tensor]:
    """An image, or a folder of them -> paths, style (N, S)."""
    return encode_folder(path, encoder) if path.is_dir() else ([path], encode_images([path], encoder))


def encode_styles(folders: list[Path], encoder: VisionStyleEncoder) -> tuple[list[Path], torch.Tensor, torch.Tensor]:
    """-> paths, style (N, S), style_ids (N,); an image in two of the folders is an error."""
    paths: list[Path] = []
    vectors, style_ids = [], []
    owners: dict[Path, int] = {}
    for style, folder in enumerate(folders):
        found, style_vectors = encode_path(folder, encoder)
        for path in found:
            if (owner := owners.setdefault(path.resolve(), style)) != style:
                raise ValueError(f"{path}: is in both {folders[owner]} and {folder}; give each style once")
        paths += found
        vectors.append(style_vectors)
        style_ids += [style] * len(found)
    return paths, torch.cat(vectors), torch.tensor(style_ids)


def same_images(queries: list[Path], paths: list[Path]) -> torch.Tensor:
    """-> (Q,), the position of each query among the paths, -1 for none."""
    positions = {path.resolve(): index for index, path in enumerate(paths)}
    return torch.tensor([positions.get(path.resolve(), -1) for path in queries])


def name_styles(folders: list[Path]) -> list[str]:
    """Names of folders; whole paths where two names are equal."""
    names = [folder.resolve().name for folder in folders]
    return [str(folder) if names.count(name) > 1 else name for name, folder in zip(names, folders)]


def check_probe_images(names: list[str], style_ids: torch.Tensor) -> None:
    counts = torch.bincount(style_ids, minlength=len(names)).tolist()
    fewest, name = min(zip(counts, names))
    if fewest < PROBE_MIN_IMAGES:
        raise ValueError(
            f"--probe: {name} has {fewest} reference image(s); a linear probe needs {PROBE_MIN_IMAGES} of each style, "
            "other than the images to classify"
        )


def rank_one(row: int, image: str, names: list[str], columns: dict[str, torch.Tensor]) -> dict[str, Any]:
    """One image's styles, the best first; columns: (Q, K), 'probability' (Q, K + 1)."""
    by = "probability" if "probability" in columns else "similarity"
    styles: list[dict[str, Any]] = [
        {"style": name, **{column: float(values[row, style]) for column, values in columns.items()}}
        for style, name in enumerate(names)
    ]
    styles.sort(key=lambda style: -style[by])
    answer = {"image": image, "best": styles[0]["style"]}
    if by == "probability":
        answer["none"] = float(columns[by][row, -1])
        answer["best"] = NONE if answer["none"] > styles[0][by] else answer["best"]
    return {**answer, "styles": styles}


def report(result: dict, query: Path, statistics: dict, vectors: torch.Tensor, top: int) -> str:
    queries, styles, accuracy = result["queries"], result["styles"], result["accuracy"]
    images = printable(query) if len(queries) == 1 else f"{len(queries)} images of {printable(query)}"
    lines = [f"{images} among {len(styles)} styles, each the mean of its images:"]
    lines += table_of_one(queries[0], styles, top) if len(queries) == 1 else tables_of_many(queries, styles, top)
    lines.append("")
    for name, what in (("prototypes", "each left out in turn"), ("probe", "by the linear probe, cross-validated")):
        if accuracy.get(name) is not None:
            lines.append(f"accuracy on the references, {what}: {percent(accuracy[name])}")
    if "calibration" in statistics:
        lines.append(f"'{NONE}' has a prior of {100 * NONE_PRIOR:.0f} %, the styles share the rest equally")
        lines += calibration_notes(vectors, statistics)
    return "\n".join(lines)


def table_of_one(answer: dict, styles: list[dict], top: int) -> list[str]:
    sizes = {style["style"]: style["images"] for style in styles}
    columns = [column for column in ("probability", "probe", "similarity") if column in answer["styles"][0]]
    rows = []
    for row in answer["styles"][:top]:
        scores = [f"{row[name]:.4f}" if name == "similarity" else percent(row[name]) for name in columns]
        rows.append([*scores, str(sizes[row["style"]]), row["style"]])
    if "none" in answer:
        place = sum(row["probability"] >= answer["none"] for row in answer["styles"][:top])
        rows.insert(place, [percent(answer["none"]), *[""] * len(columns), NONE])
    lines = [*align([*columns, "images", "style"], rows), *hidden_rows(len(styles), top)]
    if "none" in answer:
        answers = {row["style"]: row["probability"] for row in answer["styles"]}
        lines.append(verdict(answers | {NONE: answer["none"]}))
    return lines


def tables_of_many(queries: list[dict], styles: list[dict], top: int) -> list[str]:
    """The best style of each image, then each style's share of the images."""
    by = "probability" if "none" in queries[0] else "similarity"
    scores = [
        {row["style"]: row[by] for row in query["styles"]} | ({NONE: query["none"]} if "none" in query else {})
        for query in queries
    ]
    show = percent if by == "probability" else "{:.4f}".format
    best = [query["best"] for query in queries]
    images = [[show(score[name]), name, query["image"]] for score, name, query in zip(scores, best, queries)]
    shares = [
        [f"{best.count(name)} of {len(best)}", show(sum(score[name] for score in scores) / len(scores)), name]
        for name in sorted(scores[0], key=lambda name: (-best.count(name), -sum(score[name] for score in scores)))
    ]
    return [
        *align([by, "best style", "image"], images[:top]),
        *hidden_rows(len(images), top),
        "",
        *align(["best for", f"mean {by}", "style"], shares[:top]),
        *hidden_rows(len(shares), top),
    ]


def align(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: names of styles and images to the left, numbers to the right."""
    rows = [list(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    words = [name in ("style", "best style", "image") for name in header]
    return [
        (
            "  " + "  ".join(f"{cell:{'<' if word else '>'}{width}}" for cell, width, word in zip(row, widths, words))
        ).rstrip()
        for row in (header, *rows)
    ]


def hidden_rows(count: int, top: int) -> list[str]:
    return [f"  {count - top} more; --top {count} shows all"] if count > top else []


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
