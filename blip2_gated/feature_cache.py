"""Cache of the frozen towers' outputs, computed once per image.

images -> vision tower, EfficientNet -> <cache_dir>/<key>.patches.bin (N, P, V), <key>.pooled.bin (N, W), both fp16

Both towers are frozen and images are not augmented, so every epoch would repeat half of the operations of a step at
the published shape. Of a model whose vision tower is trained (model.train all) only `pooled` is kept. The key covers
every bit of the frozen towers' weights, their preprocessing and the content of every file: any change makes a new
cache. Size: with BLIP-2 at 224 pixels 257 * 1408 * 2 bytes, 0.7 MB per image.
"""

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from blip2_gated.images import squeeze
from blip2_gated.model import Blip2OPTGated
from common.cli.progress_bar import progress_bar
from common.images.cache import CACHE_SCALE, ImageCache
from common.images.cache_files import map_array, read_cache_index, write_cache_index
from common.models.checkpoint_file import weights_digest
from common.models.eval_mode import eval_mode
from common.text.files import write_atomically


class FeatureCache:
    """cache[path] -> patches (P, V), pooled (W,) of an image by name, as far as kept; fp16, copied from the file."""

    def __init__(self, index: Path, shapes: dict[str, list[int]], paths: list[Path]):
        self.rows = {path: row for row, path in enumerate(paths)}
        self.arrays = {
            name: map_array(index.with_suffix(f".{name}.bin"), np.float16, shape) for name, shape in shapes.items()
        }

    def __getitem__(self, path: Path) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(array[self.rows[path]]) for name, array in self.arrays.items()}


@torch.no_grad()
def cache_features(
    model: Blip2OPTGated,
    images: ImageCache,
    paths: list[Path],
    cache_dir: str | Path,
    device: torch.device,
    batch_size: int = 32,
    quiet: bool = False,
) -> FeatureCache:
    """The cache of these images, computed if it does not exist."""
    index = Path(cache_dir) / f"{cache_key(model, paths)}.json"
    if content := read_cache_index(index):
        return FeatureCache(index, content["shapes"], paths)
    index.parent.mkdir(parents=True, exist_ok=True)
    bins, shapes = {name: index.with_suffix(f".{name}.bin") for name in frozen_towers(model)}, {}
    with eval_mode(model), ExitStack() as stack:
        files = {name: stack.enter_context(write_atomically(path, durable=False)) for name, path in bins.items()}
        for start in progress_bar(range(0, len(paths), batch_size), "features", unit="batch", quiet=quiet):
            batch = [squeeze(images[path], model.image_size) for path in paths[start : start + batch_size]]
            features = model.features(torch.stack(batch).to(device))._asdict()
            for name, file in files.items():
                half = features[name].half()
                if not half.isfinite().all():
                    raise ValueError(f"--training.cache_features: {name} exceed the range of fp16; use pixels")
                file.write(half.cpu().numpy().tobytes())
                shapes[name] = [len(paths), *half.shape[1:]]
    write_cache_index(index, {"shapes": shapes}, list(bins.values()))
    return FeatureCache(index, shapes, paths)


def frozen_towers(model: Blip2OPTGated) -> dict[str, torch.nn.Module]:
    """Names of TowerFeatures -> the towers they are of, without those that are trained or absent."""
    towers = {} if model.trained == "all" else {"patches": model.blip2.vision_model}
    return towers | ({"pooled": model.efficientnet.backbone} if model.efficientnet else {})


def cache_key(model: Blip2OPTGated, paths: list[Path]) -> str:
    efficientnet = model.efficientnet
    metadata = {
        "edition": 2,  # of the files
        "image_size": model.image_size,
        "cache_scale": CACHE_SCALE,
        "efficientnet": efficientnet.preprocessing if efficientnet else None,
        "weights": [weights_digest(tower.state_dict()) for tower in frozen_towers(model).values()],
    }
    digest = hashlib.blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=12)
    for path in paths:
        digest.update(hashlib.blake2b(Path(path).read_bytes(), digest_size=12).digest())
    return digest.hexdigest()
