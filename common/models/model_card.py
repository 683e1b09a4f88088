"""Model cards: the README of a model on the Hub, written from the records of its run.

settings, results, run.json -> YAML metadata, summary, tables, example of use

Results that the run did not record are omitted, and so is a licence that nobody chose.
"""

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import ModelCard, ModelCardData

from common.cli.paths import ROOT
from common.models.scrub import scrub
from common.text.files import read_text
from common.text.schema import read_checked

SHOWN_SETTINGS = (  # those that distinguish runs; config.json and settings.json have them all
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
SECTIONS = ("training_", "model_", "loss_", "data_")  # of BLIP2-gated's settings: training_learning_rate
PLAIN = re.compile(r"[\w.@%+-][\w.@%+:/ ()-]{0,59}")
MARK = "<!-- This card was written by tools/push_to_hub.py; your changes to it are kept. -->"
NOT_RESULTS = ("seconds", "_second", "runtime", "steps", "epoch", "epochs")  # endings of names
TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ summary }}

{% if results -%}
## Results

Measured by the run itself{{ progress }}:

| metric | value |
| --- | --- |
{% for metric, value in results.items() -%}
| `{{ metric }}` | {{ "%.4g" | format(value) }} |
{% endfor %}
{% endif -%}
{% if settings -%}
## Training

| setting | value |
| --- | --- |
{% for setting, value in settings.items() -%}
| `{{ setting }}` | `{{ value }}` |
{% endfor %}
{% endif -%}
{% if versions -%}
The run: {{ versions }}.

{% endif -%}
## Use

{% if repository -%}
The code is in [{{ repository_name }}]({{ repository }}); run this in a clone of it.

{% endif -%}
```python
{{ example }}
```

{{ mark }}
"""


class Kind(NamedTuple):
    """The part of a card that all models of a kind share."""

    summary: str  # one sentence
    library: str
    task: str  # of the Hub's list; '' for none
    tags: tuple[str, ...]
    example: str  # Python; {name} stands for the model's name


class RunMetadata(NamedTuple):
    """The records of a run."""

    results: dict[str, float]
    settings: dict[str, Any]
    progress: dict[str, Any]  # epoch, step
    run: dict[str, Any]  # of run.json
    base_model: str  # its name on the Hub; '' if there is none


def checkpoint_metadata(content: dict[str, Any], source: Path) -> RunMetadata:
    """content: of a file of save_model. run.json is read from the folder of `source`."""
    metrics = content.get("metrics", {})
    results = {name.removeprefix("val/"): value for name, value in metrics.items() if name.startswith("val/")}
    progress: dict[str, Any] = {name: content[name] for name in ("epoch", "step") if name in content}
    return RunMetadata(
        results,
        content.get("settings", {}),
        progress,
        run=_read(source.parent / "run.json"),
        base_model=content.get("build", {}).get("blip2", {}).get("source", ""),
    )


def folder_metadata(staged: Path, source: Path) -> RunMetadata:
    """Of a folder of transformers or peft; `staged` holds its JSON files as they are uploaded."""
    results, settings = _read(source / "results.json"), dict[str, Any]()
    for name, value in _read(staged / "settings.json").items():
        settings |= value if isinstance(value, dict) else {name: value}
    progress: dict[str, Any] = {
        label: results[name] for name, label in (("epoch", "epoch"), ("steps", "step")) if name in results
    }
    return RunMetadata(
        {name: value for name, value in results.items() if _is_result(name, value)},
        settings,
        progress,
        run=_read(source / "run.json"),
        base_model=_read(staged / "adapter_config.json").get("base_model_name_or_path", ""),
    )


def write_card(
    path: Path, name: str, kind: Kind, metadata: RunMetadata, licence: str = "", repository: str = ""
) -> None:
    """name: `owner/name`, or the folder's name before there is one. repository: address of the code."""
    metadata = metadata._replace(
        results={name: value for name, value in metadata.results.items() if _is_plain(name)},
        progress={name: value for name, value in metadata.progress.items() if isinstance(value, (int, float))},
    )
    progress = ", ".join(f"{label} {number}" for label, number in metadata.progress.items())
    card = ModelCard.from_template(
        ModelCardData(
            license=licence or None,
            library_name=kind.library,
            pipeline_tag=kind.task or None,
            tags=list(kind.tags),
            base_model=metadata.base_model or None,
            metrics=list(metadata.results) or None,
        ),
        template_str=TEMPLATE,
        title=name.rsplit("/", 1)[-1],
        summary=kind.summary,
        results=metadata.results,
        progress=f", after {progress}" if progress else "",
        settings={key: value for key, value in metadata.settings.items() if _is_shown(key, value)},
        versions=", ".join(
            f"{label} {value}"
            for label in ("commit", "started", "torch", "python")
            if (value := metadata.run.get(label)) and _is_plain(value)
        ),
        example=kind.example.format(name=name),
        repository=repository,
        repository_name=repository.rpartition("/")[2],
        mark=MARK,
    )
    card.save(path)


def read_card(folder: Path) -> str:
    """The card that an earlier call wrote into a folder, with the user's changes; '' if there is none."""
    card = folder / "README.md"
    text = read_text(card) if card.is_file() else ""
    return text if MARK in text else ""


def repository() -> str:
    """The web address of the repository that this code was cloned from; '' if there is none."""
    git = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    try:
        remote = subprocess.run(git, capture_output=True, text=True, timeout=30).stdout.strip()
    except OSError:  # no git
        return ""
    address = re.fullmatch(r"(?:\w+://)?(?:[^@/]+@)?([\w.-]+\.\w+)(?::\d+)?[:/](?!\d+/)(.+?)(?:\.git)?/?", remote)
    return f"https://{address[1]}/{address[2]}" if address else ""


def _is_plain(text: object) -> bool:
    """Whether a name or a version is short, no secret and no path."""
    return isinstance(text, str) and bool(PLAIN.fullmatch(text)) and scrub(text) == text


def _is_shown(name: str, value: Any) -> bool:
    short = next((name.removeprefix(section) for section in SECTIONS if name.startswith(section)), name)
    named = name in SHOWN_SETTINGS or short in SHOWN_SETTINGS
    return named and value not in (None, "", -1) and isinstance(value, (str, int, float)) and "\n" not in str(value)


def _is_result(name: str, value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not name.endswith(NOT_RESULTS)


def _read(path: Path) -> dict[str, Any]:
    """Nothing of a link: what the card shows is of the folder itself."""
    return read_checked(path, dict[str, Any]) if path.is_file() and not path.is_symlink() else {}
