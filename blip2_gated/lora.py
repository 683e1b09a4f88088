"""LoRA (Hu et al. 2022) on the projections that read the image: W_K and W_V of every cross-attention, nothing else."""

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

TARGETS = r"encoder\.layer\.\d+\.crossattention\.attention\.(key|value)"


def add_lora(qformer: nn.Module, rank: int, alpha: float, dropout: float) -> list[LoraLayer]:
    """Add trainable adapters to a Q-Former in place -> its LoRA layers. They start as the identity; peft freezes the
    weights under them."""
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=TARGETS)
    inject_adapter_in_model(config, qformer)
    return [module for module in qformer.modules() if isinstance(module, LoraLayer)]


def lora_parameters(qformer: nn.Module) -> list[nn.Parameter]:
    return [parameter for name, parameter in qformer.named_parameters() if ".lora_" in name]
