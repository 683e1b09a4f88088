"""Dataset and batch sampler of the style encoder.

data/<style>/<name>_img.png (or jpg, jpeg, webp, bmp)        the folder is the style, the name is the content
data/<style>/<name>_embed.pt (L, D)  _pooled.pt (P,)  _mask.pt (L,)      outputs of a text encoder; any may be missing

-> image (B, 3, S, S) uint8, style_ids (B,), embed (B, L, D), mask (B, L), pooled (B, P), has_embed/pooled/mask (B,)

Equal names in two folders mean the same content in two styles. That is not required, but where it holds the split
keeps a content on one side and batches show the same contents in several styles.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from common.images.cache import ImageCache
from common.images.io import IMAGE_SUFFIXES
from common.images.transforms import Augmentation, SampleKey, square
from common.models.checkpoint_file import read_tensors

TARGETS = ("embed", "pooled", "mask")


@dataclass(frozen=True)
class Sample:
    image: Path
    style: str  # folder name
    name: str  # file name without _img and suffix
    targets: dict[str, Path] = field(default_factory=dict)  # of TARGETS, those whose file exists


@dataclass(frozen=True)
class TargetShapes:
    """Sizes over a dataset; 0 where it has no such target."""

    length: int = 0  # L, tokens of the longest embed
    embed_width: int = 0  # D
    pooled_width: int = 0  # P
    has_mask: bool = False


def find_samples(data_dir: str | Path, ignore_targets: Sequence[str] = ()) -> list[Sample]:
    """Every <style>/<name>_img.* of a data folder, sorted by style, then name."""
    data_dir = Path(data_dir)
    if unknown := set(ignore_targets) - set(TARGETS):
        raise ValueError(f"IGNORE_TARGETS holds '{unknown.pop()}'; expected any of {', '.join(TARGETS)}")
    if not data_dir.is_dir():
        raise FileNotFoundError(f"{data_dir}: no such folder (DATA_DIR); expected {data_dir}/<style>/<name>_img.png")
    samples: list[Sample] = []
    for path in sorted(data_dir.glob("*/*_img.*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith(".") or path.parent.name.startswith("."):
            continue
        name = path.stem.removesuffix("_img")
        if samples and (samples[-1].style, samples[-1].name) == (path.parent.name, name):
            raise ValueError(f"{path}: '{name}' has two images, also {samples[-1].image.name}; remove one")
        targets = {kind: path.with_name(f"{name}_{kind}.pt") for kind in TARGETS if kind not in ignore_targets}
        targets = {kind: target for kind, target in targets.items() if target.is_file()}
        samples.append(Sample(path, path.parent.name, name, targets))
    if not samples:
        raise FileNotFoundError(
            f"{data_dir}: no '*_img.png' found; expected {data_dir}/<style>/<name>_img.png, "
            "or try the drawn samples: python train.py --demo"
        )
    return samples


def split_samples(
    samples: list[Sample], share: float, val_styles: Sequence[str] = (), seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """-> training samples, validation samples: whole styles, or `share` of each style.

    In a share split names are drawn in one seeded order for all styles, so equal names fall on the same side.
    """
    styles: dict[str, list[str]] = {}
    for sample in samples:
        styles.setdefault(sample.style, []).append(sample.name)
    for style in val_styles:
        if style not in styles:
            raise ValueError(f"VAL_STYLES names '{style}'; the data has {', '.join(styles)}")

    def draw(name: str) -> bytes:
        return blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest()

    held: set[str] = set()
    for names in styles.values() if share and not val_styles else ():
        wanted = min(max(2, round(share * len(names))), len(names) - 2)
        missing = max(0, wanted - len(held.intersection(names)))
        held.update(sorted(set(names) - held, key=draw)[:missing])
    validation = [sample for sample in samples if sample.style in val_styles or sample.name in held]
    return [sample for sample in samples if sample.style not in val_styles and sample.name not in held], validation


def load_target(path: Path, kind: str) -> torch.Tensor:
    """One .pt file -> embed (L, D) float32, pooled (P,) float32 or mask (L,) int64; a leading axis of 1 is dropped."""
    tensor = read_tensors(path)
    wanted = {"embed": "(L, D)", "pooled": "(P,)", "mask": "(L,)"}[kind]
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{path}: holds a {type(tensor).__name__}; expected one tensor {wanted}")
    shape, axes = tuple(tensor.shape), len(wanted.split(",")) - (kind != "embed")
    if tensor.ndim == axes + 1 and shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != axes or 0 in shape:
        raise ValueError(f"{path}: shape {shape}; expected {wanted}, or the same with a leading axis of 1")
    if kind == "mask" and not ((tensor == 0) | (tensor == 1)).all():
        raise ValueError(f"{path}: a mask holds only 0 and 1 (1 = real token)")
    tensor = tensor.long() if kind == "mask" else tensor.float()
    if not tensor.isfinite().all():
        raise ValueError(f"{path}: holds nan or infinity")
    return tensor


def read_target_shapes(samples: list[Sample], threads: int = 4) -> TargetShapes:
    """Open every target once; sizes that differ where they must not are an error naming both files."""
    with ThreadPoolExecutor(threads) as pool:
        shapes = list(pool.map(_shapes_of, samples))
    widths: dict[str, tuple[int, Path]] = {}
    for sample, shape in zip(samples, shapes):
        for kind in {"embed", "pooled"} & set(shape):
            width, first = widths.setdefault(kind, (shape[kind][-1], sample.targets[kind]))
            if width != shape[kind][-1]:
                raise ValueError(
                    f"{sample.targets[kind]}: width {shape[kind][-1]}, but {first} has {width}; "
                    "all must come from one text encoder"
                )
    embed_width, pooled_width = (widths.get(kind, (0,))[0] for kind in ("embed", "pooled"))
    if not embed_width:
        return TargetShapes(pooled_width=pooled_width)
    length = max(shape[kind][0] for shape in shapes for kind in ("embed", "mask") if kind in shape)
    return TargetShapes(length, embed_width, pooled_width, any("mask" in shape for shape in shapes))


def _shapes_of(sample: Sample) -> dict[str, tuple[int, ...]]:
    shapes = {kind: tuple(load_target(path, kind).shape) for kind, path in sample.targets.items()}
    if {"mask", "embed"} <= set(shapes) and shapes["mask"][0] != shapes["embed"][0]:
        raise ValueError(
            f"{sample.targets['mask']}: {shapes['mask'][0]} tokens, but its embed has {shapes['embed'][0]}"
        )
    return shapes


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
