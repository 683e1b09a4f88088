"""Class labels of images: the folder that each lies in, or a table of paths and classes.

paths -> names (N,)
"""

import os
from pathlib import Path

from common.text.tables import read_rows
from common.vectors.shards import FeatureSet

PATH_NAMES = ("path", "image", "image_path", "file", "file_name")
LABEL_NAMES = ("label", "class", "category")


def read_labels(features: FeatureSet, table: Path | None = None) -> list[str]:
    """One name for each image. table: .csv or .tsv, its paths relative to the --image_dir of the features."""
    root = features.metadata.get("image_dir", "")
    relative = [os.path.relpath(path, root) if root else path for path in features.paths]
    if table is None:
        labels = [Path(path).parent.name for path in relative]
        if "" in labels:
            path = features.paths[labels.index("")]
            raise ValueError(f"{path}: lies in no class folder below {root or '.'}; give a table of classes")
        return labels
    classes = read_table(table)
    keys = [[os.path.normpath(name) for name in names] for names in zip(relative, features.paths)]
    labels = [classes.get(key, classes.get(whole)) for key, whole in keys]
    if None in labels:
        first = relative[labels.index(None)]
        raise ValueError(f"{table}: no class for {labels.count(None)} of {len(labels)} images, the first: {first}")
    return labels


def read_table(file: Path) -> dict[str, str]:
    """Path -> class: columns by name if there is a header (path, label, ...), else the first two."""
    rows = [cells for _, cells in read_rows(file, "--query_labels, --gallery_labels")]
    if not rows or len(rows[0]) < 2:
        hint = " (a .tsv is split at tabs)" if rows else ""
        raise ValueError(f"{file}: expected two columns, path and class{hint}")
    header = [name.strip().lower() for name in rows[0]]
    named = [[header.index(name) for name in names if name in header] for names in (PATH_NAMES, LABEL_NAMES)]
    path, label = (columns[0] for columns in named) if all(named) else (0, 1)
    for row in rows:
        if len(row) <= max(path, label):
            raise ValueError(f"{file}: '{','.join(row)}' has fewer columns than the first line")
    return {os.path.normpath(row[path]): row[label] for row in rows[1 if all(named) else 0 :]}
