"""Settings of train.py: edit them here, or override one on the command line or by --config FILE.json.

Every other flag of Hugging Face's TrainingArguments works too. Defaults that differ from theirs are ViTP's recipe
(InternVL2.5's fine-tuning): AdamW at 2e-5, weight decay 0.01, cosine after a fifth of warm-up, drop path 0.1.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.cli.errors import CommandLineError
from common.cli.trainer_flags import read_flags

SHIPPED = Path(__file__).parent / "configs"


@dataclass
class ModelArguments:
    """model"""

    model_name_or_path: str | None = None  # folder of a whole model, Hugging Face's or InternVL's layout
    # or from parts: a timm name, NAME:FILE with weights of a file; an InternViT's folder, file, or config.json
    vision_config: str | None = None
    llm: str | None = None  # and a causal language model: folder, .gguf file, or config.json
    tokenizer: str | None = None  # folder of the tokenizer; otherwise the model's or language model's own
    attn_implementation: str | None = None  # otherwise flash_attention_2 where it is installed, else sdpa
    down_sample_ratio: float | None = None  # of the patch grid's sides; otherwise the model's own, 0.5 of parts
    drop_path_rate: float = 0.1  # stochastic depth of the vision encoder's last layer, 0 at the first
    freeze_llm: bool = False  # freeze the language model
    freeze_mlp: bool = False  # freeze the projector
    freeze_backbone: bool = False  # freeze the vision encoder
    freeze_batch_norm: bool = False  # keep the BatchNorm statistics of a pretrained vision encoder, of timm
    use_llm_lora: int = 0  # rank of a LoRA in place of the language model's own weights; 0: none
    use_backbone_lora: int = 0  # rank of a LoRA in place of the vision encoder's own weights; 0: none
    # probability, ratio: guide 0.75, 0.3 zeroed; paper 1, 0.75 and repo 0.25, 0.75 dropped
    TMAug_mode: Literal["guide", "paper", "repo"] = "guide"
    TMAug_prob: float | None = None  # probability that a sample's image tokens are masked; otherwise the mode's
    TMAug_ratio: float | None = None  # share of hidden image tokens; otherwise the mode's

    @property
    def drop_path(self) -> float:
        """A frozen encoder is not regularised."""
        return 0.0 if self.freeze_backbone else self.drop_path_rate


@dataclass
class DataArguments:
    """data"""

    meta_path: str | None = None  # JSON of the training data
    eval_meta_path: str | None = None  # JSON of evaluation data, for --eval_strategy
    conv_style: str = "internvl2_5"  # chat template: internvl2_5, chat (the tokenizer's own), or a .jinja file
    force_image_size: int | None = None  # pixels of a tile's side; otherwise the model's own
    dynamic_image_size: bool = True  # cut an image into tiles by its aspect ratio; otherwise one tile
    use_thumbnail: bool = True  # with several tiles, add the whole image as another
    min_dynamic_patch: int = 1  # fewest tiles of an image
    max_dynamic_patch: int = 6  # most tiles of a sample without thumbnails; the meta file's number takes precedence
    max_seq_length: int = 4096  # tokens of a sequence; longer samples lose turns, tiles, then words, in this order
    packing: bool = False  # several samples in each sequence; the batch size then counts sequences
    group_by_length: bool = False  # batches of samples of similar length
    stream_buffer: int = 4096  # streamed samples in memory, not decoded, of all devices; shuffled among each other
    cache_dir: str = "./.cache/conversations"  # of the files' indexes and the samples' lengths; may be deleted
    demo: bool = False  # a small model on drawn scenes, in minutes, without a network


@dataclass
class Training:
    """training, by Hugging Face's Trainer"""

    output_dir: str = "work_dirs/vitp"  # the model, checkpoint-N/ to resume from, settings, results
    resume_from_checkpoint: bool | str = False  # true: the newest valid checkpoint-N of output_dir; or one's folder
    num_train_epochs: float = 3.0
    max_steps: int = -1  # optimizer steps, in place of epochs; -1: not limited
    per_device_train_batch_size: int = 8  # samples of one device in one pass
    gradient_accumulation_steps: int = 1  # passes per optimizer step
    learning_rate: float = 2e-5  # peak
    vision_learning_rate: float = 0.0  # peak, of the vision encoder; 0: the same
    weight_decay: float = 0.01  # AdamW's
    lr_scheduler_type: str = "cosine"  # after the warm-up
    warmup_steps: float = 0.2  # optimizer steps, or below 1 their share
    bf16: bool | None = None  # mixed precision; by default where the GPU supports it
    deepspeed: str | None = None  # zero_stage1.json, zero_stage2.json or zero_stage3.json of vitp/configs, or a file
    max_nonfinite_steps: int = 5  # consecutive steps with a non-finite loss or gradient that end the run
    save_steps: float = 500  # optimizer steps between checkpoints
    dataloader_num_workers: int = min(4, os.cpu_count() or 1)  # processes that read data
    seed: int = 42
    log_level: str = "error"  # of transformers, whose warnings are errors here
    log_level_replica: str = "error"  # the same for the other processes
    remove_unused_columns: bool = False  # the dataset is not one of Hugging Face's, with columns to remove
    prediction_loss_only: bool = True  # evaluation keeps no logits


@dataclass
class Logging:
    """logging"""

    logging_dir: str = "./logs"  # one folder per run: TensorBoard, log.jsonl, skipped.jsonl
    logging_steps: float = 10  # optimizer steps between log entries
    run_name: str | None = None  # of its folder in logging_dir and in report_to; otherwise vitp-MODEL-DATE
    # besides TensorBoard: wandb, trackio, mlflow, swanlab, as far as installed
    report_to: list[str] = field(default_factory=list)


def read_values(argv: list[str], defaults: Mapping[str, object] | None = None) -> dict[str, Any]:
    """-> values of the dataclasses above and of Trainer. defaults: in place of those above."""
    description = "Visual instruction pretraining: a vision encoder is trained end to end with a language model."
    return read_flags((ModelArguments, DataArguments, Training, Logging), argv, description, defaults)


def read_command_line(argv: list[str], defaults: Mapping[str, object] | None = None) -> dict[str, Any]:
    """read_values, with the training data."""
    values = read_values(argv, defaults)
    if not values["demo"] and not values["meta_path"]:
        raise CommandLineError("--meta_path is missing: the JSON file that names the training data (or try --demo)")
    return values
