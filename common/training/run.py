"""Output folders of a run: deliverables and logs.

checkpoint_dir/  model files, last/, plots, results.json, and from the start on settings.json, trained_on.json (what a
                 resumed run must repeat), run.json (command, commit, versions)
log_dir/<name>/  TensorBoard events with settings, log.jsonl (a JSON line per entry), skipped.jsonl, skipped_steps.jsonl

name: RUN_NAME, or system-model-date such as clip-small-20261129, then clip-small-20261129-2. A new run in a used folder
moves the earlier files to checkpoint_dir/<its name>/, so nothing is lost; not before its own first step is due, so that
a run that cannot start moves nothing.
"""

import fcntl
import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Required, cast

import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from typing_extensions import TypedDict

from common.cli.paths import ROOT
from common.text.files import write_atomically, write_json
from common.text.schema import read_checked
from common.training.trackers import Trackers
from common.training.trained_on import TRAINED_ON

STATE = re.compile(r"(last|checkpoint-\d+)(\.|$)")  # names of the folders to resume from


RUN_NAME = re.compile(r"\w[^/\\\0]*")
SCALARS = (int, float, str)
WEIGHTS_SUFFIXES = (".json", ".pth", ".pt", ".bin", ".safetensors", ".gguf")
COMMON_NAME = re.compile(r"(best_|pytorch_)?(model|config|vision|weights|best|last|start|parts)|checkpoint-\d+|[/.]+")


class Record(TypedDict, total=False):
    """The fields of run.json that are read."""

    name: Required[str]
    trackers: dict[str, Any]


class Run:
    """The open folders of a run, on the main process; the other processes of a distributed run have None."""

    writer: SummaryWriter  # from start_logging on
    trackers: Trackers

    def __init__(
        self,
        checkpoint_dir: str | Path,
        log_dir: str | Path,
        settings: dict[str, Any],
        resume: bool,
        name: str,
        tracker_names: Sequence[str] = (),
        results_dir: str | Path | None = None,
        trained_on: Mapping[str, Any] | None = None,
    ):
        """name: of choose_run_name; a resumed run keeps its own. tracker_names: of installed_trackers.

        results_dir: a folder for plots and results, if not the one of the model files. trained_on: what check_resume
        has compared; each state holds it too.
        """
        self.folder = Path(checkpoint_dir)
        self.results = Path(results_dir) if results_dir else self.folder
        self.results.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Held until it is closed or the process ends. Appended to, because it may be a link to another file.
        self.lock = (self.folder / ".lock").open("a")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise ValueError(
                f"{self.folder}: another run is writing here; wait for it, or give this one another folder"
            ) from None
        self.settings, self.tracker_names, self.trained_on = settings, tracker_names, dict(trained_on or {})
        record = self.folder / "run.json"
        earlier: Any = read_checked(record, Record) if record.is_file() else {}
        if earlier:
            check_run_name(earlier["name"], record)
        self.earlier_name = "" if resume else earlier.get("name", "")  # of the run to move aside
        if earlier and resume:
            self.record = earlier
            self.log_folder = Path(log_dir) / self.record["name"]
            self.log_folder.mkdir(parents=True, exist_ok=True)
        else:
            self.log_folder = self._make_log_folder(Path(log_dir), name)
            self.record = {"name": self.log_folder.name, **provenance()}

    def start_logging(self, step: int) -> None:
        """Move an earlier run aside and open the logs; entries after `step`, of a run killed later, are removed."""
        path, sent = self.log_folder / "log.jsonl", -1
        if path.is_file():
            lines = [(_step_of(line), line) for line in path.read_text().splitlines()]
            sent = max((number for number, _ in lines if number < sys.maxsize), default=-1)
            with write_atomically(path) as file:
                file.writelines(f"{line}\n".encode() for number, line in lines if number <= step)
        ids = self.record.setdefault("trackers", {})
        self.trackers = Trackers(self.tracker_names, self.log_folder.name, ids, self.settings, sent)
        if self.earlier_name:  # last, because all that stands before may fail
            self._move_earlier_run(self.earlier_name)
        write_json(self.folder / "run.json", self.record)
        write_json(self.folder / "settings.json", self.settings)
        write_json(self.folder / TRAINED_ON, self.trained_on)
        self.writer = SummaryWriter(str(self.log_folder), purge_step=step + 1 if step else None)
        text = "\n".join(f"    {line}" for line in json.dumps(self.settings, indent=2, ensure_ascii=False).splitlines())
        self.writer.add_text("settings", text, step)
        if not step:  # once, into the run's own file: add_hparams would start another run below this one
            values = {name: value if type(value) in SCALARS else str(value) for name, value in self.settings.items()}
            experiment, session, _ = hparams(values, {"train/loss": 0})  # the third says that it has succeeded
            for summary in (experiment, session):
                cast(Any, self.writer.file_writer).add_summary(summary)

    def log(self, step: int, values: dict[str, float]) -> None:
        """One JSON line, and one scalar per value in TensorBoard and the trackers; names like 'train/loss'."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        with (self.log_folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.trackers.log(step, values)

    def close(self) -> None:
        """Finish the logs and let another run use the folder."""
        self.writer.close()
        self.trackers.finish()
        self.lock.close()

    def _make_log_folder(self, log_dir: Path, name: str) -> Path:
        """The first of NAME, NAME-2, ... that no run has."""
        log_dir.mkdir(parents=True, exist_ok=True)
        for candidate in chain([name], (f"{name}-{number}" for number in count(2))):
            taken = any((folder / candidate).exists() for folder in (self.folder, self.results))
            if not taken and candidate != self.earlier_name:
                with suppress(FileExistsError):  # of a run that starts at the same moment, too
                    (log_dir / candidate).mkdir()
                    return log_dir / candidate
        raise AssertionError

    def _move_earlier_run(self, name: str) -> None:
        for folder in dict.fromkeys((self.results, self.folder)):
            if (folder / name).is_symlink():
                raise ValueError(f"{folder / name}: is a link; the earlier run is not moved to where it leads")
            (folder / name).mkdir(exist_ok=True)
            # run.json last, in case of a kill
            for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.json"):
                if path.name not in (".lock", "README.md") and (path.is_file() or STATE.match(path.name)):
                    path.rename(folder / name / path.name)
        print(f"the earlier run in {self.folder} was moved to {self.folder / name}")


def check_run_name(name: str, record: Path) -> None:
    """ValueError for a run.json whose name is no folder's in it: files are moved to that place and logs written."""
    if not RUN_NAME.fullmatch(name) or STATE.match(name):
        raise ValueError(f"{record}: name {ascii(name)[:60]} is not that of a run")


