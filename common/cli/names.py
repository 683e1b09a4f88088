"""Names of settings and flags as people type them -> the names here.

`--batch-size 8`, `--lr 1e-4`, `--bs 8`, `--no_compile`, `--amp`: what timm, open_clip and transformers call it works.
"""

import os
import re
import sys
from collections.abc import Iterable
from difflib import SequenceMatcher
from functools import cache

# Each line: one setting under its names here, in timm, open_clip and transformers.
SYNONYMS = [
    set(line.split())
    for line in """
    data_dir root data train_data data_path data_root dataset dataset_dir meta_path
    image_dir images image_root data_dir data_root data_path
    model_name blip2 model arch architecture model_name_or_path model_id
    batch_size bs b train_batch_size per_device_train_batch_size
    epochs num_epochs num_train_epochs max_epochs
    learning_rate lr base_lr
    min_learning_rate min_lr lr_min
    weight_decay wd
    warmup_steps warmup num_warmup_steps warmup_iters
    clip_norm gradient_clip_norm clip_grad max_grad_norm grad_clip_norm
    accumulation accum_batches accum_freq grad_accum_steps gradient_accumulation_steps gradient_accumulation grad_accum
    num_workers workers j dataloader_num_workers
    precision mixed_precision amp_dtype
    gradient_checkpointing grad_checkpointing grad_checkpoint
    compile torchcompile torch_compile
    ema_decay model_ema_decay
    drop_path drop_path_rate
    dropout drop drop_rate
    image_size img_size input_size resolution
    val_split val_size validation_split
    val_data val_dir validation_data
    epoch_samples train_num_samples
    checkpoint_dir output_dir output save_dir out_dir
    log_dir logs logdir logging_dir
    log_steps logging_steps log_interval log_every_n_steps
    save_epochs save_frequency
    resume resume_from_checkpoint
    run_name name experiment exp_name experiment_name
    lora_rank lora_r
    projector_learning_rate mm_projector_lr
    max_length model_max_length max_seq_length
    image_dir image_folder
    patience early_stopping_patience
    lock_image freeze_image freeze_vision
    layer select_layer
    weights checkpoint ckpt checkpoint_path weights_path vit_checkpoint model model_path model_name_or_path
    num_beams beams beam_size
    max_new_tokens max_len max_length
    top_k topk k
    kind index index_type
    main main_weight
    style_hit style_hit_weight hit_weight
    consistency consistency_weight consistency_kl_weight kl_weight
    hidden hidden_dim hidden_size
    num_tokens num_control_tokens
    rank r lora_r
    model_id model_path
    image image_file image_path
    attention attn_implementation
    """.splitlines()
    if line.strip()
]
# A flag that needs no value -> a setting and its value.
SWITCHES = {
    "amp": ("precision", "auto"),
    "bf16": ("precision", "bf16"),
    "fp16": ("precision", "fp16"),
    "cpu": ("device", "cpu"),
    "use_cpu": ("device", "cpu"),
    "no_cuda": ("device", "cpu"),
    "model_ema": ("ema_decay", "0.9998"),
    "wandb": ("report_to", "wandb"),
    "load_4bit": ("bits", "4"),
    "load_in_4bit": ("bits", "4"),
    "load_8bit": ("bits", "8"),
    "load_in_8bit": ("bits", "8"),
}
# What there is no setting for, where there is one of the name in front: learning_rate in training, hosts for the page.
ABSENT = {
    "learning_rate": {
        "the optimizer is always AdamW": "opt optim optimizer momentum",
        "the schedule is always a linear warmup and a cosine": "sched scheduler lr_scheduler lr_scheduler_type",
        "the warmup is counted in optimizer steps": "warmup_epochs warmup_ratio",
        "torchrun or accelerate launch starts a process on each device": "gpus gpu devices num_gpus world_size "
        "local_rank",
        "the model's own config.json decides that": "down_sample_ratio vision_select_layer ps_version "
        "mm_vision_select_layer mm_projector_type mm_use_im_start_end mm_use_im_patch_token version",
        "the tokenizer is always the fast one": "use_fast_tokenizer",
        "the format of the data is known from its files": "dataset_type",
        "an earlier run is never overwritten": "overwrite_output_dir",
        "validation images are a share of the data": "val_data val_dir eval_data validation_data",
        "mixed precision is set by precision: auto, bf16, fp16 or fp32": "amp use_amp",
        "the best checkpoint is written into checkpoint_dir": "checkpoint_path checkpoint",
        "model.blip2 names both parts, for instance Salesforce/blip2-opt-2.7b": "model_visual_encoder model_opt_model",
    },
    "hosts": {
        "the page is not sent through gradio's servers, where it would have no password; from another machine: "
        "ssh -L 7860:localhost:7860 THIS_MACHINE, or put a proxy with a login in front": "share"
    },
}
ALIKE = 0.6  # minimum likeness of two names, in [0, 1], for one to be suggested for the other


