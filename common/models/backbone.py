"""Any timm backbone behind one interface.

image (B, 3, H, W) -> patches (B, N, V), pooled (B, V), feature_maps (B, C, h, w) from shallow to deep

Prefix tokens, channel order, pooling and normalisation are read from the timm model, never guessed from its name.
"""

import copy
import re
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from common.cli.names import unknown_name
from common.models.backbone_weights import load_backbone_weights, statistics_beside
from common.models.checkpoint_file import check_finite, first_line

WITH_SOURCE = re.compile(r"((?:(?:hf[-_]hub|local-dir):)?[^:]*)(:?)(.*)")  # name of timm.create_model, colon, weights


class Tokens(NamedTuple):
    """Features of B images at one depth of a network."""

    patches: torch.Tensor  # (B, N, V)
    cls: torch.Tensor | None  # (B, V); None where the network has no class token


class VisionFeatures(NamedTuple):
    patches: torch.Tensor  # (B, N, V), row by row from the top left
    pooled: torch.Tensor  # (B, V), pooled as the backbone itself does before its classifier
    feature_maps: list[torch.Tensor]  # (B, C_i, h_i, w_i), some intermediate maps, shallow to deep
    grid: tuple[int, int]  # rows, columns of the patches


class VisionTower(nn.Module):
    """A timm backbone without its classifier. It normalises its input itself.

    model_name: as in resolve_backbone. pretrained: True (its weights, downloaded once), False, or a file of weights for
    this architecture. image_size: pixels of the square input; None keeps the backbone's own. model_args: further
    arguments of timm.create_model. The attributes model_name and model_args build the same tower without a network.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        model_name: str,
        pretrained: bool | str = False,
        image_size: int | None = None,
        num_feature_maps: int = 5,
        drop_path_rate: float = 0.0,
        gradient_checkpointing: bool = False,
        model_args: dict[str, Any] | None = None,
    ):
        super().__init__()
        # Channels last makes convolutions a third faster, on CPUs and on tensor cores; transformers are unaffected.
        self.backbone = create_backbone(model_name, pretrained, image_size, drop_path_rate, model_args).to(
            memory_format=torch.channels_last
        )
        if gradient_checkpointing:
            self.backbone.set_grad_checkpointing(True)
        config = resolve_model_data_config(self.backbone)
        statistics = {name: list(value) if isinstance(value, tuple) else value for name, value in config.items()}
        self.model_name: str = self.backbone.pretrained_cfg["architecture"]
        self.model_args = model_args or {**self.backbone.pretrained_model_args, "pretrained_cfg_overlay": statistics}
        self.image_size: int = image_size or config["input_size"][-1]
        self.interpolation: str = config["interpolation"]
        self.frozen = False
        self.frozen_modules: list[nn.Module] = []  # of freeze_maps
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)

        stages = len(self.backbone.feature_info)
        self.feature_map_indices = sorted(
            {round(step * stages / num_feature_maps) - 1 for step in range(1, num_feature_maps + 1)}
        )
        self.eval()
        features = check_features(model_name, self.backbone, self.image_size, self.feature_map_indices)
        self.train()
        self.patch_width, self.pooled_width = features.patches.shape[-1], features.pooled.shape[-1]
        self.feature_map_widths = [feature_map.shape[1] for feature_map in features.feature_maps]

    def forward(self, image: torch.Tensor) -> VisionFeatures:
        """image (B, 3, H, W): uint8 0..255, or float 0..1."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"image {tuple(image.shape)}: expected (B, 3, H, W)")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return read_features(self.backbone, normalise(image, self.mean, self.std), self.feature_map_indices)

    def freeze(self, frozen: bool) -> None:
        """Frozen: no gradient, fixed BatchNorm statistics, no drop path."""
        self.frozen = frozen
        self.backbone.train(self.training and not frozen)

    @torch.enable_grad()  # also where a model is loaded under no_grad
    def freeze_maps(self, count: int) -> None:
        """Keep every layer that the `count` shallowest feature maps read out of training."""
        if not 0 <= count <= len(self.feature_map_indices):
            raise ValueError(f"FROZEN_MAPS {count}: this backbone has {len(self.feature_map_indices)} feature maps")
        if not count:
            return
        parameters = list(self.backbone.parameters())
        mode = self.training
        self.eval()
        blank = torch.zeros(1, 3, self.image_size, self.image_size, device=self.mean.device)
        summed = self(blank).feature_maps[count - 1].sum()
        for parameter, gradient in zip(parameters, torch.autograd.grad(summed, parameters, allow_unused=True)):
            parameter.requires_grad_(gradient is None)
        # Their BatchNorm keeps the statistics, too.
        self.frozen_modules = [
            module
            for module in self.backbone.modules()
            if (own := list(module.parameters())) and not any(parameter.requires_grad for parameter in own)
        ]
        self.train(mode)

    def train(self, mode: bool = True) -> "VisionTower":
        super().train(mode)
        self.backbone.train(mode and not getattr(self, "frozen", False))
        for module in getattr(self, "frozen_modules", []):
            module.eval()
        return self


