"""Parameter groups: weight decay for matrices only, learning rates that fall with depth."""

import re

import torch

from clip.model import CLIPModel

TOP = {"proj", "head", "ln_post", "ln_final", "text_projection", "attnpool", "logit_scale", "logit_bias", "pooler"}
BLOCKS = [re.compile(rf"\.{name}\.(\d+)\.") for name in ("resblocks", "blocks", "layer", "layers", "block", "stages")]
STAGE = re.compile(r"\.layer(\d+)\.")  # layer1 .. layer4 of a ResNet


def parameter_groups(model: CLIPModel, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Groups for AdamW; 'scale' is the share of the learning rate (common/training/schedule.py).

    No decay for biases, norms, temperature and position tables (Radford et al. 2021, section 2.5). layer_decay < 1: the
    learning rate of each layer is that share of the one above it (Clark et al. 2020, ELECTRA), which preserves
    pretrained features.
    """
    scales = layer_scales(model, layer_decay)
    no_decay = {f"network.{name}" for name in model.network.no_weight_decay()}
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in no_decay
            groups.setdefault((decays, scales[name]), []).append(parameter)
    return [
        {"params": members, "weight_decay": weight_decay if decays else 0.0, "scale": scale}
        for (decays, scale), members in groups.items()
    ]


def layer_scales(model: CLIPModel, decay: float) -> dict[str, float]:
    """Parameter name -> share of the learning rate: 1 at each tower's top, times `decay` per layer below it."""
    depths = {name: _depth(name) for name, _ in model.named_parameters()}
    tower_of = {name: name.startswith("network.visual.") for name in depths}
    tops = {
        tower: 1 + max((depth or 0 for name, depth in depths.items() if tower_of[name] == tower), default=0)
        for tower in (True, False)
    }
    return {name: 1.0 if depth is None else decay ** (tops[tower_of[name]] - depth) for name, depth in depths.items()}


def _depth(name: str) -> int | None:
    """Depth of a parameter in its tower: 0 the embeddings, 1 the first block; None what lies above all blocks."""
    if match := next(filter(None, (block.search(name) for block in BLOCKS)), None):
        return int(match[1]) + 1
    if match := STAGE.search(name):
        return int(match[1])
    return None if TOP & set(name.split(".")) else 0
