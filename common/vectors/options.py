"""Options of an image encoder's vectors, which are flags of the retrieval tools."""

from dataclasses import dataclass
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

ENCODING_OPTIONS = ("pooling", "layer", "flip", "tiles", "image_size")  # what determines a vector, besides the weights


@dataclass(frozen=True)
class ExtractorOptions:
    pooling: Literal["auto", "native", "cls", "mean", "gem", "cls+mean"] = "auto"  # auto: native, else mean
    layer: int = -1  # -1: the last block, -2: the one before, ...
    flip: bool = False  # average with the vector of the mirrored image
    tiles: PositiveInt = 1  # cut into at most so many squares and average their vectors
    image_size: NonNegativeInt = 0  # pixels of the square input; 0: the network's own
    batch_size: PositiveInt = 32  # images per batch
    num_workers: int = -1  # decoding processes; -1: none on a CPU, else up to 8
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 on a GPU that supports it, else fp32
    device: str = "auto"
    backend: Literal["auto", "eager", "onnx"] = "auto"  # auto: ONNX Runtime for many images on a CPU, where faster


DEFAULT_OPTIONS = ExtractorOptions()
