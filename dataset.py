"""Dataset of the style encoder.

data/<style>/<name>_img.png (or jpg, jpeg, webp, bmp)        the folder is the style, the name is the content;
data/<style>/**/<name>.png                                   where no name ends in _img
data/<style>/<name>_embed.pt (L, D)  _pooled.pt (P,)  _mask.pt (L,)      outputs of a text encoder; any may be missing

drawn (styles, per style, S, S, 3) of common/samples/invented.py are further styles, numbered behind the samples

-> image (B, 3, S, S) uint8, style_ids (B,), embed (B, L, D), mask (B, L), pooled (B, P), has_embed/pooled/mask (B,)

Equal names in two folders mean the same content in two styles. That is not required, but where it holds the split
keeps a content on one side and batches show the same contents in several styles.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from common.images.cache import ImageCache
from common.images.folders import IMAGE_SUFFIXES, first_skipped, walk_images
from common.images.transforms import Augmentation, SampleKey, square
from targets import TARGETS, TargetShapes, load_target

MARK = "_img"


@dataclass(frozen=True)
class Sample:
    image: Path
    style: str  # folder name
    name: str  # path below the style folder, without _img and suffix
    targets: dict[str, Path] = field(default_factory=dict)  # of TARGETS, those whose file exists

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells that a sample is the same, wherever its folder lies: names, and sizes of files in bytes."""
        targets = {kind: path.stat().st_size for kind, path in self.targets.items()}
        return self.style, self.name, self.image.suffix, self.image.stat().st_size, targets

    def beside(self, ending: str) -> Path:
        """A file that belongs to the image, in its folder."""
        return self.image.with_name(self.image.stem.removesuffix(MARK) + ending)


def find_samples(data_dir: str | Path, ignore_targets: Sequence[str] = ()) -> list[Sample]:
    """Every <style>/<name>_img.* of a data folder, or where no name ends in _img, every image in and below its style
    folders; sorted by style, then name."""
    data_dir = Path(data_dir)
    if unknown := set(ignore_targets) - set(TARGETS):
        raise ValueError(f"IGNORE_TARGETS holds '{unknown.pop()}'; expected any of {', '.join(TARGETS)}")
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: no such folder (DATA_DIR); expected {data_dir}/<style>/ with images")
    samples: list[Sample] = []
    marked: dict[tuple[str, str], Path] = {}
    for path in _choose_images(data_dir):
        style, *below = path.relative_to(data_dir).with_suffix("").parts
        sample = Sample(path, style, "/".join(below).removesuffix(MARK))
        # A name twice is a mistake where names are made for this program; elsewhere it is one content.
        if path.stem.endswith(MARK) and (other := marked.setdefault((style, sample.name), path)) != path:
            raise ValueError(f"{path}: '{sample.name}' has two images, also {other.name}; remove one")
        targets = {kind: sample.beside(f"_{kind}.pt") for kind in TARGETS if kind not in ignore_targets}
        sample.targets.update({kind: target for kind, target in targets.items() if target.is_file()})
        samples.append(sample)
    if not samples:
        skipped: dict[str, str] = {}
        unused = next(walk_images(data_dir, skipped), "none")
        raise FileNotFoundError(
            f"{data_dir}: no image in a style folder; looked for {data_dir}/<style>/<name>_img.*, then for any image "
            f"({', '.join(IMAGE_SUFFIXES)}) in {data_dir}/<style>/, but there is "
            f"{unused}; or try the drawn samples: train.py --demo{first_skipped(skipped)}"
        )
    return samples


def _choose_images(data_dir: Path) -> list[Path]:
    images = sorted(walk_images(data_dir, {}))  # unused_images names what is skipped
    marked = [path for path in images if path.stem.endswith(MARK)]
    if chosen := [path for path in marked if path.parent.parent == data_dir]:
        return chosen
    below = len(data_dir.parts)
    nested = {path.parts[below] for path in marked}  # they hold style folders, as sample data below data/ does
    return [path for path in images if path.parent != data_dir and path.parts[below] not in nested]


def unused_images(data_dir: str | Path, samples: list[Sample]) -> dict[str, str]:
    """{what a data folder holds that cannot be read: why}, and the first image that find_samples does not use, and how
    many there are."""
    skipped: dict[str, str] = {}
    unused = sorted(set(walk_images(Path(data_dir), skipped)) - {sample.image for sample in samples})
    rule = f"expected {data_dir}/<style>/<name>_img.*, or no name that ends in _img"
    return skipped | {str(path): f"one of {len(unused)} images that are left out; {rule}" for path in unused[:1]}


def split_samples(
    samples: list[Sample], share: float, val_styles: Sequence[str] = (), seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """-> training samples, validation samples: whole styles, or `share` of each style.

    In a share split names are drawn in one seeded order for all styles, so equal names fall on the same side.
    """
    styles: dict[str, set[str]] = {}
    for sample in samples:
        styles.setdefault(sample.style, set()).add(sample.name)
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
    validation = [sample for sample in samples if sample.style in val_styles or sample.name in held]
    return [sample for sample in samples if sample.style not in val_styles and sample.name not in held], validation


class StyleDataset(Dataset):
    """dataset[index] -> the unchanged sample; dataset[SampleKey(...)] -> a random view of it, a pure function of the
    key, so loader workers hold no random state."""

    def __init__(
        self,
        samples: list[Sample],
        images: ImageCache,
        image_size: int,
        shapes: TargetShapes,
        augmentation: Augmentation | None = None,
        grey: bool = False,
        drawn: np.ndarray | None = None,
    ):
        self.samples, self.images, self.image_size = samples, images, image_size
        self.shapes, self.augmentation, self.grey = shapes, augmentation, grey
        self.drawn = np.empty((0, 1, 1, 1, 3), np.uint8) if drawn is None else drawn
        self.styles = sorted({sample.style for sample in samples})
        names = {name: number for number, name in enumerate(sorted({sample.name for sample in samples}))}
        self.style_ids = [self.styles.index(sample.style) for sample in samples]
        self.name_ids = [names[sample.name] for sample in samples]
        self.members: list[list[int]] = [[] for _ in self.styles]  # of each style, by index
        for index, style_id in enumerate(self.style_ids):
            self.members[style_id].append(index)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | SampleKey) -> dict[str, torch.Tensor]:
        view, index = (key, key.index) if isinstance(key, SampleKey) else (None, key)
        if index < len(self.samples):
            pixels, style_id, targets = self.pixels(index), self.style_ids[index], self.samples[index].targets
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

    def pixels(self, index: int) -> np.ndarray:
        """The decoded image (H, W, 3) uint8."""
        return self.images[self.samples[index].image]

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
