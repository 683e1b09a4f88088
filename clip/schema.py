"""Types of the plain values that a CLIP is built from, and of open_clip's config files."""

from typing import Any, Required

from pydantic import FiniteFloat
from typing_extensions import TypedDict


class Architecture(TypedDict, total=False):
    """A model config of open_clip."""

    embed_dim: Required[int]
    vision_cfg: Required[dict[str, Any]]
    text_cfg: Required[dict[str, Any]]
    quick_gelu: bool
    custom_text: bool


class Config(TypedDict, total=False):
    """Plain values that build a CLIPModel."""

    architecture: Required[Architecture]
    sigmoid: Required[bool]
    tokenizer: Required[dict[str, Any]]
    mean: list[FiniteFloat]
    std: list[FiniteFloat]
    interpolation: str
    resize_mode: str


class Build(TypedDict):
    config: Config


class Preprocessing(TypedDict, total=False):
    mean: list[FiniteFloat]
    std: list[FiniteFloat]
    interpolation: str
    resize_mode: str


class HubConfig(TypedDict, total=False):
    """open_clip_config.json."""

    model_cfg: Required[Architecture]
    preprocess_cfg: Preprocessing
