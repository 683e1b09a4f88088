"""Learning rates of the parts of a vision-language model, in the groups of an optimizer."""

from collections.abc import Mapping

import torch
from torch import nn

from common.models.lora import part_of


def set_part_rates(optimizer: torch.optim.Optimizer, model: nn.Module, rates: Mapping[str, float]) -> None:
    """Move the weights of each part in `rates` into groups with a rate of their own."""
    parts = {id(weight): part_of(name) for name, weight in model.named_parameters()}
    for group in list(optimizer.param_groups):
        members = group["params"]
        group["params"] = [weight for weight in members if parts[id(weight)] not in rates]
        options = {name: value for name, value in group.items() if name not in ("params", "lr", "initial_lr")}
        for part, rate in rates.items():
            if own := [weight for weight in members if parts[id(weight)] == part]:
                optimizer.add_param_group({**options, "params": own, "lr": rate})
