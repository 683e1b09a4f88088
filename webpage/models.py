"""Models behind the web page, each loaded when it is first used."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from blip2_gated.checkpoint import load_gated
from blip2_gated.model import Blip2OPTGated
from clip.checkpoint import load_clip
from clip.image_encoder import clip_extractor
from clip.model import CLIPModel
from common.cli.paths import find_from_root
from common.cli.settings import read_settings
from common.training.device import choose_device
from common.vectors.extractor import Extractor
from common.vectors.options import ExtractorOptions
from common.vectors.vector_store import index_folder
from llava import config as llava_config
from llava.backend import open_analyzer
from model import VisionStyleEncoder
from retrieval.encoders import open_extractor
from retrieval.search import Searcher, open_index
from style_encoder import load_encoder
from vitp.inference import VQAPredictor
from webpage.flags import ModelFlags


class Models(ModelFlags):
    """The models of the flags that are given."""

    report: Callable[..., None] = staticmethod(lambda done, total, words, unit="steps": None)  # progress of an answer

    @cached_property
    def torch_device(self) -> torch.device:
        return choose_device(self.device)

    @cached_property
    def style_encoder(self) -> tuple[VisionStyleEncoder, dict[str, Any]]:
        """The encoder, and the statistics of its validation if it has some."""
        self.report(0, 2, "loading the style encoder")
        encoder, content = load_encoder(self.style, self.torch_device)
        return encoder, content.get("validation", {})

    @cached_property
    def clip_model(self) -> CLIPModel:
        self.report(0, 2, "loading the CLIP model")
        return load_clip(self.clip, self.torch_device)[0]

    @cached_property
    def clip_extractor(self) -> Extractor:
        return clip_extractor(self.clip_model, self.clip)

    @cached_property
    def searcher(self) -> Searcher:
        if self.index:
            self.report(0, 2, "opening the index")
            return open_index(self.index, self.index_weights, self.device, self.shown_folder())
        return self._index_folder(self.clip_extractor)

    @property
    def search_tokenizer(self) -> Any:
        """Of the words that are searched for, in an index of CLIP vectors."""
        encoder: Any = self.searcher.extractor.encoder
        return encoder.model.tokenizer

    @cached_property
    def analyzer(self) -> Any:  # a LlavaAnalyzer
        self.report(0, 2, "loading the image-text model")
        flags = {
            "model_id": self.llava,
            "adapter": self.llava_adapter,
            "language": self.llava_language,
            "device": self.device,
        }
        return open_analyzer(read_settings(llava_config, [f"--{flag}={value}" for flag, value in flags.items()]))

    @cached_property
    def vitp_predictor(self) -> VQAPredictor:
        self.report(0, 2, "loading the ViTP model")
        return VQAPredictor(self.vitp, self.torch_device)

    @cached_property
    def vitp_searcher(self) -> Searcher:
        self.report(0, 2, "loading the vision encoder")
        extractor = open_extractor(find_from_root(self.vitp), ExtractorOptions(device=self.device))
        return self._index_folder(extractor)

    @cached_property
    def gated(self) -> Blip2OPTGated:
        self.report(0, 2, "loading the BLIP-2 model")
        return load_gated(self.blip2, self.torch_device)[0]

    def _index_folder(self, extractor: Extractor) -> Searcher:
        embed = extractor.embed

        def reporting(paths: Sequence[Path], quiet: bool = False) -> Iterator:
            for done, item in enumerate(embed(paths, quiet), 1):
                if len(paths) > 1:  # not of a query
                    self.report(done, len(paths), "encoding the folder", "images")
                yield item

        extractor.embed = reporting  # type: ignore[method-assign]
        return Searcher(index_folder(self.folder, extractor), extractor)
