"""Tiny training runs of all five systems, for benchmarks/faults.py: how each is started, goes on, and what it leaves.

folder, how many faults -> TinyRun: data and, where one is needed, an untrained model, made there; steps for them all
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from conftest import TINY_RUN, draw_styles, flags
from processes import steps_in

from common.samples.layouts import create_sample_dataset


@dataclass(frozen=True)
class TinyRun:
    script: str
    folder: Path  # of the run: its states and models
    common: list[str]  # flags, but for the folders
    resuming: list[str]
    reading: str  # flag of the number of processes that read data
    trainer: bool = False  # Hugging Face's, with checkpoint-N/ in place of last/
    model: str = "model.safetensors"  # file of a state that holds the weights

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
    changes = {"epochs": 10 + faults // 2, "save_steps": 1, "dropout": 0.2, "drop_path": 0.1, "ema_decay": 0.9}
    common = TINY_RUN + flags(**changes, data_dir=folder / "data", cache_dir=folder / "cache")
    return TinyRun("train.py", folder / "run", common, ["--resume"], "--num_workers")


def clip(folder: Path, faults: int) -> TinyRun:
    from tiny.clip import clip_flags, write_clip

    create_sample_dataset(folder / "data", 40, layout="captions", size=48)
    length = flags(batch_size=4, num_epochs=6 + 2 * faults, val_split=0.2)
    common = clip_flags(folder / "data", write_clip(folder / "model"), folder) + length
    return TinyRun("clip/train.py", folder / "run", common, ["--resume"], "--num_workers")


def blip2(folder: Path, faults: int) -> TinyRun:
    from tiny.blip2 import blip2_flags, write_blip2

    create_sample_dataset(folder / "data", 16, layout="vqa", size=40)
    blip2 = write_blip2(folder / "model", folder / "data")
    length = flags("training.", batch_size=4, epochs=6 + faults, eval_samples=0, save_last=True)
    common = blip2_flags(folder / "data", blip2, folder / "cache") + length
    return TinyRun("blip2_gated/train.py", folder / "run", common, ["--training.resume"], "--data.num_workers")


def trainer_flags(faults: int) -> list[str]:
    """What Hugging Face's Trainer is to do in both systems that it trains."""
    return flags(max_steps=20 + 6 * faults, save_steps=1, save_total_limit=2, eval_strategy="steps", eval_steps=2)


def vitp(folder: Path, faults: int) -> TinyRun:
    from tiny.vitp import vitp_flags, write_vitp

    parts = write_vitp(folder / "parts")
    common = vitp_flags(parts, folder / "run", learning_rate=None, eval_meta_path=parts / "data" / "meta.json")
    resuming = ["--resume_from_checkpoint", "true"]
    script, readers = "vitp/train.py", "--dataloader_num_workers"
    return TinyRun(script, folder / "run", common + trainer_flags(faults), resuming, readers, True)


def llava(folder: Path, faults: int) -> TinyRun:
    from tiny.llava import llava_flags, write_conversations, write_llava

    common = llava_flags(write_llava(folder / "model"), write_conversations(folder / "data"), folder / "run")
    common += flags(lora_dropout=0.1, show_samples=1) + trainer_flags(faults)
    resuming = ["--resume_from_checkpoint", "true"]
    script, readers = "llava/train.py", "--dataloader_num_workers"
    return TinyRun(script, folder / "run", common, resuming, readers, True, "adapter_model.safetensors")


SYSTEMS: dict[str, Callable[[Path, int], TinyRun]] = {
    "style": style,
    "clip": clip,
    "blip2": blip2,
    "vitp": vitp,
    "llava": llava,
}
