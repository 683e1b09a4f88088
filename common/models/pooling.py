"""Pooling of a network's tokens to one vector per image.

pixels (B, 3, S, S) uint8 -> patches (B, N, V), class token (B, V) of a block -> pooled -> (B, D), unit length
                          -> the network's native vector (B, D), if it was trained to give one
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from common.models.backbone import Tokens

GEM_POWER = 3.0


class ImageEncoder(nn.Module):
    """A network and its preprocessing; each kind of network is a subclass that implements the methods which raise here.

    preprocess: image (PIL) -> (3, S, S) uint8, apart from the network, so that loader processes need not hold it.
    """

    has_native = False  # whether the network was trained to give a vector that images are compared by
    preprocess: Callable[[Image.Image], torch.Tensor]
    image_size: int  # pixels, S

    def tokens(self, pixels: torch.Tensor, layer: int = -1) -> Tokens:
        """pixels (B, 3, S, S) uint8; layer -1 = the network's output, -2 = one block before, ..."""
        raise NotImplementedError

    def native_vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        """-> (B, D), what the network was trained to compare by."""
        raise NotImplementedError

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        """-> (M, D), unit length, in the space of native_vectors."""
        raise ValueError("these weights have no text encoder; searching by text needs those of a CLIP")

    def pooling(self, name: str = "auto") -> str:
        """'auto' -> 'native', or 'mean' if the network has no native vector."""
        if name == "auto":
            return "native" if self.has_native else "mean"
        if name == "native" and not self.has_native:
            raise ValueError(f"--pooling native: this network has no native vector; choose {', '.join(POOLINGS)}")
        return name

    def forward(self, pixels: torch.Tensor, pooling: str = "auto", layer: int = -1, flip: bool = False) -> torch.Tensor:
        """pixels (B, 3, S, S) uint8 -> (B, D) float32, unit length. flip: the mean with the mirrored image's vector."""
        name = self.pooling(pooling)
        if flip:
            return F.normalize(self(pixels, name, layer) + self(pixels.flip(-1), name, layer), dim=1)
        if name == "native":
            if layer != -1:
                raise ValueError(f"--layer {layer}: the native vector is of the last layer; choose another --pooling")
            return F.normalize(self.native_vectors(pixels).float(), dim=1)
        tokens = self.tokens(pixels, layer)
        if "cls" in name and tokens.cls is None:
            raise ValueError(f"--pooling {name}: this network has no class token; choose mean or gem")
        return F.normalize(POOLINGS[name](tokens), dim=1)


def _cls(tokens: Tokens) -> torch.Tensor:
    assert tokens.cls is not None
    return tokens.cls.float()


def _mean(tokens: Tokens) -> torch.Tensor:
    return tokens.patches.float().mean(1)


def _gem(tokens: Tokens) -> torch.Tensor:
    """Generalised mean (Radenovic et al. 2019, equation 3), between mean (power 1) and maximum.

    Negative values count as zero, as after the ReLU that the method was made for.
    """
    return tokens.patches.float().clamp(min=1e-6).pow(GEM_POWER).mean(1).pow(1 / GEM_POWER)


def _cls_and_mean(tokens: Tokens) -> torch.Tensor:
    """Both at unit length, so that neither dominates."""
    return torch.cat([F.normalize(_cls(tokens), dim=1), F.normalize(_mean(tokens), dim=1)], 1)


POOLINGS: dict[str, Callable[[Tokens], torch.Tensor]] = {
    "cls": _cls,
    "mean": _mean,
    "gem": _gem,
    "cls+mean": _cls_and_mean,
}
