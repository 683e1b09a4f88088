"""What tests of the Hub share: a stand-in for its API, and comparisons of what would be uploaded."""

import json
from pathlib import Path

import torch
import yaml


class StubApi:
    """Stands for HfApi: writes down what would be uploaded."""

    calls: list[dict] = []

    def create_repo(self, name, private, exist_ok):
        self.calls.append({"name": name, "private": private, "exist_ok": exist_ok})
        return f"https://huggingface.co/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message):
        files = {
            path.relative_to(folder_path).as_posix(): path.read_bytes()
            for path in sorted(Path(folder_path).rglob("*"))
            if path.is_file()
        }
        self.calls.append({"name": repo_id, "files": files})


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def same(one, other):
    """Equal content, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def assert_names_no_place(files, *places):
    for name, content in files.items():
        if name.endswith((".json", ".md")):
            for place in places:
                assert str(place).encode() not in content, f"{name} names {place}"


def write_trainers_folder(folder: Path, clip: Path) -> Path:
    """What Hugging Face's Trainer and a run leave beside a model."""
    (folder / "checkpoint-8").mkdir(parents=True)
    for file in clip.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": "/home/me/models/start"}))
    for name in (
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "training_args.bin",
        "trainer_state.json",
        "run.json",
        "skipped.jsonl",
        "checkpoint-8/model.safetensors",
        "README.md",
        ".lock",
    ):
        (folder / name).write_text("{}")
    training = {"learning_rate": 1e-4, "output_dir": str(folder), "max_steps": -1}
    settings = {"fine_tuning": {"data": "/home/me/data.json", "system_prompt": "auto"}, "training": training}
    (folder / "settings.json").write_text(json.dumps(settings))
    results = {"loss": 0.25, "eval_loss": 0.5, "seconds": 60, "steps": 8, "output_dir": str(folder)}
    (folder / "results.json").write_text(json.dumps(results))
    return folder
