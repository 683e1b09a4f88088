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
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from common.text.files import write_atomically, write_json

ROOT = Path(__file__).resolve().parents[2]


class Run:
    """The open folders of a run, on the main process; the other processes of a distributed run have None."""

    writer: SummaryWriter  # from start_logging on

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
        self.lock = (self.folder / ".lock").open("w")  # held until it is closed or the process ends
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise ValueError(
                f"{self.folder}: another run is writing here; wait for it, or give this one another folder"
            ) from None
        record = self.folder / "run.json"
        if record.is_file() and not resume:
            self._move_earlier_run(record)
        if record.is_file():
            self.name = json.loads(record.read_text())["name"]
        else:
            time = datetime.now().strftime("%Y%m%d-%H%M%S")
            names = chain([time], (f"{time}-{number}" for number in count(2)))
            used = (self.folder, Path(log_dir))
            self.name = next(name for name in names if not any((folder / name).exists() for folder in used))
            write_json(record, {"name": self.name, **provenance()})
        self.settings = settings
        write_json(self.folder / "settings.json", settings)
        self.log_folder = Path(log_dir) / self.name
        self.log_folder.mkdir(parents=True, exist_ok=True)

    def start_logging(self, step: int) -> None:
        """Open the logs; entries after `step`, of a run that was killed later, are removed."""
        path = self.log_folder / "log.jsonl"
        if path.is_file():
            with write_atomically(path) as file:
                file.writelines(
                    f"{line}\n".encode() for line in path.read_text().splitlines() if _step_of(line) <= step
                )
        self.writer = SummaryWriter(str(self.log_folder), purge_step=step + 1 if step else None)

    def log(self, step: int, values: dict[str, float]) -> None:
        """One JSON line and one TensorBoard scalar per value; names like 'train/loss'."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        with (self.log_folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def _move_earlier_run(self, record: Path) -> None:
        name = json.loads(record.read_text())["name"]
        state = re.compile(r"(last|checkpoint-\d+)(\.|$)")
        for folder in dict.fromkeys((self.results, self.folder)):
            (folder / name).mkdir(exist_ok=True)
            for path in sorted(folder.iterdir(), key=lambda path: path == record):  # run.json last, in case of a kill
                if path.name not in (".lock", "README.md") and (path.is_file() or state.match(path.name)):
                    path.rename(folder / name / path.name)
        print(f"the earlier run in {self.folder} was moved to {self.folder / name}")


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
        return sys.maxsize  # an incomplete line after a kill
