"""Tokens of timm backbones in any layout: patches (B, N, V) and class token (B, V)."""

from typing import Any, NamedTuple

import torch
from torch import nn


class Tokens(NamedTuple):
    """Features of B images at one depth of a network."""

    patches: torch.Tensor  # (B, N, V)
    cls: torch.Tensor | None  # (B, V); None where the network has no class token


def split_tokens(backbone: nn.Module, features: torch.Tensor) -> Tokens:
    """features: of forward_features; tokens (B, prefixes + N, V), or a map in either order of axes."""
    if features.ndim == 3:
        prefixes = getattr(backbone, "num_prefix_tokens", 0) or 0
        return Tokens(features[:, prefixes:], features[:, 0] if prefixes else None)
    if getattr(backbone, "output_fmt", "NCHW") == "NHWC":
        features = features.permute(0, 3, 1, 2)
    return Tokens(features.flatten(2).mT, None)


def normalise(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) uint8 0..255 or float 0..1 -> input of a timm backbone, in the layout that is fastest for it."""
    unit = pixels / 255 if pixels.dtype == torch.uint8 else pixels
    return ((unit - mean) / std).contiguous(memory_format=torch.channels_last)


def backbone_tokens(backbone: Any, image: torch.Tensor, layer: int = -1) -> Tokens:
    """At layer -1 after the final norm, at earlier layers the output of the block."""
    prefixes = getattr(backbone, "num_prefix_tokens", 0)
    try:
        if layer == -1:
            return split_tokens(backbone, backbone.forward_features(image))
        options = {"return_prefix_tokens": True} if prefixes else {}
        (output,) = backbone.forward_intermediates(
            image, indices=[layer], stop_early=True, intermediates_only=True, output_fmt="NCHW", **options
        )
    except AssertionError as error:
        raise ValueError(f"--layer {layer}: {error}") from None
    if not prefixes:
        return Tokens(output.flatten(2).mT, None)
    patches, prefix = output
    return Tokens(patches.flatten(2).mT, prefix[:, 0])
