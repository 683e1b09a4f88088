"""Targets of the style encoder: what a text encoder gives for the words of an image's style.

<name>_embed.pt (L, D), <name>_pooled.pt (P,), <name>_mask.pt (L,) -> load_target -> tensor

Any of them may be missing for any image, and L may differ between files.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.models.checkpoint_file import read_tensors

TARGETS = ("embed", "pooled", "mask")
CHECKED = 256  # samples whose targets are opened before training


@dataclass(frozen=True)
class TargetShapes:
    """Sizes over a dataset; 0 where it has no such target."""

    length: int = 0  # L, tokens of the longest embed
    embed_width: int = 0  # D
    pooled_width: int = 0  # P
    has_mask: bool = False


def load_target(path: Path, kind: str) -> torch.Tensor:
    """One .pt file -> embed (L, D) float32, pooled (P,) float32 or mask (L,) int64; a leading axis of 1 is dropped."""
    tensor = read_tensors(path)
    wanted = {"embed": "(L, D)", "pooled": "(P,)", "mask": "(L,)"}[kind]
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{path}: holds a {type(tensor).__name__}; expected one tensor {wanted}")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        raise ValueError(f"{path}: holds a tensor that is sparse, quantized, complex or meta; save a dense one")
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


def read_target_shapes(samples: Any, count: int = CHECKED, threads: int = 4) -> TargetShapes:
    """Open the targets of at most `count` samples, evenly spread, and of those with the largest files, which are the
    longest. Sizes that differ where they must not are an error naming both files; of the other samples they are
    compared when these are read (check_target_shapes).

    samples: of dataset.find_samples.
    """
    with_targets = np.flatnonzero(samples.targets)
    if not len(with_targets):
        return TargetShapes()
    chosen = {with_targets[number * len(with_targets) // count] for number in range(count)}
    checked = samples.select(sorted(chosen | {samples.file_sizes[kind].argmax() for kind in TARGETS}))
    with ThreadPoolExecutor(threads) as pool:
        shapes = list(pool.map(_shapes_of, checked))
    widths: dict[str, tuple[int, Path]] = {}
    for sample, shape in zip(checked, shapes):
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


def check_target_shapes(paths: dict[str, Path], targets: dict[str, torch.Tensor], shapes: TargetShapes) -> None:
    """ValueError where the targets of a sample are not of the sizes of the dataset."""
    widths = {"embed": shapes.embed_width, "pooled": shapes.pooled_width}
    for kind, target in targets.items():
        if kind in widths and target.shape[-1] != widths[kind]:
            raise ValueError(f"{paths[kind]}: width {target.shape[-1]}, but others have {widths[kind]}")
        if kind != "pooled" and len(target) > shapes.length:
            raise ValueError(f"{paths[kind]}: {len(target)} tokens; the longest at the start had {shapes.length}")
    if {"mask", "embed"} <= targets.keys() and len(targets["mask"]) != len(targets["embed"]):
        raise ValueError(f"{paths['mask']}: {len(targets['mask'])} tokens, but its embed has {len(targets['embed'])}")


def _shapes_of(sample: Any) -> dict[str, tuple[int, ...]]:
    targets = {kind: load_target(path, kind) for kind, path in sample.targets.items()}
    if {"mask", "embed"} <= targets.keys() and len(targets["mask"]) != len(targets["embed"]):
        raise ValueError(
            f"{sample.targets['mask']}: {len(targets['mask'])} tokens, but its embed has {len(targets['embed'])}"
        )
    return {kind: tuple(target.shape) for kind, target in targets.items()}
