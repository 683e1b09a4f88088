"""Models behind the web page, each loaded when it is first used."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
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
from llava.backend import open_analyzer
from model import VisionStyleEncoder
from retrieval.search import Searcher, open_index
from style_encoder import load_encoder


@dataclass
class Models:
    """Weights by the flags of app.py; '' = not given."""

    style: str = ""  # a style encoder's .pth: compare styles
    clip: str = ""  # best_model.pth, or a Hugging Face CLIP: match texts, heat maps
    index: str = ""  # written by retrieval/build_index.py: search it
    index_weights: str = ""  # where the weights of --index are, if they have moved
    folder: str = ""  # images to search with --clip; vectors are kept in .image_index
    llava: str = ""  # folder or name of an image-text model: describe and score
    llava_adapter: str = ""  # folder of a LoRA adapter for --llava
    llava_language: str = "en"  # of its prompts: en or zh
    blip2: str = ""  # best.pt of blip2_gated/train.py: answers with another style
    device: str = "auto"

    def check(self) -> None:
        """ValueError or FileNotFoundError for missing files and flags that exclude or need each other."""
        if not (self.style or self.clip or self.index or self.llava or self.blip2):
            raise ValueError("nothing to show; give one of --style, --clip, --index, --llava, --blip2")
        if self.folder and self.index:
            raise ValueError("--folder and --index: the page searches only one of them")
        for flag, needed in (("folder", "clip"), ("index_weights", "index"), ("llava_adapter", "llava")):
            if getattr(self, flag) and not getattr(self, needed):
                raise ValueError(f"--{flag}: is used with --{needed} only; give --{needed} too")
        for flag in ("style", "clip", "index", "folder", "blip2"):
            path = Path(getattr(self, flag))
            is_folder = flag in ("index", "folder")
            on_hub = flag == "clip" and path.suffix not in (".pth", ".pt")  # or a Hugging Face folder
            if getattr(self, flag) and not on_hub and not (path.is_dir() if is_folder else path.is_file()):
                raise FileNotFoundError(f"{path}: no such {'folder' if is_folder else 'file'} (--{flag})")

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
            return open_index(Path(self.index), self.index_weights, self.device)
        return Searcher(index_folder(self.folder, self.clip_extractor), self.clip_extractor)

    @cached_property
    def analyzer(self):
        """llava.analyzer.LlavaAnalyzer."""
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
