"""Records of what a network's weights need and their names and shapes do not show: activation and preprocessing.

tag of open_clip      -> open_clip's table of published weights
OpenAI's archives     -> constants among their tensors
open_clip_config.json -> next to the weights of open_clip's models on the Hub
params.txt            -> above checkpoints/ in a run of open_clip's training

A network with another activation, or other channel statistics, loads all the same and is quietly worse.
"""

from ast import literal_eval
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
from open_clip.transform import PreprocessCfg

from clip.schema import HubConfig
from common.text.files import read_lines
from common.text.schema import read_checked

PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")  # fields of open_clip's PreprocessCfg
OPENAI_CONSTANTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # among the weights of archives
HUB_CONFIG = "open_clip_config.json"


class Record(NamedTuple):
    """What weights were trained with."""

    quick_gelu: bool
    preprocessing: dict[str, Any]  # the fields of PREPROCESSING


def preprocessing_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of PREPROCESSING, OpenAI's where `values` has none."""
    values = asdict(PreprocessCfg()) | {name: value for name, value in values.items() if value is not None}
    return {name: list(values[name]) if name in ("mean", "std") else values[name] for name in PREPROCESSING}


def tag_record(name: str, tag: str) -> Record:
    """name: of open_clip. Some tags leave QuickGELU to the architecture: roberta-ViT-B-32's."""
    published, architecture = open_clip.get_pretrained_cfg(name, tag), open_clip.get_model_config(name)
    quick_gelu = published.get("quick_gelu") or architecture.get("quick_gelu")
    return Record(bool(quick_gelu), preprocessing_of(published))


def usual_record(name: str, architecture: Mapping[str, Any]) -> Record:
    """What all published weights of an architecture have in common; else the architecture's own, as in open_clip."""
    records = [tag_record(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    if records and records.count(records[0]) == len(records):
        return records[0]
    return Record(architecture.get("quick_gelu", False), preprocessing_of({}))


def file_record(path: Path, tensors: Mapping[str, Any]) -> Record | None:
    """None: nothing is on record for this file."""
    if OPENAI_CONSTANTS[0] in tensors:
        return Record(True, preprocessing_of({}))
    if (path.parent / HUB_CONFIG).is_file():
        return hub_record(read_checked(path.parent / HUB_CONFIG, HubConfig))
    params = path.parent.parent / "params.txt"
    return _run_record(params) if path.parent.name == "checkpoints" and params.is_file() else None


def hub_record(content: Mapping[str, Any]) -> Record:
    """content: of open_clip_config.json."""
    return Record(content["model_cfg"].get("quick_gelu", False), preprocessing_of(content.get("preprocess_cfg", {})))


def _run_record(params: Path) -> Record | None:
    """params: a line `name: value` for each flag of open_clip's training, None where it was not given."""
    lines = read_lines(params)
    values = {name: None if value == "None" else value for name, _, value in (line.partition(": ") for line in lines)}
    name = (values.get("model") or "").replace("/", "-")
    quick_gelu = values.get("force_quick_gelu") == "True" or (open_clip.get_model_config(name) or {}).get("quick_gelu")
    if values.get("pretrained") == "openai" and not quick_gelu:
        return None  # such a run had QuickGELU up to version 2 of open_clip, and GELU with a warning since
    # Any other tag to start from brings its preprocessing, and not its activation.
    preprocessing = dict(open_clip.get_pretrained_cfg(name, values.get("pretrained") or ""))
    for field in PREPROCESSING:
        if value := values.get(f"image_{field}"):
            preprocessing[field] = literal_eval(value) if value.startswith(("[", "(")) else value
    return Record(bool(quick_gelu), preprocessing_of(preprocessing))
