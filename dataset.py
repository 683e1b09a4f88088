"""Dataset and batch sampler of the style encoder.

data/<style>/<name>_img.png (or jpg, jpeg, webp, bmp)        the folder is the style, the name is the content;
data/<style>/**/<name>.png                                   where no name ends in _img
data/<style>/<name>_embed.pt (L, D)  _pooled.pt (P,)  _mask.pt (L,)      outputs of a text encoder; any may be missing

-> image (B, 3, S, S) uint8, style_ids (B,), embed (B, L, D), mask (B, L), pooled (B, P), has_embed/pooled/mask (B,)

Equal names in two folders mean the same content in two styles. That is not required, but where it holds the split
keeps a content on one side and batches show the same contents in several styles.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from common.images.cache import ImageCache
from common.images.io import IMAGE_SUFFIXES, walk_images
from common.images.transforms import Augmentation, SampleKey, square
from targets import TARGETS, TargetShapes, load_target

MARK = "_img"


@dataclass(frozen=True)
class Sample:
    image: Path
    style: str  # folder name
    name: str  # path below the style folder, without _img and suffix
    targets: dict[str, Path] = field(default_factory=dict)  # of TARGETS, those whose file exists

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
        raise FileNotFoundError(
            f"{data_dir}: no image in a style folder; looked for {data_dir}/<style>/<name>_img.*, then for any image "
            f"({', '.join(IMAGE_SUFFIXES)}) in {data_dir}/<style>/, but there is "
            f"{next(walk_images(data_dir), 'none')}; or try the drawn samples: train.py --demo"
        )
    return samples


def _choose_images(data_dir: Path) -> list[Path]:
    images = sorted(walk_images(data_dir))
    marked = [path for path in images if path.stem.endswith(MARK)]
    if chosen := [path for path in marked if path.parent.parent == data_dir]:
        return chosen
    below = len(data_dir.parts)
    nested = {path.parts[below] for path in marked}  # they hold style folders, as sample data below data/ does
    return [path for path in images if path.parent != data_dir and path.parts[below] not in nested]


def unused_images(data_dir: str | Path, samples: list[Sample]) -> dict[str, str]:
    """{the first image of a data folder that find_samples has left out: why, and how many there are}"""
    unused = sorted(set(walk_images(Path(data_dir))) - {sample.image for sample in samples})
    rule = f"expected {data_dir}/<style>/<name>_img.*, or no name that ends in _img"
    return {str(path): f"one of {len(unused)} images that are left out; {rule}" for path in unused[:1]}


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
    ):
        self.samples, self.images, self.image_size = samples, images, image_size
        self.shapes, self.augmentation, self.grey = shapes, augmentation, grey
        self.styles = sorted({sample.style for sample in samples})
        names = {name: number for number, name in enumerate(sorted({sample.name for sample in samples}))}
        self.style_ids = [self.styles.index(sample.style) for sample in samples]
        self.name_ids = [names[sample.name] for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | SampleKey) -> dict[str, torch.Tensor]:
        view, index = (key, key.index) if isinstance(key, SampleKey) else (None, key)
        pixels, style_id, targets = self.pixels(index), self.style_ids[index], self.samples[index].targets
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

    def file_of(self, index: int) -> str:
        return str(self.samples[index].image)

    def _load_targets(self, paths: dict[str, Path]) -> dict[str, torch.Tensor]:
        """Targets padded to the dataset's sizes, and a flag for each that exists."""
        shapes, item = self.shapes, {}
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


class PKBatchSampler:
    """Batches of P groups of K images of one style, with the same contents in each where styles share names.

    `remix_share` of the groups are redrawn, each into an invented style of its own (common/images/transforms.py); the
    others are of different styles. `grey_prob` of the batches lose their colours, so that strokes must separate the
    styles; never a part of a batch, which would teach that colours do not matter.

    An epoch shows every unchanged image at least once; styles with fewer images are repeated, so that a batch holds as
    many styles as possible. The list of an epoch's batches is a pure function of (seed, epoch), so training can resume
    from any of them, and each of `world` devices takes its share of every batch.
    """

    def __init__(
        self,
        dataset: StyleDataset,
        batch_size: int,
        images_per_style: int,
        remix_share: float = 0.0,
        grey_prob: float = 0.0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        self.members: list[list[int]] = [[] for _ in dataset.styles]
        for index, style_id in enumerate(dataset.style_ids):
            self.members[style_id].append(index)
        self.names = [sample.name for sample in dataset.samples]
        groups = batch_size // max(images_per_style, 1)
        self.plain = min(len(self.members), groups - round(groups * remix_share))
        self.remixed = groups - self.plain if remix_share else 0
        self.images_per_group = images_per_style if remix_share else batch_size // max(self.plain, 1)
        size = (self.plain + self.remixed) * self.images_per_group
        if images_per_style < 2 or self.plain + self.remixed < 2 or self.plain < 1:
            raise ValueError(
                f"BATCH_SIZE {batch_size} with IMAGES_PER_STYLE {images_per_style} and {len(self.members)} style(s): "
                "a batch needs at least 2 styles of at least 2 images"
            )
        if size % world:
            raise ValueError(f"a batch of {size} images cannot be shared equally by {world} devices")
        self.grey_prob, self.seed, self.rank, self.world = grey_prob, seed, rank, world
        self.epoch = self.start = 0
        self.batches_per_epoch = len(self.epoch_batches(0))

    def set_position(self, epoch: int, start: int = 0) -> None:
        """The next iteration yields the batches of `epoch` from number `start` on."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for batch in self.epoch_batches(self.epoch)[self.start :]:
            yield batch[self.rank :: self.world]

    def __len__(self) -> int:
        return self.batches_per_epoch - self.start

    def epoch_batches(self, epoch: int) -> list[list[SampleKey]]:
        random = np.random.default_rng([self.seed, epoch])
        draws = {name: random.random() for name in dict.fromkeys(self.names)}  # one order of contents for all styles
        groups = [self._groups(sorted(members, key=lambda i: draws[self.names[i]])) for members in self.members]
        remaining = [list(style) for style in groups]
        batches: list[list[SampleKey]] = []
        while any(remaining):
            order = sorted(range(len(groups)), key=lambda style: (-len(remaining[style]), random.random()))
            batch, grey = [], random.random() < self.grey_prob
            for style in order[: self.plain]:
                group = (
                    remaining[style].pop(0) if remaining[style] else groups[style][random.integers(len(groups[style]))]
                )
                batch += [SampleKey(epoch, index, 0, grey) for index in group]
            for _ in range(self.remixed):
                style, style_seed = int(random.integers(len(groups))), int(random.integers(1, 2**31))
                group = groups[style][len(batches) % len(groups[style])]
                batch += [SampleKey(epoch, index, style_seed, grey) for index in group]
            batches.append(batch)
        return batches

    def _groups(self, members: list[int]) -> list[list[int]]:
        """Members in groups of K; the last group is filled from the front."""
        size = self.images_per_group
        filled = members + [members[i % len(members)] for i in range(-len(members) % size)]
        return [filled[i : i + size] for i in range(0, len(filled), size)]