def choose_run_name(chosen: str | None, system: str, *models: str | None) -> str:
    """RUN_NAME if it is set, else system-model-date, each model once."""
    if chosen:
        if not RUN_NAME.fullmatch(chosen) or STATE.match(chosen):
            raise ValueError(f"run_name '{chosen}': expected the name of a folder, without /, other than last")
        return chosen
    names = (re.sub(r"[^\w.-]+", "-", _name_of(model)).strip("-.") for model in models if model)
    words = dict.fromkeys(re.sub(f"^{system}[-_]", "", name) for name in names)
    return "-".join([system, *words, f"{datetime.now():%Y%m%d}"])


def _name_of(model: str) -> str:
    """'ViT-B/32' -> itself; NAME:FILE -> NAME; of a path the last part that says more than config.json or best.pth."""
    path = Path(model)
    if path.suffix in WEIGHTS_SUFFIXES and ":" in model:
        return model.partition(":")[0]
    if len(path.parts) <= 2 and path.suffix not in WEIGHTS_SUFFIXES:
        return model
    words = [
        part.removesuffix(path.suffix) if part == path.name and path.suffix in WEIGHTS_SUFFIXES else part
        for part in path.parts
    ]
    return next((word for word in reversed(words) if not COMMON_NAME.fullmatch(word)), words[-1])


def provenance() -> dict[str, Any]:
    """Command, commit (None without git or a repository), time, versions and machine."""
    commit, git = "", ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    with suppress(OSError, subprocess.TimeoutExpired):
        commit = subprocess.run(git, capture_output=True, text=True, timeout=30).stdout.strip()
    return {
        "command": shlex.join(sys.argv),
        "commit": commit or None,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.platform(),
    }


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, RecursionError, KeyError, TypeError):
        return sys.maxsize  # an incomplete line after a kill