def plain(name: str) -> str:
    """The form in which names are compared: training.batch-size, --training_batch_size and TRAINING_BATCH_SIZE."""
    return name.lower().lstrip("-").replace(".", "_").replace("-", "_")


def find_name(written: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `written` means: itself, the last word of a dotted one, or a synonym of either.

    What stands deeper, as model.efficientnet.weights, is not meant by its last word alone.
    """
    section, _, key = written.lower().lstrip("-").rpartition(".")
    key = plain(key)
    by_key: dict[str, list[str]] = {}
    for name in known:
        if plain(name) == plain(written):
            return name
        if plain(name.rpartition(".")[0]) == plain(section) if section else name.count(".") < 2:
            by_key.setdefault(plain(name.rpartition(".")[2]), []).append(name)
    for keys in ({key}, *(group for group in SYNONYMS if key in group)):
        names = [name for other in keys for name in by_key.get(other, [])]
        if len(names) == 1:
            return names[0]
    return None


def find_switch(written: str, known: Iterable[str]) -> tuple[str, str] | None:
    """The setting and the value that a flag without a value means: --amp is precision auto, --no_x is x false."""
    key, value = SWITCHES.get(plain(written), (plain(written).removeprefix("no_"), "false"))
    if plain(written) not in SWITCHES and not plain(written).startswith("no_"):
        return None
    name = find_name(key, known)
    return (name, value) if name else None


@cache  # once, though a command line is parsed twice
def report_synonym(written: str, name: str) -> None:
    """A line on stderr where a flag was understood that is not written as here."""
    if plain(written) not in (plain(name), plain(name.rpartition(".")[2])) and os.environ.get("RANK", "0") == "0":
        print(f"{written} is --{name} here", file=sys.stderr)


def unknown_name(name: str, known: Iterable[str], what: str) -> str:
    """One line for a name that does not exist, with the nearest that do."""
    known = list(known)
    message, close = f"unknown {what} '{name}'", nearest(name, known)
    forms = {plain(name), plain(name.rpartition(".")[2])}
    for setting, reasons in ABSENT.items():
        for reason, names in reasons.items():
            absent = set(names.split())
            if forms & absent and not absent & set(map(plain, close)) and find_name(setting, known):
                return f"{message}: {reason}"
    return message + (f"; did you mean {' or '.join(close)}?" if close else "")


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """At most n of `known` that are about as similar to `name` as the most similar one."""
    known = list(known)
    if meant := find_name(name, known):
        return [meant]
    scores = {other: likeness(plain(name), plain(other)) for other in known}
    close = sorted((other for other in known if scores[other] >= ALIKE), key=lambda other: -scores[other])
    return [other for other in close[:n] if scores[other] > scores[close[0]] - 0.1]


def likeness(name: str, other: str) -> float:
    """In [0, 1]. A whole word in common, of those between _, or the whole of `name` as its beginning, counts more."""
    if other.startswith(name):
        return 1.0
    words, others = (set(re.split(r"[_\W]+", text)) for text in (name, other))
    shared = len(words & others) / len(words | others)
    return max(SequenceMatcher(None, name, other).ratio(), ALIKE + (1 - ALIKE) * shared if shared else 0.0)