def read_features(backbone: Any, pixels: torch.Tensor, feature_map_indices: list[int]) -> VisionFeatures:
    """pixels (B, 3, H, W), normalised -> features; feature_map_indices count the backbone's own feature_info."""
    final, feature_maps = backbone.forward_intermediates(pixels, indices=feature_map_indices, output_fmt="NCHW")
    patches, grid = split_tokens(backbone, final).patches, feature_maps[-1].shape[-2:]
    if final.ndim == 4:  # it may be finer than the last map, where scales are fused at the end
        grid = final.shape[1:3] if getattr(backbone, "output_fmt", "NCHW") == "NHWC" else final.shape[2:]
    return VisionFeatures(patches, backbone.forward_head(final, pre_logits=True), feature_maps, tuple(grid))


@torch.no_grad()
def check_features(
    model_name: str, backbone: Any, image_size: int, feature_map_indices: Sequence[int] = (-1,)
) -> VisionFeatures:
    """Features of a blank image. ValueError for a network whose features are not what VisionFeatures says, as those of
    several scales side by side (CrossViT, CoaT) or of a class token alone (PiT) are not."""
    blank = torch.zeros(1, 3, image_size, image_size, device=next(backbone.parameters()).device)
    try:
        features = read_features(backbone, blank, list(feature_map_indices))
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{model_name}: cannot take {image_size}-pixel images, or gives no grid of patches ({first_line(error)}); "
            "choose another size or backbone"
        ) from error
    rows, columns = features.grid
    _, count, width = features.patches.shape
    sides = [feature_map.shape[-1] for feature_map in features.feature_maps]
    if count != rows * columns or width != backbone.num_features:
        fault = f"{count} patches of width {width}, not {rows} x {columns} of width {backbone.num_features}"
    elif features.pooled.ndim != 2:
        fault = f"a pooled feature of shape {tuple(features.pooled.shape)}, not one vector"
    elif sides != sorted(sides, reverse=True):
        fault = f"feature maps of {sides} columns, not from fine to coarse"
    else:
        return features
    raise ValueError(f"{model_name}: cannot be used, it gives {fault}; choose another backbone")


def split_tokens(backbone: nn.Module, features: torch.Tensor) -> Tokens:
    """features: of forward_features; tokens (B, prefixes + N, V), or a map in either order of axes."""
    if not torch.is_tensor(features):
        raise ValueError(f"{len(features)} groups of features in place of one grid of patches")
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
    # Some networks do not have their class token yet in earlier layers, or do not return it.
    prefixes = "return_prefix_tokens" in signature(backbone.forward_intermediates).parameters
    prefixes = prefixes and getattr(backbone, "num_prefix_tokens", 0) > 0
    try:
        if layer == -1:
            return split_tokens(backbone, backbone.forward_features(image))
        options = {"return_prefix_tokens": True} if prefixes else {}
        (output,) = backbone.forward_intermediates(
            image, indices=[layer], stop_early=True, intermediates_only=True, output_fmt="NCHW", **options
        )
    except AssertionError as error:
        raise ValueError(f"--layer {layer}: {error}") from None
    patches, cls = (output[0], output[1][:, 0]) if prefixes else (output, None)
    return Tokens(patches.flatten(2).mT, cls)


