"""What the frozen towers say of every image, computed once.

images -> vision tower, EfficientNet -> <cache_dir>/<key>.patches.bin (N, P, V), <key>.pooled.bin (N, W), both fp16

Both towers stand still and no image is augmented, so every epoch would compute the same again: half of the operations
of a step at the published shape. The key holds every bit of both towers' weights, their preprocessing and every file's
content: whatever changes makes a new cache. Size: of BLIP-2 at 224 pixels 257 * 1408 * 2 bytes, 0.7 MB an image.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from blip2_gated.model import Blip2OPTGated, Features, squeeze
from common.cli.progress_bar import progress_bar
from common.images.cache import CACHE_SCALE, ImageCache
from common.text.files import write_atomically

VERSION = 1


class FeatureCache:
    """cache[path] -> patches (P, V), pooled (W,) of an image; fp16 tensors of their own."""

    def __init__(self, index: Path, paths: list[Path]):
        self.rows = {path: row for row, path in enumerate(paths)}
        shapes = json.loads(index.read_text())
        self.patches = np.memmap(index.with_suffix(".patches.bin"), np.float16, "r", shape=tuple(shapes["patches"]))
        self.pooled = None
        if shapes["pooled"]:
            self.pooled = np.memmap(index.with_suffix(".pooled.bin"), np.float16, "r", shape=tuple(shapes["pooled"]))

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, path: Path) -> tuple[torch.Tensor, ...]:
        patches = torch.tensor(self.patches[self.rows[path]])
        return (patches,) if self.pooled is None else (patches, torch.tensor(self.pooled[self.rows[path]]))


def keep_features(
    model: Blip2OPTGated,
    images: ImageCache,
    paths: list[Path],
    cache_dir: str | Path,
    device: torch.device,
    batch_size: int = 32,
    quiet: bool = False,
) -> FeatureCache:
    """The cache of these images, made where it does not exist. ValueError where the vision tower learns."""
    if model.trained == "all":
        raise ValueError("--training.cache_features: with --model.train all the vision tower learns; leave one out")
    cache_dir = Path(cache_dir)
    index = cache_dir / f"{cache_key(model, paths)}.json"
    if not index.is_file():  # written last: its presence says that the features are whole
        cache_dir.mkdir(parents=True, exist_ok=True)
        _fill(model, images, paths, index, device, batch_size, quiet)
    return FeatureCache(index, paths)


def cache_key(model: Blip2OPTGated, paths: list[Path]) -> str:
    efficientnet = model.efficientnet
    facts = {
        "version": VERSION,
        "image_size": model.image_size,
        "store": CACHE_SCALE,
        "efficientnet": efficientnet.preprocessing if efficientnet else None,
        "weights": _weights_digest(model.blip2.vision_model, efficientnet.backbone if efficientnet else None),
    }
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12)
    for path in paths:
        digest.update(hashlib.blake2b(Path(path).read_bytes(), digest_size=12).digest())
    return digest.hexdigest()


@torch.no_grad()
def _fill(
    model: Blip2OPTGated,
    images: ImageCache,
    paths: list[Path],
    index: Path,
    device: torch.device,
    batch_size: int,
    quiet: bool,
) -> None:
    was_training, count = model.training, len(paths)
    model.eval()
    shapes: dict[str, list[int] | None] = {"patches": None, "pooled": None}
    with (
        write_atomically(index.with_suffix(".patches.bin"), durable=False) as patches_file,
        write_atomically(index.with_suffix(".pooled.bin"), durable=False) as pooled_file,
        progress_bar(total=count, desc="features", unit="img", quiet=quiet) as bar,
    ):
        for start in range(0, count, batch_size):
            batch = [squeeze(images[path], model.image_size) for path in paths[start : start + batch_size]]
            found: Features = model.features(torch.stack(batch).to(device))
            for name, file, values in zip(shapes, (patches_file, pooled_file), found):
                if values is None:
                    continue
                half = values.to(torch.float16)
                if not bool(half.isfinite().all()):
                    raise ValueError(f"--training.cache_features: {name} beyond what fp16 holds; train without")
                file.write(half.cpu().numpy().tobytes())
                shapes[name] = [count, *half.shape[1:]]
            bar.update(len(batch))
    model.train(was_training)
    with write_atomically(index) as file:
        file.write(json.dumps(shapes).encode())


def _weights_digest(*modules: nn.Module | None) -> str:
    """Of every bit of every weight."""
    digest = hashlib.blake2b(digest_size=16)
    for module in modules:
        for name, tensor in (module.state_dict() if module else {}).items():
            values = tensor.detach().cpu().contiguous()
            digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
