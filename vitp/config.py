"""What can be chosen, with names, types and defaults: the flags of train.py.

Beside these, every flag of Hugging Face's TrainingArguments. Defaults that differ from theirs are ViTP's recipe
(InternVL2.5's fine-tuning): AdamW at 2e-5, weight decay 0.01, cosine after a fifth of warm-up, drop path 0.1.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainingArguments

from common.models.lora import LANGUAGE, PROJECTOR, VISION, Lora

SHIPPED = Path(__file__).parent / "configs"


def _choice(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass
class ModelArguments:
    model_name_or_path: str | None = _choice(None, "folder of a whole model, Hugging Face's or InternVL's layout")
    vision_config: str | None = _choice(None, "or parts: a timm name, an InternViT's folder, or its config.json")
    llm: str | None = _choice(None, "and a causal language model: folder, .gguf file, or config.json")
    tokenizer: str | None = _choice(None, "folder of the tokenizer; otherwise the model's or language model's own")
    attn_implementation: str | None = _choice(None, "otherwise flash_attention_2 where it is installed, else sdpa")
    drop_path_rate: float = _choice(0.1, "stochastic depth of the vision encoder's last layer, 0 at the first")
    freeze_llm: bool = _choice(False, "do not train the language model")
    freeze_mlp: bool = _choice(False, "do not train the projector")
    freeze_backbone: bool = _choice(False, "do not train the vision encoder")
    use_llm_lora: int = _choice(0, "rank of a LoRA in place of the language model's own weights; 0: none")
    use_backbone_lora: int = _choice(0, "rank of a LoRA in place of the vision encoder's own weights; 0: none")
    TMAug_mode: str = _choice("guide", "guide: 0.75, 0.3, zeroed. paper: 1, 0.75, dropped. repo: 0.25, 0.75, dropped")
    TMAug_prob: float | None = _choice(None, "chance that a sample's image tokens are masked; otherwise the mode's")
    TMAug_ratio: float | None = _choice(None, "share of them that is hidden; otherwise the mode's")

    def trainable_parts(self) -> dict[str, bool | Lora]:
        """What common/models/lora.py is to train of each part."""
        for part, frozen, rank in (
            ("llm", self.freeze_llm, self.use_llm_lora),
            ("backbone", self.freeze_backbone, self.use_backbone_lora),
        ):
            if frozen and rank:
                raise ValueError(f"--freeze_{part} and --use_{part}_lora contradict each other; give one of them")
        return {
            LANGUAGE: Lora(self.use_llm_lora, 2 * self.use_llm_lora) if self.use_llm_lora else not self.freeze_llm,
            PROJECTOR: not self.freeze_mlp,
            VISION: Lora(self.use_backbone_lora, 2 * self.use_backbone_lora)
            if self.use_backbone_lora
            else not self.freeze_backbone,
        }


@dataclass
class DataArguments:
    meta_path: str | None = _choice(None, "JSON of the training data")
    eval_meta_path: str | None = _choice(None, "JSON of data to evaluate on, with --eval_strategy")
    conv_style: str = _choice("internvl2_5", "chat template: internvl2_5, chat (the tokenizer's own), or a .jinja file")
    force_image_size: int | None = _choice(None, "pixels of a tile's side; otherwise the model's own")
    dynamic_image_size: bool = _choice(True, "cut an image into the tiles that suit its shape; otherwise one tile")
    use_thumbnail: bool = _choice(True, "with several tiles, add the whole image as one")
    min_dynamic_patch: int = _choice(1, "fewest tiles of an image")
    max_dynamic_patch: int = _choice(
        6, "most tiles of a sample, thumbnails aside; the meta file's number goes before it"
    )
    max_seq_length: int = _choice(
        4096, "tokens of a sequence; longer samples lose turns, tiles, then words, in this order"
    )
    packing: bool = _choice(False, "several samples in each sequence; a batch is then of so many sequences")
    group_by_length: bool = _choice(False, "batches of samples of similar length")
    demo: bool = _choice(False, "a small model on drawn scenes, in minutes, without a network")


@dataclass
class RunArguments(TrainingArguments):
    learning_rate: float = _choice(2e-5, "at its peak")
    weight_decay: float = _choice(0.01, "AdamW's")
    lr_scheduler_type: str = _choice("cosine", "after the warm-up")
    warmup_steps: float = _choice(0.2, "optimizer steps, or below 1 their share")
    logging_steps: float = _choice(10, "optimizer steps between entries of log.jsonl")
    dataloader_num_workers: int = _choice(min(4, os.cpu_count() or 1), "processes that read data")
    log_level: str = _choice("error", "of transformers; what its warnings are about is an error here")
    log_level_replica: str = _choice("error", "the same, of the other processes")
    max_nonfinite_steps: int = _choice(
        5, "in a row, their loss or gradient not finite, that end the run; fewer are left out"
    )
    bf16: bool | None = _choice(None, "mixed precision; otherwise where the GPU has it")
    # Not a dataset of transformers' own: it has no columns to remove, and evaluation keeps no logits.
    remove_unused_columns: bool = _choice(False, "leave it")
    prediction_loss_only: bool = _choice(True, "leave it")

    def __post_init__(self):
        if self.bf16 is None:
            self.bf16 = torch.cuda.is_available() and not (self.fp16 or self.use_cpu) and torch.cuda.is_bf16_supported()
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        self.deepspeed = _shipped(self.deepspeed)
        self.fsdp_config = _shipped(self.fsdp_config)
        self.label_names = ["labels"]
        super().__post_init__()
        self.do_train = True  # this script has nothing else to do


def _shipped(path):
    """A configuration of vitp/configs may be given by its name alone."""
    if isinstance(path, str) and not path.startswith("{"):
        for place in (Path(path), SHIPPED / path):
            if place.is_file():
                return str(place)
        names = ", ".join(sorted(one.name for one in SHIPPED.glob("*.json")))
        raise FileNotFoundError(f"{path}: no such file, nor one of those shipped: {names}")
    return path
