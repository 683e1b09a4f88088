"""Image vectors in the layouts of this project and of others.

features.npz                      features (N, D), image_paths (N,)
folder/metadata.json              shards of extract_features.py
vectors.npy, vectors.txt          and the paths of its rows: a line each, or .json: a list, .npy: an array
folder/img_emb/img_emb_0.npy      clip-retrieval, with metadata/metadata_0.parquet: a column of paths
folder/*.npy, *.parquet           the same in one folder, as embedding-reader takes it
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from common.images.folders import first_skipped
from common.models.checkpoint_file import refuse_zip_bomb
from common.text.files import parse_json, read_lines, refuse_lfs_pointer
from common.text.schema import check_type, read_checked
from common.vectors.feature_set import FeatureSet, as_vectors, map_array
from common.vectors.shards import Metadata, read_folder

PATH_COLUMNS = ("image_path", "path", "filepath", "file_name", "filename", "image", "url", "key")


def read_features(path: str | Path) -> FeatureSet:
    """A file or folder in any of the layouts above; every part has the same width, and every row a path."""
    path = Path(path)
    if path.is_dir():
        features = read_folder(path) if (path / "metadata.json").exists() else _read_arrays(path)
    elif not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder of features")
    else:
        refuse_lfs_pointer(path)
        features = _read_npy(path) if path.suffix == ".npy" else _read_npz(path)
    if not len(features):
        raise ValueError(f"{path}: holds no vectors; none of its images could be read{first_skipped(features.skipped)}")
    widths = {part.shape[1]: source for part, source in zip(features.parts, features.sources)}
    if len(widths) > 1:
        raise ValueError(f"{path}: " + ", but ".join(f"width {width} in {name}" for width, name in widths.items()))
    return features


def _read_npz(path: Path) -> FeatureSet:
    refuse_zip_bomb(path)
    try:
        with np.load(path) as file:
            names = list(file)
            content = {name: file[name] for name in ("features", "image_paths", "digests", "metadata") if name in names}
    except Exception as error:  # zipfile and numpy raise any kind for broken bytes
        raise ValueError(f"{path}: cannot be read as .npz ({_reason(error)})") from None
    if "features" not in content or "image_paths" not in content:
        raise ValueError(f"{path}: expected features (N, D) and image_paths (N,), found {', '.join(names)[:200]}")
    vectors = as_vectors(content["features"], path)
    paths = _texts(content["image_paths"], len(vectors), f"{path}: image_paths")
    digests = content.get("digests")
    try:
        metadata: Any = parse_json(str(content.get("metadata", "{}")))
    except ValueError as error:
        raise ValueError(f"{path}: metadata: {error}") from None
    if digests is not None and digests.shape != (len(paths),):
        raise ValueError(f"{path}: digests of shape {digests.shape} for {len(paths):,} vectors")
    return FeatureSet(
        [vectors],
        paths,
        digests=[""] * len(paths) if digests is None else list(map(str, digests.ravel())),
        metadata=dict(check_type(metadata, Metadata, f"{path}: metadata")),
        sources=[path],
    )


def _read_npy(path: Path) -> FeatureSet:
    vectors = as_vectors(map_array(path), path)
    return FeatureSet([vectors], paths := _paths_of(path, len(vectors)), [""] * len(paths), sources=[path])


def _read_arrays(folder: Path) -> FeatureSet:
    """Arrays in the order of the numbers in their names, as their tables of paths are."""
    arrays, tables = folder / "img_emb", folder / "metadata"
    arrays = arrays if arrays.is_dir() else folder
    if not tables.is_dir():
        tables = arrays.parent / "metadata" if (arrays.parent / "metadata").is_dir() else arrays
    files, lists = _numbered(arrays, ".npy"), _numbered(tables, ".parquet")
    if not files:
        raise ValueError(
            f"{folder}: no features; expected metadata.json of extract_features.py, .npy files, or img_emb/ and "
            "metadata/ of clip-retrieval"
        )
    if lists and len(lists) != len(files):
        raise ValueError(f"{folder}: {len(files)} .npy files, but {len(lists)} tables of their paths (.parquet)")
    for file, table in zip(files, lists):
        own, other = (re.search(r"\d+$", path.stem) for path in (file, table))
        if own and other and int(own[0]) != int(other[0]):
            raise ValueError(f"{folder}: {file.name} has no table of its number; the next is {table.name}")
    parts = [as_vectors(map_array(file), file) for file in files]
    paths: list[str] = []
    for number, (file, part) in enumerate(zip(files, parts)):
        paths += _read_table(lists[number], len(part)) if lists else _paths_of(file, len(part))
    return FeatureSet(parts, paths, [""] * len(paths), sources=files)


def _paths_of(array: Path, count: int) -> list[str]:
    """Paths of the rows of an array, from the file of its name, or named paths or image_paths, next to it."""
    names = [f"{array.stem}{ending}" for ending in ("", "_paths", ".paths")] + ["image_paths", "paths"]
    candidates = [array.with_name(f"{name}{suffix}") for name in names for suffix in (".txt", ".json", ".npy")]
    path = next((path for path in candidates if path.is_file() and path != array), None)
    if path is None:
        raise ValueError(
            f"{array}: which images its {count:,} rows are is not known; list them in {candidates[0].name}"
        )
    if path.suffix == ".txt":
        return _texts(read_lines(path), count, path)
    if path.suffix == ".json":
        return _texts(read_checked(path, list[str]), count, path)
    return _texts(map_array(path), count, path)


def _read_table(path: Path, count: int) -> list[str]:
    """The column of paths of a Parquet file."""
    from pyarrow import ArrowException, parquet  # slow to import

    try:
        columns = parquet.read_schema(path).names
        column = next((name for name in PATH_COLUMNS if name in columns), None)
        values = parquet.read_table(path, columns=[column])[column].to_pylist() if column else []
    except (ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as Parquet ({_reason(error)})") from None
    if column is None:
        raise ValueError(f"{path}: columns {', '.join(columns)[:200]}; expected one of {', '.join(PATH_COLUMNS)}")
    return _texts(values, count, path)


def _texts(values: Any, count: int, source: object) -> list[str]:
    """One text for each row."""
    if isinstance(values, np.ndarray):
        values = values.tolist() if values.dtype.kind == "U" and values.ndim == 1 else None
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise ValueError(f"{source}: expected a text for each row")
    if len(values) != count:
        raise ValueError(f"{source}: {len(values):,} for {count:,} vectors")
    return values


def _numbered(folder: Path, suffix: str) -> list[Path]:
    def numbers(path: Path) -> list[int | str]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]

    return sorted((path for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")), key=numbers)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
