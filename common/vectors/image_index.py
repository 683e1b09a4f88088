"""Which images of a folder are nearest to a vector?

folder -> images not yet known -> encode -> <folder>/.image_index/<model>.npy (N, D) and .json -> FAISS, exact
query vectors (Q, D) -> scores (Q, k), paths

A second call encodes only what is new or changed (path, size or time of a file) and forgets what was deleted. Files are
named by the model's weights, so vectors of two models never meet, and paths are relative, so a folder can be moved.
"""

import hashlib
import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from common.images.io import list_images, open_image
from common.text.files import write_atomically
from common.vectors.faiss_library import load_faiss

CACHE = ".image_index"  # hidden, so list_images does not look inside
SAVE_SECONDS = 300  # what a run that is killed loses at most


class Stamp(NamedTuple):
    """A file as it was when it was encoded."""

    name: str  # relative to the folder, with /
    size: int  # bytes
    changed: int  # nanoseconds


class ImageIndex:
    """`index.paths` and `index.vectors` (N, D) float32 in the order of their names; `skipped`: path -> reason.

    encode(images) -> (B, D) unit vectors of a list of PIL images. model_key: `key_of(model)`. cache_dir: where vectors
    are kept, a folder of its own for each image folder; None is inside the image folder.
    """

    def __init__(
        self,
        folder: str | Path,
        encode: Callable[[list[Image.Image]], torch.Tensor],
        model_key: str,
        cache_dir: str | Path | None = None,
        batch_size: int = 64,
        threads: int = 4,
        quiet: bool = False,
    ):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: {'a file' if self.folder.is_file() else 'no such folder'}; expected images"
            )
        self._file = Path(cache_dir or self.folder / CACHE) / f"{model_key}.npy"
        self.skipped: dict[Path, str] = {}
        stamps = [stamp_of(path, self.folder) for path in list_images(self.folder)]
        kept = self._read()
        known = {stamp: kept[stamp] for stamp in stamps if stamp in kept}
        self.encoded = 0  # images that this call had to look at
        try:
            self._complete(known, stamps, encode, batch_size, threads, quiet)
        finally:  # what was encoded before an interruption is kept too
            if known.keys() != kept.keys():
                self._write(known)
        if not known:
            raise ValueError(
                f"{self.folder}: none of its {len(stamps)} images can be read; {next(iter(self.skipped.values()))}"
            )
        self.paths = [self.folder / stamp.name for stamp in stamps if stamp in known]
        self.vectors = np.stack([known[stamp] for stamp in stamps if stamp in known])
        self._index = None

    def search(self, queries: torch.Tensor | np.ndarray, k: int) -> tuple[np.ndarray, list[list[Path]]]:
        """Unit vectors (Q, D) -> cosines (Q, k), highest first, and the images; fewer than k where there are fewer."""
        if self._index is None:
            self._index = load_faiss().IndexFlatIP(self.vectors.shape[1])
            self._index.add(self.vectors)
        queries = np.ascontiguousarray(torch.as_tensor(queries).detach().float().cpu().numpy())
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1]:
            raise ValueError(f"queries {queries.shape}: the index holds vectors of width {self.vectors.shape[1]}")
        scores, places = self._index.search(queries, min(k, len(self.paths)))
        return scores, [[self.paths[place] for place in row] for row in places]

    def _complete(self, known: dict, stamps: list[Stamp], encode: Callable, batch_size: int, threads: int, quiet: bool):
        """Add the vectors that `known` lacks to it."""
        missing = [stamp for stamp in stamps if stamp not in known]
        saved = time.monotonic()
        with (
            ThreadPoolExecutor(threads) as pool,  # Pillow decodes outside Python's lock
            tqdm(total=len(missing), desc="encoding", unit="img", leave=False, disable=quiet or not missing) as bar,
        ):
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                readable = [(stamp, image) for stamp, image in zip(batch, pool.map(self._decode, batch)) if image]
                if readable:
                    vectors = torch.as_tensor(encode([image for _, image in readable])).detach().float().cpu().numpy()
                    if not np.isfinite(vectors).all():
                        raise ValueError(f"{self.folder}: the model gives vectors that are not numbers (NaN)")
                    known |= {stamp: vector for (stamp, _), vector in zip(readable, vectors)}
                    self.encoded += len(readable)
                bar.update(len(batch))
                if time.monotonic() - saved > SAVE_SECONDS:
                    self._write(known)
                    saved = time.monotonic()

    def _decode(self, stamp: Stamp) -> Image.Image | None:
        try:
            return open_image(self.folder / stamp.name)
        except (ValueError, OSError) as error:
            self.skipped[self.folder / stamp.name] = str(error)
            return None

    def _read(self) -> dict[Stamp, np.ndarray]:
        """What an earlier call left; nothing where there is nothing, or where the two files are not of one moment."""
        try:
            said = json.loads(self._file.with_suffix(".json").read_text(encoding="utf-8"))
            data = self._file.read_bytes()
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        if said.get("vectors") != _digest(data):
            return {}
        return dict(zip((Stamp(*stamp) for stamp in said["files"]), np.load(io.BytesIO(data))))

    def _write(self, known: dict[Stamp, np.ndarray]) -> None:
        """Both files whole; the second names the first by its contents, so that a kill in between is noticed."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        np.save(data, np.stack(list(known.values())) if known else np.zeros((0, 0), np.float32))
        said = {"vectors": _digest(data.getvalue()), "files": [list(stamp) for stamp in known]}
        with write_atomically(self._file) as file:
            file.write(data.getvalue())
        with write_atomically(self._file.with_suffix(".json")) as file:
            file.write(json.dumps(said, ensure_ascii=False).encode())


def key_of(model: nn.Module, *more: object) -> str:
    """A name for exactly these weights and buffers, and for what else shapes a vector (`more`, such as image size)."""
    digest = hashlib.blake2b(repr(more).encode(), digest_size=12)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def stamp_of(path: Path, folder: Path) -> Stamp:
    """The file as it is now."""
    found = path.stat()
    return Stamp(path.relative_to(folder).as_posix(), found.st_size, found.st_mtime_ns)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()
