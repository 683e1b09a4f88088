"""Fine-tune LLaVA on conversations about images: LoRA on the language model, the projector whole.

python llava/train.py --model_id llava-hf/llava-1.5-7b-hf --data conversations.jsonl --output_dir checkpoints/mine
python llava/train.py --demo                                drawn scenes and a small model, minutes on a CPU
python llava/train.py ... --resume_from_checkpoint true     go on after an interruption, with the same weights
torchrun --nproc_per_node 2 llava/train.py ...              several GPUs; --deepspeed, --fsdp, --bf16 are Trainer's own

Settings are FineTuning in llava/config.py and every one of Hugging Face's TrainingArguments; --config FILE.json first.
"""

import sys
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from transformers import TrainingArguments, set_seed

from common.cli.errors import check_skip_rate, report_skipped, run_script
from common.text.files import write_json, write_jsonl
from common.training.device import disable_malloc_trim
from common.training.resume_state import latest_valid_checkpoint, validate_state
from common.training.run import lock_folder
from llava.checkpoint import SETTINGS, LoadedModel, fingerprint, load_model, stop_words, write_adapter_facts
from llava.config import FineTuning
from llava.conversations import Conversation, find_conversations
from llava.dataset import Collator, ConversationDataset, Sample, check_conversations, split_by_image
from llava.demo import prepare_demo
from llava.lora import set_trainable
from llava.settings import read_training_settings
from llava.tokens import ChatFormatter
from llava.trainer import LlavaTrainer, LogPredictionsCallback


def main(argv: list[str]) -> dict[str, Any]:
    tuning, training = read_training_settings(argv)
    if training.process_index:
        return train(tuning, training)
    Path(training.output_dir).mkdir(parents=True, exist_ok=True)
    with lock_folder(Path(training.output_dir)):
        return train(tuning, training)


def train(tuning: FineTuning, training: TrainingArguments) -> dict[str, Any]:
    """-> the log's history and, with validation samples, the last evaluation."""
    is_main = training.process_index == 0
    if tuning.demo:
        with training.main_process_first():
            prepare_demo()
    if not tuning.data:
        raise ValueError("--data: name a LLaVA .json, a conversation .jsonl or an AniPersonaCaps folder, or try --demo")
    found = find_conversations(tuning.data, tuning.image_dir)  # its mistakes are said before a large model is loaded
    set_seed(training.seed)
    loaded = open_model(tuning, training)
    formatter = ChatFormatter(loaded.processor, tuning.system_prompt)
    train, val, skipped = make_samples(*found, tuning, training.seed, formatter, stop_words(loaded), quiet=not is_main)
    print_ = "" if loaded.model.config.to_dict().get("quantization_config") else fingerprint(loaded.model)
    set_seed(training.seed)
    model = set_trainable(
        loaded.model,
        tuning.lora_rank,
        tuning.lora_alpha,
        tuning.lora_dropout,
        tuning.train_vision_tower,
        tuning.freeze_language_model,
    )
    trainer = build_trainer(model, formatter, train, val, tuning, training)
    if is_main:
        describe(model, train, val, skipped, tuning, training)
    trainer.train(resume_from_checkpoint=checkpoint_of(training))
    results = {"train": trainer.state.log_history, **(trainer.evaluate() if val else {})}
    trainer.save_model()
    if is_main:
        finish(loaded, model, print_, results, tuning, training)
    return results


def open_model(tuning: FineTuning, training: TrainingArguments) -> LoadedModel:
    """On a CPU in fp32; on a GPU as the number format of training says, the base of LoRA in half of it."""
    device = training.device
    if device.type == "cpu":
        disable_malloc_trim()
    half = "bf16" if training.bf16 else "fp16" if training.fp16 else "fp32"
    # Weights that learn stay fp32 under autocast; those that are frozen need not.
    frozen_base = tuning.lora_rank and not tuning.freeze_language_model
    return load_model(
        tuning.model_id,
        device=str(device),
        precision=half if frozen_base else "fp32",
        attention=tuning.attention,
        bits=tuning.bits,
    )


