"""Models behind the web page, each loaded when it is first used."""

from functools import cached_property
from typing import Any

import torch

from blip2_gated.checkpoint import load_gated
from blip2_gated.model import Blip2OPTGated
from clip.checkpoint import load_clip
from clip.image_encoder import clip_extractor
from clip.model import CLIPModel
from common.cli.settings import read_settings
from common.training.device import choose_device
from common.vectors.extractor import Extractor
from common.vectors.vector_store import index_folder
from llava import config as llava_config
from llava.analysis import Analyzer
from llava.backend import open_analyzer
from model import VisionStyleEncoder
from retrieval.search import Searcher, open_index
from style_encoder import load_encoder
from webpage.flags import ModelFlags


class Models(ModelFlags):
    """The models of the flags that are given."""

    @cached_property
    def torch_device(self) -> torch.device:
        return choose_device(self.device)

    @cached_property
    def style_encoder(self) -> tuple[VisionStyleEncoder, dict[str, Any]]:
        """The encoder, and the statistics of its validation if it has some."""
        encoder, content = load_encoder(self.style, self.torch_device)
        return encoder, content.get("validation", {})

    @cached_property
    def clip_model(self) -> CLIPModel:
        return load_clip(self.clip, self.torch_device)[0]

    @cached_property
    def clip_extractor(self) -> Extractor:
        return clip_extractor(self.clip_model, self.clip)

    @cached_property
    def searcher(self) -> Searcher:
        if self.index:
            return open_index(self.index, self.index_weights, self.device, self.shown_folder())
        return Searcher(index_folder(self.folder, self.clip_extractor), self.clip_extractor)

    @cached_property
    def analyzer(self) -> Analyzer:
        flags = {
            "model_id": self.llava,
            "adapter": self.llava_adapter,
            "language": self.llava_language,
            "device": self.device,
        }
        return open_analyzer(read_settings(llava_config, [f"--{flag}={value}" for flag, value in flags.items()]))

    @cached_property
    def gated(self) -> Blip2OPTGated:
        return load_gated(self.blip2, self.torch_device)[0]
