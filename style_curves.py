"""Curves of a style encoder's training: losses, and validation of styles and contents beside a baseline.

history, one entry per epoch -> training_curves.png
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.training.plots import plot_curves

OTHERS = ("train/loss", "train/learning_rate", "train/anchors_without_positives")  # no parts of the loss
SCORES = {"auc": "AUC", "precision_at_1": "P@1", "map_at_r": "MAP@R", "conflict": "style over content"}
CHANCE = {"val/style_auc": 0.5, "val/style_conflict": 0.5, "val/content_auc": 0.5}


def plot_style_curves(
    path: Path, history: Sequence[Mapping[str, float]], untrained: Mapping[str, Mapping[str, Any]] = {}
) -> None:
    """untrained: scores of the backbone before training, as of evaluate_style.score; otherwise chance is drawn."""
    parts = [name for name in history[0] if name.startswith("train/") and name not in OTHERS]
    panels: dict[str, Sequence[str] | Mapping[str, str]] = {
        "training loss": ["train/loss"],
        "its parts, unweighted": parts if len(parts) > 1 else [],  # a single part equals the loss
        "styles: higher is better [0, 1]": {f"val/style_{name}": label for name, label in SCORES.items()},
        "contents: lower is better [0, 1]": {f"val/content_{name}": label for name, label in SCORES.items()},
    }
    before = {f"val/{kind}_{name}": value for kind, scores in untrained.items() for name, value in scores.items()}
    plot_curves(path, history, panels, before or CHANCE, "untrained backbone" if before else "chance")
