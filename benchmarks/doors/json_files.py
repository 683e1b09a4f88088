"""common.text.schema.read_checked: a random value at a random place of every file of JSON that this project reads."""

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.doors import mutated, refused
from blip2_gated.backbone import Blip2Settings
from clip.schema import HubConfig
from common.models.backbone_weights import TimmConfig
from common.models.model_config import ImageProcessorConfig, ModelConfig
from common.models.weight_files import ShardIndex
from common.samples.sample_folder import Manifest
from common.text.schema import read_checked
from common.training.run import Record
from common.training.schedule import Progress
from common.vectors.records import StoreMetadata
from common.vectors.shards import Metadata, ShardFile
from llava.checkpoint import AdapterConfig, TrainedOn

STATISTICS = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "interpolation": "bicubic"}
VECTORS = {"weights": "a", "key": "1", "pooling": "mean", "layer": -1, "flip": True, "tiles": 1, "image_size": 32}
ARCHITECTURE = {"embed_dim": 8, "vision_cfg": {"layers": 2}, "text_cfg": {"width": 8}}
FILES: list[tuple[Any, Any]] = [  # type, and content that is right
    (Record, {"name": "clip-1", "trackers": {"wandb": "a"}}),
    (Progress, {"epoch": 1, "batch": 0, "step": 9, "best": 0.5, "sums": {"loss": 1.0}, "history": [{"loss": 0.1}]}),
    (dict[str, str], {"model.safetensors": "ab12"}),
    (Metadata, {"image_dir": "a", "shards": 2, "layer": -1, "flip": False, "tiles": 1, "image_size": 32}),
    (StoreMetadata, VECTORS | {"image_dir": "a", "kind": "flat", "dtype": "float16", "trained_on": 0, "width": 8}),
    (ShardFile, {"images": [["a/b.png", "0f"], ["c.png", ""]], "skipped": {"d.png": "broken"}}),
    (ShardIndex, {"weight_map": {"a.weight": "model-1.safetensors"}}),
    (ModelConfig, {"model_type": "internvl", "vision_config": {"a": 1}, "downsample_ratio": 0.5, "select_layer": -1}),
    (ImageProcessorConfig, {"image_mean": [0.5], "image_std": 0.5, "image_processor": {}}),
    (TimmConfig, {"architecture": "vit", "pretrained_cfg": STATISTICS | {"input_size": [3, 32, 32]}}),
    (HubConfig, {"model_cfg": ARCHITECTURE, "preprocess_cfg": STATISTICS}),
    (Blip2Settings, {"text_config": {"vocab_size": 9}, "num_query_tokens": 4}),
    (AdapterConfig, {"base_model_name_or_path": "a/b"}),
    (TrainedOn, {"fingerprint": "12", "model_id": "a", "system_prompt": "be kind"}),
    (Manifest, {"files": ["a.png"]}),
]
VALUES = (
    "",
    "x",
    "1",
    "false",
    "\ud800",
    "\x00",
    True,
    None,
    0,
    -1,
    1.5,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
)
TEXTS = (b"", b"{", b"[" * 5000, b"1" * 5000, b'{"a":1,"a":2}', b"\xff\xfe", b"NaN", b"null", b"\xef\xbb\xbf{}", b"{}x")


def trial(random: Random, folder: Path) -> str:
    path = folder / "a.json"
    schema, content = random.choice(FILES)
    kind, changed, place = random.choice(["value", "missing", "bytes", "text", "whole"]), copy.deepcopy(content), ""
    if kind in ("value", "missing"):
        container, key = random.choice(_places(changed))
        place = str(key)
        if kind == "value":
            container[key] = random.choice(VALUES)
        else:
            del container[key]
    data = json.dumps(changed, ensure_ascii=True).encode(random.choice(["utf-8", "utf-8-sig", "utf-16"]))
    if kind == "bytes":
        data = mutated(random, data)
    elif kind == "text":
        data = random.choice(TEXTS)
    path.write_bytes(data)
    try:
        read = read_checked(path, schema)
    except ValueError as error:
        assert kind != "whole", f"good content refused: {error}"
        assert kind != "value" or place in str(error), f"the place {place!r} is not named: {error}"
        return refused(error, path)
    if kind in ("value", "missing", "whole"):
        values = vars(read) if schema is Progress else read
        expected = vars(Progress(**changed)) if schema is Progress else changed
        assert repr(values) == repr(expected), f"{expected} became {values}"
    return "read"


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every value in nested content, as its container and its key."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    return [place for key in keys for place in [(content, key), *_places(content[key])]]
