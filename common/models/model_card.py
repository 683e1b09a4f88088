"""A model's README on the Hub, of what its run wrote down and nothing else.

settings, measured numbers, run.json -> YAML head, what it is, tables, how to use it

A figure that the run does not have is left out, and so is a licence that nobody named.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCardData

SHOWN_SETTINGS = (  # by which a run is told from another; the rest is in the JSON beside
    "model_name",
    "image_size",
    "epochs",
    "num_epochs",
    "num_train_epochs",
    "max_steps",
    "batch_size",
    "accum_batches",
    "accumulation",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "min_learning_rate",
    "warmup_steps",
    "weight_decay",
    "loss",
    "temperature",
    "ema_decay",
    "lora_rank",
    "seed",
)
MARK = "<!-- This card was written by tools/push_to_hub.py; what you change in it stays. -->"
NO_MEASURES = ("seconds", "_second", "runtime", "steps", "epoch", "epochs")  # how names end that say nothing of quality


class Kind(NamedTuple):
    """What is true of every model of its kind."""

    what: str  # one sentence
    library: str
    task: str  # of the Hub's list; '' for none
    tags: tuple[str, ...]
    use: str  # Python, {name} stands for the model's


class Facts(NamedTuple):
    """What a run wrote down."""

    numbers: dict[str, float]  # measured, by name
    settings: dict[str, Any]
    progress: dict[str, Any]  # epoch, step
    run: dict[str, Any]  # of run.json
    base: str  # the model it was made from, as the Hub knows it; '' where none is named


def facts_of_content(content: dict[str, Any], source: Path) -> Facts:
    """Of a file of save_model without its weights, as it is uploaded; run.json lies beside `source`."""
    metrics = content.get("metrics", {})
    numbers = {name.removeprefix("val/"): value for name, value in metrics.items() if name.startswith("val/")}
    progress = {name: content[name] for name in ("epoch", "step") if name in content}
    base = content.get("build", {}).get("blip2", {}).get("source", "")
    return Facts(numbers, content.get("settings", {}), progress, _read(source.parent / "run.json"), base)


def facts_of_folder(staged: Path, source: Path) -> Facts:
    """Of a folder of transformers or peft; `staged` holds its JSON as it is uploaded."""
    results, settings = _read(source / "results.json"), _flat(_read(staged / "settings.json"))
    plain = {name: value for name, value in results.items() if _is_number(value) and not name.endswith(NO_MEASURES)}
    progress = {what: results[key] for key, what in (("epoch", "epoch"), ("steps", "step")) if key in results}
    base = _read(staged / "adapter_config.json").get("base_model_name_or_path", "")
    return Facts(plain, settings, progress, _read(source / "run.json"), base)


def write_card(path: Path, name: str, kind: Kind, facts: Facts, licence: str = "") -> None:
    """name: `owner/name`, or what stands for it in the examples."""
    head = ModelCardData(
        license=licence or None,
        library_name=kind.library,
        pipeline_tag=kind.task or None,
        tags=list(kind.tags),
        base_model=facts.base or None,
        metrics=list(facts.numbers) or None,
    ).to_yaml()
    parts = [f"---\n{head}\n---\n\n# {name.rsplit('/', 1)[-1]}\n\n{kind.what}"]
    if facts.numbers:
        rows = [(f"`{measure}`", f"{value:.4g}") for measure, value in facts.numbers.items()]
        at = ", ".join(f"{what} {number}" for what, number in facts.progress.items())
        parts.append(
            "## Measured\n\nBy the run itself"
            + (f", after {at}" if at else "")
            + ":\n\n"
            + _table(("measure", "value"), rows)
        )
    shown = [(f"`{key}`", f"`{value}`") for key, value in facts.settings.items() if _is_shown(key, value)]
    if shown:
        parts.append("## Training\n\n" + _table(("setting", "value"), shown))
    versions = [f"{what} {facts.run[what]}" for what in ("commit", "started", "torch", "python") if facts.run.get(what)]
    if versions:
        parts.append("The run: " + ", ".join(versions) + ".")
    parts.append("## Use\n\n```python\n" + kind.use.format(name=name).strip() + "\n```")
    path.write_text("\n\n".join([*parts, MARK]) + "\n", encoding="utf-8")


def read_card(folder: Path) -> str:
    """The card that tools/push_to_hub.py has written into a folder before, with what was changed in it; '' if none."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    return text if MARK in text else ""


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"| {one} | {other} |" for one, other in [head, ("---", "---"), *rows])


def _is_shown(name: str, value: Any) -> bool:
    """BLIP2-gated's settings are named by section: training_learning_rate."""
    sections = ("training_", "model_", "loss_", "data_")
    plain = next((name.removeprefix(one) for one in sections if name.startswith(one)), name)
    named = name in SHOWN_SETTINGS or plain in SHOWN_SETTINGS
    return named and value not in (None, "", -1) and isinstance(value, (str, int, float))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings in sections, one level deep -> one dictionary."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= value if isinstance(value, dict) else {name: value}
    return found


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
