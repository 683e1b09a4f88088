"""Flags of train.py, with types and defaults.

In addition to these, every flag of Hugging Face's TrainingArguments. Defaults that differ from theirs are ViTP's recipe
(InternVL2.5's fine-tuning): AdamW at 2e-5, weight decay 0.01, cosine after a fifth of warm-up, drop path 0.1.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import TrainingArguments
from transformers.hf_argparser import HfArg

from common.models.lora import LANGUAGE, PROJECTOR, VISION, Lora

SHIPPED = Path(__file__).parent / "configs"


@dataclass
class ModelArguments:
    model_name_or_path: str | None = HfArg(
        default=None, help="folder of a whole model, Hugging Face's or InternVL's layout"
    )
    vision_config: str | None = HfArg(
        default=None, help="or from parts: a timm name, an InternViT's folder, or its config.json"
    )
    llm: str | None = HfArg(default=None, help="and a causal language model: folder, .gguf file, or config.json")
    tokenizer: str | None = HfArg(
        default=None, help="folder of the tokenizer; otherwise the model's or language model's own"
    )
    attn_implementation: str | None = HfArg(
        default=None, help="otherwise flash_attention_2 where it is installed, else sdpa"
    )
    drop_path_rate: float = HfArg(
        default=0.1, help="stochastic depth of the vision encoder's last layer, 0 at the first"
    )
    freeze_llm: bool = HfArg(default=False, help="freeze the language model")
    freeze_mlp: bool = HfArg(default=False, help="freeze the projector")
    freeze_backbone: bool = HfArg(default=False, help="freeze the vision encoder")
    use_llm_lora: int = HfArg(default=0, help="rank of a LoRA in place of the language model's own weights; 0: none")
    use_backbone_lora: int = HfArg(
        default=0, help="rank of a LoRA in place of the vision encoder's own weights; 0: none"
    )
    TMAug_mode: Literal["guide", "paper", "repo"] = HfArg(
        default="guide", help="chance, ratio: guide 0.75, 0.3 zeroed; paper 1, 0.75 and repo 0.25, 0.75 dropped"
    )
    TMAug_prob: float | None = HfArg(
        default=None, help="chance that a sample's image tokens are masked; otherwise the mode's"
    )
    TMAug_ratio: float | None = HfArg(default=None, help="share of hidden image tokens; otherwise the mode's")

    @property
    def drop_path(self) -> float:
        """A frozen encoder is not regularised."""
        return 0.0 if self.freeze_backbone else self.drop_path_rate

    def trainable_parts(self) -> dict[str, bool | Lora]:
        """Arguments of common.models.lora.set_trainable."""

        def choose(part: str, frozen: bool, rank: int) -> bool | Lora:
            if frozen and rank:
                raise ValueError(f"--freeze_{part} and --use_{part}_lora contradict each other; give one of them")
            return Lora(rank, 2 * rank) if rank else not frozen

        return {
            LANGUAGE: choose("llm", self.freeze_llm, self.use_llm_lora),
            PROJECTOR: not self.freeze_mlp,
            VISION: choose("backbone", self.freeze_backbone, self.use_backbone_lora),
        }


@dataclass
class DataArguments:
    meta_path: str | None = HfArg(default=None, help="JSON of the training data")
    eval_meta_path: str | None = HfArg(default=None, help="JSON of evaluation data, for --eval_strategy")
    conv_style: str = HfArg(
        default="internvl2_5", help="chat template: internvl2_5, chat (the tokenizer's own), or a .jinja file"
    )
    force_image_size: int | None = HfArg(default=None, help="pixels of a tile's side; otherwise the model's own")
    dynamic_image_size: bool = HfArg(
        default=True, help="cut an image into tiles by its aspect ratio; otherwise one tile"
    )
    use_thumbnail: bool = HfArg(default=True, help="with several tiles, add the whole image as another")
    min_dynamic_patch: int = HfArg(default=1, help="fewest tiles of an image")
    max_dynamic_patch: int = HfArg(
        default=6, help="most tiles of a sample without thumbnails; the meta file's number takes precedence"
    )
    max_seq_length: int = HfArg(
        default=4096, help="tokens of a sequence; longer samples lose turns, tiles, then words, in this order"
    )
    packing: bool = HfArg(default=False, help="several samples in each sequence; the batch size then counts sequences")
    group_by_length: bool = HfArg(default=False, help="batches of samples of similar length")
    demo: bool = HfArg(default=False, help="a small model on drawn scenes, in minutes, without a network")


@dataclass
class RunArguments(TrainingArguments):
    learning_rate: float = HfArg(default=2e-5, help="peak")
    weight_decay: float = HfArg(default=0.01, help="AdamW's")
    lr_scheduler_type: str = HfArg(default="cosine", help="after the warm-up")
    warmup_steps: float = HfArg(default=0.2, help="optimizer steps, or below 1 their share")
    logging_steps: float = HfArg(default=10, help="optimizer steps between entries of log.jsonl")
    dataloader_num_workers: int = HfArg(default=min(4, os.cpu_count() or 1), help="processes that read data")
    log_level: str = HfArg(default="error", help="of transformers, whose warnings are errors here")
    log_level_replica: str = HfArg(default="error", help="the same for the other processes")
    max_nonfinite_steps: int = HfArg(
        default=5,
        help="consecutive optimizer steps with a non-finite loss or gradient that end the run; fewer are skipped",
    )
    bf16: bool | None = HfArg(default=None, help="mixed precision; by default where the GPU supports it")
    # The dataset is not one of Hugging Face's, with columns to remove, and evaluation keeps no logits.
    remove_unused_columns: bool = HfArg(default=False, help="do not change")
    prediction_loss_only: bool = HfArg(default=True, help="do not change")

    def __post_init__(self):
        if self.bf16 is None:
            self.bf16 = torch.cuda.is_available() and not (self.fp16 or self.use_cpu) and torch.cuda.is_bf16_supported()
        self.dataloader_pin_memory = self.dataloader_pin_memory and torch.cuda.is_available()
        self.deepspeed = _shipped(self.deepspeed)
        self.fsdp_config = _shipped(self.fsdp_config)
        self.label_names = ["labels"]
        super().__post_init__()
        self.do_train = True


def _shipped(path):
    """A configuration file in vitp/configs may be given by its name alone."""
    if isinstance(path, str) and not path.startswith("{"):
        for candidate in (Path(path), SHIPPED / path):
            if candidate.is_file():
                return str(candidate)
        names = ", ".join(sorted(file.name for file in SHIPPED.glob("*.json")))
        raise FileNotFoundError(f"{path}: no such file, nor one of those shipped: {names}")
    return path
