"""Output folders of a run: deliverables and logs.

checkpoint_dir/  model files, last/, settings.json, run.json (command, commit, versions), results.json, plots
log_dir/<name>/  TensorBoard events, log.jsonl (one JSON line per entry), skipped.jsonl, skipped_steps.jsonl

A new run in a used folder first moves the earlier files to checkpoint_dir/<its name>/, so nothing is lost.
"""

import fcntl
import json
import platform
import re
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import torch
from torch.utils.tensorboard import SummaryWriter

from common.text.files import write_atomically, write_json

ROOT = Path(__file__).resolve().parents[2]


class Run:
    """The open folders of a run, on the main process; the other processes of a distributed run have None."""

    def __init__(
        self,
        checkpoint_dir: str | Path,
        log_dir: str | Path,
        settings: dict[str, Any],
        resume: bool,
        results_dir: str | Path | None = None,
    ):
        """results_dir: a folder for plots and results, if not the one of the model files."""
        self.folder = Path(checkpoint_dir)
        self.results = Path(results_dir) if results_dir else self.folder
        self.results.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = lock_folder(self.folder)
        facts = self.folder / "run.json"
        if resume and facts.is_file():
            self.name = json.loads(facts.read_text())["name"]
        else:
            if not resume:
                self._move_older_run(facts)
            self.name = self._free_name(Path(log_dir))
            write_json(facts, {"name": self.name, **provenance()})
        self.settings = settings
        write_json(self.folder / "settings.json", settings)
        self.log_folder = Path(log_dir) / self.name
        self.log_folder.mkdir(parents=True, exist_ok=True)
        self.writer: SummaryWriter | None = None

    def start_logging(self, step: int) -> None:
        """Open the logs; entries after `step`, of a run that was killed later, are removed."""
        path = self.log_folder / "log.jsonl"
        if path.is_file():
            lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            with write_atomically(path) as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
        self.writer = SummaryWriter(str(self.log_folder), purge_step=step + 1 if step else None)

    def log(self, step: int, values: dict[str, float]) -> None:
        """One JSON line and one TensorBoard scalar per value; names like 'train/loss'."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        with (self.log_folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def _move_older_run(self, facts: Path) -> None:
        if not facts.is_file():
            return
        older = self.folder / json.loads(facts.read_text())["name"]
        older.mkdir(exist_ok=True)
        kept = (".lock", "README.md")
        moved = [path for path in self.folder.iterdir() if path.name not in kept and not (path / "run.json").is_file()]
        for path in sorted(moved, key=lambda one: one == facts):  # run.json last: what is left half way is still found
            if path != older and (path.is_file() or re.match(r"(last|checkpoint-\d+)(\.|$)", path.name)):
                path.rename(older / path.name)
        if self.results != self.folder and (files := [path for path in self.results.iterdir() if path.is_file()]):
            (self.results / older.name).mkdir(exist_ok=True)
            for path in files:
                path.rename(self.results / older.name / path.name)
        print(f"the run that was in {self.folder} is now in {older}")

    def _free_name(self, log_dir: Path) -> str:
        name = first = datetime.now().strftime("%Y%m%d-%H%M%S")
        number = 2
        while (log_dir / name).exists() or (self.folder / name).exists():
            name, number = f"{first}-{number}", number + 1
        return name


def lock_folder(folder: Path) -> IO[str]:
    """-> a lock, held until it is closed or this process ends, however it ends. ValueError where another run has it."""
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ValueError(
            f"{folder}: another run is writing here; wait for it, or give this one another folder"
        ) from None
    return lock


def provenance() -> dict[str, Any]:
    """Command, commit, time, versions and machine."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
    )
    return {
        "command": shlex.join(sys.argv),
        "commit": commit.stdout.strip() or None,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.platform(),
    }


def _step_of(line: str) -> int:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return sys.maxsize  # half a line, cut by a kill
