"""Tiny training runs of all five systems, for benchmarks/faults.py: how each is started, goes on, and what it leaves.

folder, how many faults -> TinyRun: data and, where one is needed, an untrained model, made there; steps for them all
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from conftest import TINY_CLIP, TINY_RUN, draw_styles, steps_in

from common.samples.layouts import create_sample_dataset


@dataclass(frozen=True)
class TinyRun:
    script: str
    folder: Path  # of the run: its states and models
    common: tuple[str, ...]  # flags, but for the folders
    resuming: tuple[str, ...]
    reading: str  # flag of the number of processes that read data
    trainer: bool = False  # Hugging Face's, with checkpoint-N/ in place of last/
    model: str = "model.safetensors"  # file of a state that holds the weights

    needed = property(lambda self: "trainer_state.json" if self.trainer else "progress.json")

    def arguments(self, resume: bool, readers: int = 0) -> list[str]:
        """readers: processes that read data."""
        prefix = "training." if "blip2" in self.script else ""
        places = [f"--{prefix}checkpoint_dir", str(self.folder), f"--{prefix}log_dir", str(self.folder / "logs")]
        if self.trainer:
            places = ["--output_dir", str(self.folder)]
        if self.script.startswith("clip"):
            places += ["--results_dir", str(self.folder / "results")]
        return [*self.common, *places, self.reading, str(readers), *(self.resuming if resume else ())]

    def written(self) -> int:
        """Steps that can be gone on from, and a little more."""
        if not self.trainer:
            return steps_in(self.folder / "logs", self.folder / "last")()
        return max((int(path.parent.name.split("-")[1]) for path in self._checkpoints()), default=0)

    def newest_state(self) -> Path:
        if not self.trainer:
            last = self.folder / "last"
            return last if last.is_dir() else last.with_name("last.older")
        return max((path.parent for path in self._checkpoints()), key=lambda path: int(path.name.split("-")[1]))

    def weights(self) -> bytes:
        """Of the last state: the file as it is, so that equal means every bit."""
        return (self.newest_state() / self.model).read_bytes()

    def in_peace(self) -> "TinyRun":
        """The same run in a folder of its own."""
        return replace(self, folder=self.folder.with_name("in_peace"))

    def _checkpoints(self) -> list[Path]:
        return list(self.folder.glob("checkpoint-*/checksums.json"))


def style(folder: Path, faults: int) -> TinyRun:
    draw_styles(folder / "data", images=24)
    flags = (
        *TINY_RUN,
        "--epochs",
        str(10 + faults // 2),
        "--dropout",
        "0.2",
        "--drop_path",
        "0.1",
        "--ema_decay",
        "0.9",
        "--data_dir",
        str(folder / "data"),
        "--cache_dir",
        str(folder / "cache"),
    )
    return TinyRun("train.py", folder / "run", flags, ("--resume",), "--num_workers")


def clip(folder: Path, faults: int) -> TinyRun:
    from clip.huggingface import write_huggingface
    from clip.model import CLIPModel

    create_sample_dataset(folder / "data", 40, layout="captions", size=48)
    torch.manual_seed(0)
    write_huggingface(CLIPModel(facts=dict(TINY_CLIP)), folder / "model")
    flags = (
        "--data_dir",
        str(folder / "data"),
        "--model_name",
        str(folder / "model"),
        "--batch_size",
        "4",
        "--num_epochs",
        str(6 + 2 * faults),
        "--learning_rate",
        "1e-3",
        "--warmup_steps",
        "2",
        "--val_split",
        "0.2",
        "--log_steps",
        "1",
        "--save_steps",
        "1",
        "--device",
        "cpu",
        "--cache_dir",
        str(folder / "cache"),
    )
    return TinyRun("clip/train.py", folder / "run", flags, ("--resume",), "--num_workers")


def blip2(folder: Path, faults: int) -> TinyRun:
    from test_blip2_gated_model import CONFIG

    from blip2_gated.backbone import build_blip2, fit_config, train_tokenizer

    create_sample_dataset(folder / "data", 16, layout="vqa", size=40)
    with (folder / "data" / "train.csv").open() as file:
        texts = [f"Question: {row['question']} Answer: {row['answer']}\n" for row in csv.DictReader(file)]
    tokenizer = train_tokenizer(texts, 600)
    torch.manual_seed(0)
    build_blip2(fit_config(CONFIG, tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    flags = (
        "--data.root",
        str(folder / "data"),
        "--model.blip2",
        str(folder / "model"),
        "--data.cache_dir",
        str(folder / "cache"),
        "--model.efficientnet.name",
        "test_efficientnet",
        "--model.efficientnet.weights",
        "false",
        "--model.efficientnet.image_size",
        "32",
        "--model.prompt_mapper.hidden",
        "32",
        "--training.batch_size",
        "4",
        "--training.epochs",
        str(6 + faults),
        "--training.warmup_steps",
        "2",
        "--training.log_steps",
        "1",
        "--training.save_steps",
        "1",
        "--training.device",
        "cpu",
        "--training.eval_samples",
        "0",
        "--training.save_last",
    )
    return TinyRun("blip2_gated/train.py", folder / "run", flags, ("--training.resume",), "--data.num_workers")


TRAINER = (
    "--use_cpu",
    "true",
    "--logging_steps",
    "1",
    "--save_steps",
    "1",
    "--save_total_limit",
    "2",
    "--eval_strategy",
    "steps",
    "--eval_steps",
    "2",
    "--warmup_steps",
    "0",
    "--disable_tqdm",
    "true",
)


def vitp(folder: Path, faults: int) -> TinyRun:
    from vitp import demo

    create_sample_dataset(folder / "data", 24, 0, "conversations", 32)
    records = (folder / "data" / "conversations.jsonl").read_text(encoding="utf-8").splitlines()
    words = [turn["value"] for line in records for turn in json.loads(line)["conversations"]]
    demo.write_parts(folder / "parts", demo.train_tokenizer(words, 500), width=32, layers=2, size=32)
    flags = (
        "--vision_config",
        str(folder / "parts" / "vision.json"),
        "--llm",
        str(folder / "parts" / "config.json"),
        "--meta_path",
        str(folder / "data" / "meta.json"),
        "--eval_meta_path",
        str(folder / "data" / "meta.json"),
        "--per_device_train_batch_size",
        "4",
        "--max_dynamic_patch",
        "1",
        "--max_seq_length",
        "700",
        "--max_steps",
        str(20 + 6 * faults),
        *TRAINER,
    )
    resuming = ("--resume_from_checkpoint", "true")
    return TinyRun("vitp/train.py", folder / "run", flags, resuming, "--dataloader_num_workers", True)


def llava(folder: Path, faults: int) -> TinyRun:
    from llava_tiny import write_conversations, write_llava

    data = write_conversations(folder / "data")
    flags = (
        "--model_id",
        str(write_llava(folder / "model")),
        "--data",
        str(data),
        "--lora_rank",
        "4",
        "--lora_alpha",
        "8",
        "--lora_dropout",
        "0.1",
        "--val_split",
        "0.2",
        "--show_samples",
        "1",
        "--per_device_train_batch_size",
        "4",
        "--report_to",
        "none",
        "--max_steps",
        str(20 + 6 * faults),
        *TRAINER,
    )
    resuming = ("--resume_from_checkpoint", "true")
    return TinyRun(
        "llava/train.py", folder / "run", flags, resuming, "--dataloader_num_workers", True, "adapter_model.safetensors"
    )


SYSTEMS: dict[str, Callable[[Path, int], TinyRun]] = {
    "style": style,
    "clip": clip,
    "blip2": blip2,
    "vitp": vitp,
    "llava": llava,
}
