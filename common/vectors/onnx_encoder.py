"""An image encoder in ONNX Runtime: on a CPU, networks of depthwise convolutions are about twice as fast as in PyTorch.

encode, pixels (B, 3, S, S) uint8 -> exported, compared on these pixels -> a function that gives the same vectors (B, D)
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from common.models.onnx_export import OutputTuple, export_onnx, missing_packages, open_session, random_images
from common.models.pooling import ImageEncoder

Encode = Callable[[torch.Tensor], torch.Tensor]
COSINE = 1 - 1e-4  # least cosine of the vectors of both
GAIN = 1.2  # of speed, from which it is worth a change
WORTH_SECONDS = 300  # of PyTorch for the remaining images; exporting, which may be in vain, takes 5 to 10
WORTH_BYTES = 2**28  # of weights; larger networks are hardly faster, and exporting takes several times their memory


def worth_a_try(encoder: ImageEncoder, seconds: float) -> bool:
    """seconds: that PyTorch would take for the remaining images."""
    if seconds <= WORTH_SECONDS:
        return False
    return sum(tensor.nbytes for tensor in encoder.state_dict().values()) < WORTH_BYTES and not missing_packages()


@torch.no_grad()
def onnx_encoder(encoder: ImageEncoder, encode: Encode, pixels: torch.Tensor, gain: float = 0.0) -> Encode:
    """`encode`, which calls the encoder, in ONNX Runtime. ValueError if its vectors of `pixels` are others, or if it is
    not `gain` times as fast."""
    graph = export_onnx(OutputTuple(encoder, encode), random_images(encoder.image_size), "image", ["vectors"])
    session = open_session(graph, torch.get_num_threads())

    def run(pixels: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(["vectors"], {"image": pixels.numpy()})[0])

    cosine = F.cosine_similarity(run(pixels), encode(pixels)).min().item()
    if not cosine >= COSINE:
        raise ValueError(f"its vectors differ from PyTorch's, cosine {cosine:.6f}")
    if gain and (faster := _seconds(encode, pixels) / _seconds(run, pixels)) < gain:
        raise ValueError(f"it is {faster:.2f} times as fast as PyTorch")
    return run


def _seconds(encode: Encode, pixels: torch.Tensor) -> float:
    """The shortest of three runs."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        encode(pixels)
        taken.append(time.perf_counter() - start)
    return min(taken)
