"""Weights of a timm backbone from a local file, as timm or any other publisher saved them.

file -> tensors without wrappers and prefixes -> timm's own converter -> names of the backbone, every tensor checked
"""

import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import timm
from pydantic import FiniteFloat
from typing_extensions import TypedDict

from common.models.checkpoint_file import first_line, load_every_tensor
from common.models.weight_files import find_weights, read_weights, strip_prefixes
from common.text.schema import read_checked

CONVERTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")  # in timm's modules
STATISTICS = ("mean", "std", "input_size", "interpolation")
COUNTER = "num_batches_tracked"  # of BatchNorm, unused; files from before torch 0.4.1 have none
# efficientnet_pytorch, timm: the network, and its blocks without and with an expansion
STEM_AND_HEAD = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
PLAIN_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"} | SQUEEZE
EXPANDED_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
} | SQUEEZE


class Statistics(TypedDict, total=False):
    mean: list[FiniteFloat]
    std: list[FiniteFloat]
    input_size: list[int]  # channels, rows, columns
    interpolation: str


class TimmConfig(TypedDict, total=False):
    """config.json of timm; of other libraries', it has no pretrained_cfg."""

    architecture: str
    pretrained_cfg: Statistics


def statistics_beside(path: str | Path, architecture: str) -> dict[str, Any]:
    """pretrained_cfg of timm's config.json in the folder of a file of weights, {} without one: its normalisation and
    size belong to the weights. ValueError if the weights are of another architecture."""
    config = find_weights(path).parent / "config.json"
    settings = read_checked(config, TimmConfig) if config.is_file() else {}
    if "pretrained_cfg" not in settings:
        return {}
    if settings.get("architecture") != architecture:
        raise ValueError(f"{path}: weights of {settings.get('architecture')}, by its config.json, not {architecture}")
    found = {name: value for name, value in settings["pretrained_cfg"].items() if name in STATISTICS}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def load_backbone_weights(backbone: Any, path: str | Path) -> None:
    """Strict except for the classifier, which a backbone does not have."""
    architecture, expected = backbone.pretrained_cfg["architecture"], backbone.state_dict()
    weights: dict[str, Any] = strip_prefixes(read_weights(path), expected)
    if "_conv_stem.weight" in weights:
        weights = _from_efficientnet_pytorch(weights, backbone, path)
    if "input_resolution" in weights and "quickgelu" not in architecture:  # one of the constants in OpenAI's files
        raise ValueError(f"{path}: OpenAI's CLIP, which needs QuickGELU; timm's names of it hold _clip_quickgelu_")
    try:
        weights = _converter(architecture)(weights, backbone)
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not weights of {architecture} ({first_line(error)})") from error
    classifier = backbone.pretrained_cfg.get("classifier") or ()
    heads = tuple(  # what holds the last layer, as LeViT's with a BatchNorm of its own
        f"{name.rpartition('.')[0] or name}." for name in ([classifier] if isinstance(classifier, str) else classifier)
    )
    weights = {name: value for name, value in weights.items() if name in expected or not name.startswith(heads)}
    weights = {name: value for name, value in expected.items() if name.endswith(COUNTER)} | weights
    load_every_tensor(backbone, weights, path, architecture)


def _converter(architecture: str) -> Callable[[dict, Any], dict]:
    """timm's own, from the names and position tables of an architecture's publishers; without one, names stay."""
    module = sys.modules[timm.models.model_entrypoint(architecture).__module__]
    convert = next((getattr(module, name) for name in CONVERTERS if hasattr(module, name)), None)
    if convert is None:
        return lambda weights, backbone: weights
    parameters = signature(convert).parameters
    options = {"adapt_layer_scale": True} if "adapt_layer_scale" in parameters else {}  # as for DeiT III
    if len(parameters) == 1:
        return lambda weights, backbone: convert(weights)
    return lambda weights, backbone: convert(weights, backbone, **options)


def _from_efficientnet_pytorch(weights: dict[str, Any], backbone: Any, path: str | Path) -> dict[str, Any]:
    """lukemelas' names, and those of whoever trained from his code -> timm's. Padding and BatchNorm epsilon are
    TensorFlow's, so that the tensors fit timm's plain EfficientNets, but give other features there."""
    architecture = backbone.pretrained_cfg["architecture"]
    if not architecture.startswith("tf_efficientnet_"):
        name = f"tf_{architecture}" if timm.is_model(f"tf_{architecture}") else "tf_efficientnet_b0 to _b8 or _lite0"
        raise ValueError(
            f"{path}: weights of efficientnet_pytorch, with TensorFlow's padding and BatchNorm epsilon; "
            f"the backbone's name for them is {name}, not {architecture}"
        )
    names = {ours: f"{theirs}." for ours, theirs in STEM_AND_HEAD.items()}
    blocks = [(f"blocks.{s}.{b}.", block) for s, stage in enumerate(backbone.blocks) for b, block in enumerate(stage)]
    for number, (place, block) in enumerate(blocks):
        parts = EXPANDED_BLOCK if hasattr(block, "conv_pwl") else PLAIN_BLOCK
        names |= {f"_blocks.{number}.{ours}": f"{place}{theirs}." for ours, theirs in parts.items()}
    converted = {}
    for name, value in weights.items():
        module, _, tensor = name.rpartition(".")
        if module != "_fc":
            converted[names.get(module, f"{module}.") + tensor] = value
    return converted
