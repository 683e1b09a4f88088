"""Experiment trackers in addition to TensorBoard, which every run has: wandb, trackio, mlflow, swanlab, by accelerate.

REPORT_TO, or Trainer's --report_to -> installed_trackers() before anything is written -> Trackers, on the main process

A resumed run continues the run of the tracker, whose id is in run.json, and sends no step twice. A tracker that fails
in the middle of training is closed with one line: TensorBoard and log.jsonl hold everything that it would have shown.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

from accelerate import utils
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from common.cli.names import unknown_name

PROJECT = "vision-wrapper"  # another one: WANDB_PROJECT, TRACKIO_PROJECT, SWANLAB_PROJECT, MLFLOW_EXPERIMENT_NAME
INSTALLED = {
    "wandb": utils.is_wandb_available,
    "trackio": utils.is_trackio_available,
    "mlflow": utils.is_mlflow_available,
    "swanlab": utils.is_swanlab_available,
}


def installed_trackers(report_to: Sequence[str]) -> list[str]:
    """The trackers that `report_to` names, one a word or several with commas; ValueError says what to install.

    tensorboard and none add nothing, all stands for those that are installed.
    """
    names = list(dict.fromkeys(name for word in report_to for name in word.replace(",", " ").split()))
    if "all" in names:
        names = [*names, *(name for name, is_installed in INSTALLED.items() if is_installed() and name not in names)]
    names = [name for name in names if name not in ("tensorboard", "none", "all")]
    for name in names:
        if name not in INSTALLED:
            raise ValueError(f"report_to: {unknown_name(name, ['tensorboard', 'all', 'none', *INSTALLED], 'tracker')}")
        if not INSTALLED[name]():
            raise ValueError(f"report_to: {name} is not installed; pip install {name}, or omit it")
    return names


class Trackers:
    """The open runs of a training in its trackers.

    ids: of the trackers' runs by name, filled in for new ones. settings: stored with a new run. sent: the last step
    that went out before a resume; the steps after the checkpoint are trained again, with the same values.
    """

    def __init__(
        self, names: Iterable[str], run_name: str, ids: dict[str, str], settings: dict[str, Any], sent: int = -1
    ):
        self.open: list[GeneralTracker] = []
        self.sent = sent
        for name in names:
            is_new = name not in ids
            if is_new and name != "mlflow":  # which gives its runs ids of its own
                ids[name] = run_name if name == "trackio" else uuid4().hex[:21]  # swanlab's are no longer
            project = os.environ.get(f"{name.upper()}_PROJECT", PROJECT)
            options = {
                "wandb": {"name": run_name, "id": ids.get(name), "resume": "allow"},
                "trackio": {"name": ids.get(name), "resume": "never" if is_new else "allow"},
                "mlflow": {"run_name": run_name, "run_id": ids.get(name)},
                "swanlab": {"experiment_name": run_name, "id": ids.get(name), "resume": "allow"},
            }
            try:
                tracker = LOGGER_TYPE_TO_CLASS[name](project, **options[name])
                tracker.start()
                if is_new:  # mlflow refuses to change what it has stored
                    tracker.store_init_configuration(settings)
            except Exception as error:
                raise ValueError(f"report_to: {name} does not start: {' '.join(str(error).split())}") from error
            if name == "mlflow":
                ids[name] = tracker.tracker.info.run_id
            self.open.append(tracker)

    def log(self, step: int, values: dict[str, float]) -> None:
        if step > self.sent:
            for tracker in list(self.open):
                self._try(tracker, lambda tracker=tracker: tracker.log(values, step=step))

    def finish(self) -> None:
        for tracker in list(self.open):
            self._try(tracker, tracker.finish)
        self.open = []

    def _try(self, tracker: GeneralTracker, call: Any) -> None:
        try:
            call()
        except Exception as error:  # each package raises its own, and none of them is worth the training
            self.open.remove(tracker)
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"{tracker.name}: closed, the run continues without it: {reason}", file=sys.stderr)
