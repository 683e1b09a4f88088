"""config.json of a model's folder, and of its image processor, as the libraries of the field write them."""

from pathlib import Path
from typing import Any

from pydantic import FiniteFloat
from typing_extensions import TypedDict

from common.models.build_arguments import check_plain
from common.text.schema import read_checked


class ModelConfig(TypedDict, total=False):
    """The fields that are read here, of this project, transformers, InternVL and timm."""

    kind: str  # of this project
    model_type: str  # of transformers
    architecture: str  # of timm
    vision_config: dict[str, Any]
    llm_config: dict[str, Any]  # of InternVL
    text_config: dict[str, Any] | None
    ps_version: str
    downsample_ratio: FiniteFloat
    select_layer: int
    image_mean: list[FiniteFloat]
    image_std: list[FiniteFloat]


class ImageProcessorConfig(TypedDict, total=False):
    """preprocessor_config.json, or processor_config.json, which nests it."""

    image_processor: dict[str, Any]
    image_mean: list[FiniteFloat] | FiniteFloat
    image_std: list[FiniteFloat] | FiniteFloat


def read_model_config(path: Path, hint: str = "") -> dict[str, Any]:
    """hint: as in check_file."""
    config = dict(read_checked(path, ModelConfig, hint))
    check_plain(config, path)
    return config
