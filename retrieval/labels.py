"""Which class is each image of?

paths -> the folder that it lies in, or a table of paths and classes -> names (N,)
"""

import csv
import os
from pathlib import Path

from common.vectors.shards import Features

PATH_NAMES = ("path", "image", "image_path", "file", "file_name")
LABEL_NAMES = ("label", "class", "category")


def read_labels(features: Features, table: Path | None = None) -> list[str]:
    """One name for each image. table: .csv or .tsv, its paths relative to the --image_dir of the features."""
    root = features.facts.get("image_dir", "")
    relative = [os.path.relpath(path, root) if root else path for path in features.paths]
    if table is None:
        labels = [Path(path).parent.name for path in relative]
        for path, label in zip(features.paths, labels):
            if not label:
                raise ValueError(f"{path}: lies in no class folder below {root or '.'}; give a table of classes")
        return labels
    known = read_table(table)
    found = [
        known.get(os.path.normpath(name), known.get(os.path.normpath(path)))
        for name, path in zip(relative, features.paths)
    ]
    missing = [path for path, label in zip(relative, found) if label is None]
    if missing:
        raise ValueError(f"{table}: no class for {len(missing)} of {len(found)} images, the first: {missing[0]}")
    return found


def read_table(file: Path) -> dict[str, str]:
    """Path -> class. With a line of names (path, label, ...) by name, else the first two columns."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such table of classes")
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = [row for row in csv.reader(lines, delimiter="\t" if file.suffix == ".tsv" else ",") if row]
    if not rows or len(rows[0]) < 2:
        raise ValueError(
            f"{file}: expected two columns, path and class" + (" (a .tsv is split at tabs)" if rows else "")
        )
    first = [name.strip().lower() for name in rows[0]]
    path_column = next((first.index(name) for name in PATH_NAMES if name in first), None)
    label_column = next((first.index(name) for name in LABEL_NAMES if name in first), None)
    if path_column is None or label_column is None:
        path_column, label_column, start = 0, 1, 0
    else:
        start = 1
    short = next((row for row in rows if len(row) <= max(path_column, label_column)), None)
    if short:
        raise ValueError(f"{file}: '{','.join(short)}' has fewer columns than the first line")
    return {os.path.normpath(row[path_column]): row[label_column] for row in rows[start:]}