def make_samples(
    conversations: list[Conversation],
    skipped: dict[str, str],
    tuning: FineTuning,
    seed: int,
    formatter: ChatFormatter,
    ends: list[str],
    quiet: bool,
) -> tuple[list[Sample], list[Sample], dict[str, str]]:
    """-> training, validation, {left out: why}"""
    total = len(conversations) + len(skipped)
    samples, unusable = check_conversations(conversations, formatter, ends, tuning.max_length, quiet)
    skipped = skipped | unusable
    if not quiet:
        report_skipped(skipped)
    check_skip_rate(skipped, total, tuning.max_skipped, tuning.data)
    if not 0 <= tuning.val_split < 1:
        raise ValueError(f"--val_split {tuning.val_split}: expected a share from 0 up to but not 1")
    train, val = split_by_image(samples, tuning.val_split, seed)
    if not train:
        raise ValueError(f"{tuning.data}: no sample is left to train on")
    return train, val, skipped


def build_trainer(
    model: torch.nn.Module,
    formatter: ChatFormatter,
    train: list[Sample],
    val: list[Sample],
    tuning: FineTuning,
    training: TrainingArguments,
) -> LlavaTrainer:
    if not val:
        training.eval_strategy = "no"
    shown = LogPredictionsCallback(
        val[: tuning.show_samples], formatter, Path(training.output_dir) / "runs" / "answers"
    )
    return LlavaTrainer(
        model,
        training,
        data_collator=Collator(formatter.processor),
        train_dataset=ConversationDataset(train),
        eval_dataset=ConversationDataset(val) if val else None,
        processing_class=formatter.processor,
        projector_learning_rate=tuning.projector_learning_rate,
        max_nonfinite_steps=tuning.max_nonfinite_steps,
        callbacks=[shown] if shown.samples else [],
    )


def checkpoint_of(training: TrainingArguments) -> str | None:
    """--resume_from_checkpoint true: the last whole one in output_dir; else a folder's name, or none."""
    asked = training.resume_from_checkpoint
    if not asked or str(asked).lower() == "false":
        return None
    if str(asked).lower() != "true":
        if not Path(asked).is_dir():
            raise FileNotFoundError(f"{asked}: no such folder (--resume_from_checkpoint)")
        if wrong := validate_state(Path(asked), "trainer_state.json"):
            raise ValueError(f"{asked}: no whole checkpoint, {wrong} (--resume_from_checkpoint)")
        return str(asked)
    last = latest_valid_checkpoint(training.output_dir)
    if last is None:
        raise FileNotFoundError(
            f"{training.output_dir}: holds no whole checkpoint to go on from; leave --resume_from_checkpoint"
        )
    return str(last)


def describe(
    model: torch.nn.Module,
    train: list[Sample],
    val: list[Sample],
    skipped: dict[str, str],
    tuning: FineTuning,
    training: TrainingArguments,
) -> None:
    """One line about the run, and settings.json and skipped.jsonl in its folder."""
    folder = Path(training.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, {"fine_tuning": vars(tuning), "training": training.to_sanitized_dict()})
    write_jsonl(folder / "skipped.jsonl", ({"file": name, "reason": why} for name, why in skipped.items()))
    everything = sum(parameter.numel() for parameter in model.parameters())
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    answers = sum(label >= 0 for sample in train for label in sample.labels)
    print(
        f"{len(train)} conversations to train on with {answers} tokens of answers, {len(val)} to validate; "
        f"{learning / 1e6:.2f} of {everything / 1e6:.2f} million parameters learn"
    )


def finish(
    loaded: LoadedModel,
    model: torch.nn.Module,
    print_: str,
    results: dict[str, Any],
    tuning: FineTuning,
    training: TrainingArguments,
) -> None:
    """What else a folder needs to be used, and the last words."""
    folder = Path(training.output_dir)
    loaded.processor.save_pretrained(folder)
    write_json(folder / "results.json", results)
    adapter = hasattr(model, "peft_config")
    if adapter:
        write_adapter_facts(folder, tuning.model_id, print_)
    how = f"--model_id {tuning.model_id} --adapter {folder}" if adapter else f"--model_id {folder}"
    print(
        f"\nuse it     python llava/inference.py {'--demo' if tuning.demo else how}\n"
        f"curves     tensorboard --logdir={folder / 'runs'}"
    )


if __name__ == "__main__":
    run_script(main)