def create_backbone(
    model_name: str,
    pretrained: bool | str = False,
    image_size: int | None = None,
    drop_path_rate: float = 0.0,
    model_args: dict[str, Any] | None = None,
) -> Any:
    """A timm model without its classifier. model_name: as in resolve_backbone; pretrained: True (its weights), False,
    or a file for this architecture; image_size: pixels, for models that can be built for another one; model_args:
    further arguments of timm.create_model."""
    if "checkpoint_path" in (model_args or {}):
        raise ValueError("model_args: checkpoint_path is not used; a checkpoint holds its weights itself")
    architecture, options = resolve_backbone(model_name)
    options |= {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    if isinstance(pretrained, str):
        options["pretrained_cfg_overlay"] = statistics_beside(pretrained, architecture)
    try:
        backbone = cast(
            Any,
            timm.create_model(architecture, pretrained is True, **options | (model_args or {}) | {"num_classes": 0}),
        )
    except (OSError, RuntimeError) as error:
        if pretrained is not True:
            raise
        raise _unavailable(model_name, error) from error
    if pretrained is True:
        check_finite(backbone.state_dict(), model_name)
    if not hasattr(backbone, "forward_intermediates"):
        raise ValueError(f"{model_name}: timm has no intermediate features for it; choose another backbone")
    if isinstance(pretrained, str):
        load_backbone_weights(backbone, pretrained)
    if image_size and hasattr(backbone, "set_input_size"):  # position tables are resampled here
        try:
            backbone.set_input_size(img_size=image_size)
        except (AssertionError, ValueError) as error:
            raise ValueError(f"{model_name}: cannot take {image_size}-pixel images ({error})") from error
    return backbone


def split_source(model_name: str) -> tuple[str, str]:
    """NAME:FILE -> NAME as in resolve_backbone, FILE; '' for a name alone."""
    name, colon, source = cast(re.Match, WITH_SOURCE.fullmatch(model_name)).groups()
    if colon and not source:
        raise ValueError(f"{model_name}: nothing after the colon; expected a file of weights, or random")
    return name, source


def resolve_backbone(model_name: str) -> tuple[str, dict[str, Any]]:
    """A name of timm, `timm/NAME`, `hf-hub:OWNER/NAME` or `local-dir:FOLDER` -> architecture, the further arguments of
    timm.create_model for this model: where its weights are, what they were trained on, and how it differs."""
    if model_name.startswith("timm/"):  # its own account on the Hub
        name = model_name.removeprefix("timm/")
        model_name = name if timm.is_model(name.split(".")[0]) else f"hf-hub:{model_name}"
    source, name = timm.models.parse_model_name(model_name)
    architecture = name.split(".")[0]
    if source is None and not timm.is_model(architecture):
        raise ValueError(unknown_name(name, timm.list_models(), "timm model"))
    try:
        options = timm.models.resolve_model_input_args(model_name)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        if source is None:  # the tag behind the architecture
            raise ValueError(unknown_name(name, timm.list_pretrained(f"{architecture}.*"), "timm model")) from None
        raise _unavailable(model_name, error) from error
    return options.pop("model_name"), options


def _unavailable(model_name: str, error: Exception) -> ValueError:
    reason = "its config.json names no architecture of timm" if isinstance(error, KeyError) else first_line(error)
    remedy = "connect to the internet once, give a downloaded folder as local-dir:FOLDER or a file of weights, or none"
    if model_name.startswith("local-dir:"):
        remedy = "expected timm's config.json and weights, as tools/export_style.py --format timm writes them"
    return ValueError(f"{model_name}: cannot be loaded ({reason}); {remedy}")


def write_timm_folder(
    folder: str | Path, backbone: nn.Module, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> None:
    """config.json and model.safetensors, from which timm builds the backbone:
    timm.create_model("local-dir:FOLDER", pretrained=True), or "hf-hub:owner/name" once it is on the Hub."""
    # safetensors needs contiguous memory, and convolutions are trained channels last.
    contiguous = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
    preprocessing = {
        "input_size": (3, image_size, image_size),
        "mean": tuple(mean),
        "std": tuple(std),
        "interpolation": "bicubic",
        "crop_pct": 1.0,  # the whole of the scaled image's side
    }
    timm.models.save_for_hf(contiguous, str(folder), safe_serialization=True, data_config=preprocessing)
