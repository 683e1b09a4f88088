"""Dataset of the style encoder.

data/<style>/<name>_img.png (or jpg, jpeg, webp, bmp)        the folder is the style, the name is the content;
data/<style>/**/<name>.png                                   where no name ends in _img
data/<style>/<name>_embed.pt (L, D)  _pooled.pt (P,)  _mask.pt (L,)      outputs of a text encoder; any may be missing

drawn (styles, per style, S, S, 3) of common/samples/invented.py are further styles, numbered behind the samples

-> image (B, 3, S, S) uint8, style_ids (B,), embed (B, L, D), mask (B, L), pooled (B, P), has_embed/pooled/mask (B,)

Equal names in two folders mean the same content in two styles. That is not required, but where it holds the split
keeps a content on one side and batches show the same contents in several styles.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from common.images.cache import ImageCache
from common.images.folders import IMAGE_SUFFIXES, first_skipped, walk_folders
from common.images.transforms import Augmentation, SampleKey, square
from common.training.skip_log import SkipLog
from common.training.skipping_dataset import SkippingDataset
from sample_table import MARK, Sample, SampleTable
from targets import TARGETS, TargetShapes, check_target_shapes, load_target

__all__ = ["Sample", "SampleTable", "StyleDataset", "find_samples", "split_samples"]


def find_samples(data_dir: str | Path, ignore_targets: Sequence[str] = ()) -> SampleTable:
    """Every <style>/<name>_img.* of a data folder, or where no name ends in _img, every image in and below its style
    folders; sorted by style, then name. `skipped` of the table: what cannot be read, and images that are not used."""
    root = Path(data_dir)
    if unknown := set(ignore_targets) - set(TARGETS):
        raise ValueError(f"IGNORE_TARGETS holds '{unknown.pop()}'; expected any of {', '.join(TARGETS)}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder (DATA_DIR); expected {root}/<style>/ with images")
    wanted = set(TARGETS) - set(ignore_targets)
    skipped: dict[str, str] = {}
    targets: dict[str, int] = {}  # path below the root -> bits
    for folder, files in walk_folders(root, skipped, (".pt",)):
        below = os.path.relpath(folder, root)
        start = "" if below == "." else f"{below}/"
        for name in files:
            stem, _, suffix = name.rpartition(".")
            if f".{suffix}".lower() in IMAGE_SUFFIXES:
                stem = stem.removesuffix(MARK)
                bits = [bit for bit, kind in enumerate(TARGETS) if kind in wanted and f"{stem}_{kind}.pt" in files]
                targets[start + name] = sum(1 << bit for bit in bits)
    paths = sorted(targets, key=lambda path: path.replace("/", "\0"))  # as Path sorts
    chosen = _choose_images(paths)
    if not chosen:
        raise FileNotFoundError(
            f"{root}: no image in a style folder; looked for {root}/<style>/<name>_img.*, then for any image "
            f"({', '.join(IMAGE_SUFFIXES)}) in {root}/<style>/, but there is "
            f"{root / paths[0] if paths else 'none'}; or try the drawn samples: train.py --demo{first_skipped(skipped)}"
        )
    if len(chosen) < len(paths):
        unused = next(path for path, used in zip_longest(paths, chosen) if path != used)
        skipped[str(root / unused)] = (
            f"one of {len(paths) - len(chosen)} images that are left out; "
            f"expected {root}/<style>/<name>_img.*, or no name that ends in _img"
        )
    samples = SampleTable(root, chosen, np.fromiter(map(targets.get, chosen), np.uint8, len(chosen)), skipped)
    _refuse_two_images(samples)
    return samples


def _choose_images(paths: list[str]) -> list[str]:
    marked = [path for path in paths if path.rpartition(".")[0].endswith(MARK)]
    if chosen := [path for path in marked if path.count("/") == 1]:
        return chosen
    nested = {path.partition("/")[0] for path in marked}  # they hold style folders, as sample data below data/ does
    return [path for path in paths if "/" in path and path.partition("/")[0] not in nested]


def _refuse_two_images(samples: SampleTable) -> None:
    """A name twice is a mistake where names are made for this program; elsewhere it is one content."""
    first: dict[tuple[str, str], str] = {}
    for path, style, name in zip(samples.paths, samples.styles, samples.names):
        if path.rpartition(".")[0].endswith(MARK):
            if first and next(iter(first))[0] != style:
                first.clear()  # of the style before
            if (other := first.setdefault((style, name), path)) != path:
                raise ValueError(f"{samples.root / path}: '{name}' has two images, also {Path(other).name}; remove one")


def drop_small_styles(samples: SampleTable) -> tuple[SampleTable, dict[str, str]]:
    """-> the samples of styles with at least two, {folder of another style: reason}"""
    members = Counter(samples.styles)
    small = sorted(style for style, count in members.items() if count < 2)
    skipped = {
        str(samples.root / style): f"style '{style}' has {members[style]} image; 2 are needed" for style in small
    }
    indices = (index for index, style in enumerate(samples.styles) if members[style] >= 2)
    return samples.select(indices) if small else samples, skipped


def split_samples(
    samples: SampleTable, share: float, val_styles: Sequence[str] = (), seed: int = 0
) -> tuple[SampleTable, SampleTable]:
    """-> training samples, validation samples: whole styles, or `share` of each style.

    In a share split names are drawn in one seeded order for all styles, so equal names fall on the same side.
    """
    styles: dict[str, set[str]] = {}
    for style, name in zip(samples.styles, samples.names):
        styles.setdefault(style, set()).add(name)
    for style in val_styles:
        if style not in styles:
            raise ValueError(f"VAL_STYLES names '{style}'; the data has {', '.join(styles)}")

    def draw(name: str) -> bytes:
        return blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()

    held: set[str] = set()
    for names in styles.values() if share and not val_styles else ():
        wanted = min(max(2, round(share * len(names))), len(names) - 2)
        missing = max(0, wanted - len(held.intersection(names)))
        held.update(sorted(names - held, key=draw)[:missing])
    is_held = np.fromiter(
        (style in val_styles or name in held for style, name in zip(samples.styles, samples.names)), bool, len(samples)
    )
    return samples.select(np.flatnonzero(~is_held).tolist()), samples.select(np.flatnonzero(is_held).tolist())


class StyleDataset(SkippingDataset):
    """dataset[index] -> the unchanged sample; dataset[SampleKey(...)] -> a random view of it, a pure function of the
    key, so loader workers hold no random state. In place of a broken sample comes the next of its style; `read` is
    without that. skipped: names them.
    """

    def __init__(
        self,
        samples: SampleTable,
        images: ImageCache,
        image_size: int,
        shapes: TargetShapes,
        augmentation: Augmentation | None = None,
        grey: bool = False,
        drawn: np.ndarray | None = None,
    ):
        self.images, self.image_size = images, image_size
        self.shapes, self.augmentation, self.grey = shapes, augmentation, grey
        self.drawn = np.empty((0, 1, 1, 1, 3), np.uint8) if drawn is None else drawn
        self.skipped = SkipLog()
        self._index(samples)

    def _index(self, samples: SampleTable) -> None:
        self.samples = samples
        self.styles = sorted(set(samples.styles))
        style_ids, name_ids = {style: number for number, style in enumerate(self.styles)}, dict[str, int]()
        self.style_ids = np.array([style_ids[style] for style in samples.styles], np.int64)
        self.name_ids = np.array([name_ids.setdefault(name, len(name_ids)) for name in samples.names], np.int64)
        order, counts = np.argsort(self.style_ids, kind="stable"), np.bincount(self.style_ids)
        self.members = np.split(order, np.cumsum(counts)[:-1])  # of each style, by index

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, key: int | SampleKey) -> dict[str, torch.Tensor] | None:
        try:
            return self._read(key)
        except (ValueError, OSError) as error:
            self.skipped.add(self.file_of(key.index if isinstance(key, SampleKey) else key), error, len(self))
            return None

    def _read(self, key: int | SampleKey) -> dict[str, torch.Tensor]:
        view, index = (key, key.index) if isinstance(key, SampleKey) else (None, key)
        if index < len(self.samples):
            pixels, style_id, targets = self.pixels(index), int(self.style_ids[index]), self.samples[index].targets
        else:
            style, content = divmod(index - len(self.samples), self.drawn.shape[1])
            pixels, style_id, targets = self.drawn[style, content], -1 - style, {}
        if view and view.style_seed:  # a redrawn image has no targets: their text describes its original style
            targets = {}
        if view and self.augmentation:
            pixels = self.augmentation(pixels, self.image_size, view)
            style_id = style_id if not view.style_seed else len(self.styles) + view.style_seed  # a class of its own
        else:
            pixels = square(pixels, self.image_size, grey=self.grey)
        image = torch.tensor(pixels).permute(2, 0, 1)  # (3, S, S); a copy: the cache is read-only
        return {"image": image, "style_ids": torch.tensor(style_id), **self._load_targets(targets)}

    def substitutes(self, index: int) -> Iterator[int]:
        """The next ones of its style, at last those of the other styles."""
        yield index
        if index < len(self):
            members = self.members[self.style_ids[index]]
            place = int(np.searchsorted(members, index))
            yield from map(int, (*members[place + 1 :], *members[:place]))
        yield from super().substitutes(index)

    def keep(self, indices: Sequence[int]) -> None:
        """Drop all other samples."""
        self._index(self.samples.select(indices))

    def pixels(self, index: int) -> np.ndarray:
        """The decoded image (H, W, 3) uint8."""
        return self.images[self.samples.images[index]]

    @property
    def drawing_indices(self) -> np.ndarray:
        """(styles, per style): the index of each drawing in this dataset."""
        styles, per_style = len(self.drawn), self.drawn.shape[1]
        return len(self) + np.arange(styles * per_style).reshape(styles, per_style)

    def file_of(self, index: int) -> str:
        return str(self.samples[index].image) if index < len(self.samples) else f"drawing {index - len(self.samples)}"

    def _load_targets(self, paths: dict[str, Path]) -> dict[str, torch.Tensor]:
        """Targets padded to the dataset's sizes, and a flag for each that exists."""
        shapes, item = self.shapes, {}
        if not shapes.embed_width and not shapes.pooled_width:
            return {}
        targets = {kind: load_target(path, kind) for kind, path in paths.items()}
        check_target_shapes(paths, targets, shapes)
        if shapes.embed_width:
            embed = targets.get("embed", torch.zeros(0, shapes.embed_width))
            mask = targets.get("mask", torch.ones(len(embed), dtype=torch.int64))
            item["embed"] = F.pad(embed, (0, 0, 0, shapes.length - len(embed)))
            item["mask"] = F.pad(mask, (0, shapes.length - len(mask)))
            item |= {f"has_{kind}": torch.tensor(kind in targets) for kind in ("embed", "mask")}
        if shapes.pooled_width:
            item["pooled"] = targets.get("pooled", torch.zeros(shapes.pooled_width))
            item["has_pooled"] = torch.tensor("pooled" in targets)
        return item
