"""Checkpoint of the style encoder: written by train.py, opened by every tool.

encoder, content = load_encoder("checkpoints/best.pth", device)
style = encoder(read_image("a.png", encoder)[None].to(device)).style
paths, styles = encode_folder("folder", encoder)
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.cli.errors import one_line
from common.cli.progress_bar import progress_bar
from common.images.cache import CACHE_SCALE, fit_shorter_side
from common.images.folders import list_images
from common.images.io import open_image
from common.images.transforms import square
from common.models.checkpoint_file import save_model
from common.training.skip_log import report_skipped
from model import KIND, StyleOutput, VisionStyleEncoder

BATCH_SIZE = 32  # images encoded at once


def save_encoder(path: str | Path, encoder: VisionStyleEncoder, **metadata: Any) -> None:
    """Write an encoder with everything needed to use it. metadata: settings, step, metrics, ..."""
    save_model(path, encoder, KIND, encoder.build, preprocessing=encoder.preprocessing, **metadata)


def load_encoder(path: str | Path, device: torch.device) -> tuple[VisionStyleEncoder, dict[str, Any]]:
    """VisionStyleEncoder.open on `device`."""
    encoder, content = VisionStyleEncoder.open(path)
    return encoder.to(device), content


def build_untrained(content: dict[str, Any], device: torch.device) -> tuple[VisionStyleEncoder | None, str]:
    """The encoder of a checkpoint before its training -> (encoder, '') or (None, the reason)."""
    torch.manual_seed(content["settings"]["seed"])
    try:
        build = content["build"] | {"model_name": content["settings"]["model_name"]}  # which names the weights, too
        encoder = VisionStyleEncoder(**build, pretrained=content["settings"]["pretrained"])
    except (ValueError, OSError) as error:
        return None, one_line(error)
    return encoder.eval().to(device), ""


def read_image(path: str | Path, encoder: VisionStyleEncoder) -> torch.Tensor:
    """A file -> (3, S, S) uint8, the centred square that the encoder was validated on."""
    size = encoder.tower.image_size
    pixels = square(np.asarray(fit_shorter_side(open_image(path), round(CACHE_SCALE * size))), size)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


@torch.inference_mode()
def encode_images(
    paths: Sequence[str | Path],
    encoder: VisionStyleEncoder,
    read: Callable[[StyleOutput], torch.Tensor] = attrgetter("style"),
    skipped: dict[str, str] | None = None,
) -> torch.Tensor:
    """-> style (N, S), unit length, or what `read` takes of the output. skipped: collects the reasons of unreadable
    images, which are an error where it is None."""
    vectors = []
    for start in progress_bar(range(0, len(paths), BATCH_SIZE), "encoding", quiet=len(paths) <= BATCH_SIZE):
        images = []
        for path in paths[start : start + BATCH_SIZE]:
            try:
                images.append(read_image(path, encoder))
            except (ValueError, OSError) as error:
                if skipped is None:
                    raise
                skipped[str(path)] = one_line(error)
        if images:
            vectors.append(read(encoder(torch.stack(images).to(encoder.device))).float().cpu())
    return torch.cat(vectors) if vectors else torch.empty(0)


def encode_folder(
    folder: str | Path, encoder: VisionStyleEncoder, read: Callable[[StyleOutput], torch.Tensor] = attrgetter("style")
) -> tuple[list[Path], torch.Tensor]:
    """Every image below a folder -> paths, style (N, S); unreadable ones are skipped and named on stderr."""
    skipped: dict[str, str] = {}
    paths = list_images(folder, skipped)
    vectors = encode_images(paths, encoder, read, skipped)
    if not len(vectors):
        raise ValueError(f"{folder}: none of its {len(paths)} images can be read; {next(iter(skipped.values()))}")
    report_skipped(skipped, listed="")
    return [path for path in paths if str(path) not in skipped], vectors
