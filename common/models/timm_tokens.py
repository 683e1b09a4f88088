"""Tokens of a timm backbone: patches (B, N, V) and class token (B, V), whatever its layout."""

from typing import NamedTuple

import torch
from torch import nn


class Tokens(NamedTuple):
    """What a network knows of B images at one depth."""

    patches: torch.Tensor  # (B, N, V)
    cls: torch.Tensor | None  # (B, V); None where the network has no class token


def split_tokens(backbone: nn.Module, features: torch.Tensor) -> Tokens:
    """What a timm backbone's forward_features gives: tokens (B, prefixes + N, V), or a map in either order of axes."""
    if features.ndim == 3:
        prefixes = getattr(backbone, "num_prefix_tokens", 0)
        return Tokens(features[:, prefixes:], features[:, 0] if prefixes else None)
    if getattr(backbone, "output_fmt", "NCHW") == "NHWC":
        features = features.permute(0, 3, 1, 2)
    return Tokens(features.flatten(2).mT, None)


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) uint8 -> what a timm backbone reads, in the order that its convolutions are fastest in."""
    return ((pixels / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def backbone_tokens(backbone: nn.Module, image: torch.Tensor, layer: int = -1) -> Tokens:
    """A timm backbone's tokens; at layer -1 behind its final norm, before that as a block leaves them."""
    prefixes = getattr(backbone, "num_prefix_tokens", 0)
    try:
        if layer == -1:
            return split_tokens(backbone, backbone.forward_features(image))
        more = {"return_prefix_tokens": True} if prefixes else {}
        (found,) = backbone.forward_intermediates(
            image, indices=[layer], stop_early=True, intermediates_only=True, output_fmt="NCHW", **more
        )
    except AssertionError as error:
        raise ValueError(f"--layer {layer}: {error}") from None
    patches, prefix = found if prefixes else (found, None)
    return Tokens(patches.flatten(2).mT, prefix[:, 0] if prefixes else None)
