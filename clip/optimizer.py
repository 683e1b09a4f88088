"""Which parameter learns how fast: weight decay on matrices only, and a learning rate that falls with depth."""

import torch

from clip.model import CLIPModel

ABOVE_ALL_BLOCKS = {"proj", "head", "ln_post", "ln_final", "text_projection", "attnpool", "logit_scale", "logit_bias"}


def parameter_groups(model: CLIPModel, weight_decay: float, layer_decay: float = 1.0) -> list[dict]:
    """Groups for AdamW; 'scale' is the share of the learning rate (common/training/trainer.py).

    No decay for biases, norms, temperature and position tables (Radford et al. 2021, section 2.5). layer_decay < 1:
    each layer learns that much slower than the one above it (Clark et al. 2020, ELECTRA), which keeps what pretrained
    towers know.
    """
    scales = layer_scales(model, layer_decay)
    spared = {f"network.{name}" for name in model.network.no_weight_decay()}
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and name not in spared
            groups.setdefault((decays, scales[name]), []).append(parameter)
    return [
        {"params": members, "weight_decay": weight_decay if decays else 0.0, "scale": scale}
        for (decays, scale), members in groups.items()
    ]


def layer_scales(model: CLIPModel, decay: float) -> dict[str, float]:
    """Parameter name -> share of the learning rate: 1 at each tower's top, times `decay` per layer below it."""
    depths = {name: _layer_of(name) for name, _ in model.named_parameters()}
    tops: dict[str, int] = {}
    for tower, depth in depths.values():
        tops[tower] = max(tops.get(tower, 0), depth or 0)
    return {
        name: 1.0 if depth is None else decay ** (tops[tower] + 1 - depth) for name, (tower, depth) in depths.items()
    }


def _layer_of(name: str) -> tuple[str, int | None]:
    """-> tower, number of the layer: 0 the embeddings, 1 the first block; None what stands above all blocks."""
    tower = "image" if name.startswith("network.visual.") else "text"
    parts = name.split(".")
    for container in ("resblocks", "blocks", "layer", "layers", "block", "stages"):
        if container in parts[:-1] and parts[parts.index(container) + 1].isdigit():
            return tower, int(parts[parts.index(container) + 1]) + 1
    for part in parts:
        if part[:5] == "layer" and part[5:].isdigit():  # layer1 .. layer4 of a ResNet
            return tower, int(part[5:])
    above = (
        "proj",
        "head",
        "ln_post",
        "ln_final",
        "text_projection",
        "attnpool",
        "logit_scale",
        "logit_bias",
        "pooler",
    )
    return tower, None if any(part in above for part in parts) else 0
