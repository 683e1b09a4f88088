"""Which weights learn: all, some, or low-rank additions to them (arXiv 2106.09685)?"""

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from vitp.model import VisualInstructionModel


def set_trainable(
    model: VisualInstructionModel,
    freeze_llm: bool,
    freeze_mlp: bool,
    freeze_backbone: bool,
    llm_lora: int = 0,
    backbone_lora: int = 0,
) -> nn.Module:
    """-> the model, or a PeftModel around it whose checkpoints hold the additions and every part that learns whole."""
    parts = {
        "language_model": (freeze_llm, llm_lora),
        "multi_modal_projector": (freeze_mlp, 0),
        "vision_tower": (freeze_backbone, backbone_lora),
    }
    for flag, name in (("llm", "language_model"), ("backbone", "vision_tower")):
        if all(parts[name]):
            raise ValueError(f"--freeze_{flag} and --use_{flag}_lora say the opposite of each other; give one")
    if all(frozen for frozen, _ in parts.values()):
        raise ValueError("--freeze_llm, --freeze_mlp and --freeze_backbone together leave nothing to train")
    for name, (frozen, _) in parts.items():
        getattr(model.model, name).requires_grad_(not frozen)
    model.lm_head.requires_grad_(not freeze_llm)
    ranks = {name: rank for name, (_, rank) in parts.items() if rank}
    if not ranks:
        return model
    # peft trains copies of these; of a language model whose head is its embeddings, the two then learn apart.
    whole = [name for name, (frozen, rank) in parts.items() if not frozen and not rank]
    config = LoraConfig(
        r=max(ranks.values()),
        lora_alpha=2 * max(ranks.values()),
        rank_pattern={rf".*\.{name}\..*": rank for name, rank in ranks.items()},
        alpha_pattern={rf".*\.{name}\..*": 2 * rank for name, rank in ranks.items()},
        target_modules=[name for part in ranks for name in _linear_layers(model, part)],
        modules_to_save=[*whole, *(["lm_head"] if "language_model" in whole else [])] or None,
    )
    return get_peft_model(model, config)


def merged(model: nn.Module) -> VisualInstructionModel:
    """A PeftModel with its additions added up, or the model as it is."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model


def _linear_layers(model: VisualInstructionModel, part: str) -> list[str]:
    """Full names: the same short ones occur in both towers."""
    module = getattr(model.model, part)
    return [f"model.{part}.{name}" for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
