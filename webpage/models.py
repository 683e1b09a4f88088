"""Which weights does the page have, and when are they read? Each once, when the first question needs it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from blip2_gated.checkpoint import load_gated
from blip2_gated.model import Blip2OPTGated
from clip.checkpoint import load_clip
from clip.model import CLIPModel
from common.cli.settings import read_settings
from common.training.device import choose_device
from llava import config as llava_config
from llava.backend import open_analyzer
from model import VisionStyleEncoder
from style_encoder import load_encoder
from webpage.searching import FolderSearcher, IndexSearcher, Searcher


@dataclass
class Models:
    """Names of weights as the command line gives them; '' = not to be had."""

    style: str = ""  # a .pth of train.py
    clip: str = ""  # best_model.pth, or a Hugging Face CLIP
    index: str = ""  # a folder of build_index.py
    index_weights: str = ""  # where its weights are now
    folder: str = ""  # images to be searched with `clip`
    llava: str = ""  # folder or name
    llava_adapter: str = ""
    llava_language: str = "en"
    blip2: str = ""  # best.pt
    device: str = "auto"

    def check(self) -> None:
        """What can be said before anything is read: files that are not there, flags that do not go together."""
        if not (self.style or self.clip or self.index or self.llava or self.blip2):
            raise ValueError("nothing to show; give one of --style, --clip, --index, --llava, --blip2")
        if self.folder and self.index:
            raise ValueError("--folder and --index: one page searches one collection; leave one out")
        if self.folder and not self.clip:
            raise ValueError(f"--folder {self.folder}: is searched with a CLIP; give --clip too")
        for flag, needs in (("index_weights", "index"), ("llava_adapter", "llava")):
            if getattr(self, flag) and not getattr(self, needs):
                raise ValueError(f"--{flag}: has a meaning with --{needs} alone")
        for flag in ("style", "blip2"):
            path = getattr(self, flag)
            if path and not Path(path).is_file():
                raise FileNotFoundError(f"{path}: no such file (--{flag})")
        for flag in ("index", "folder"):
            path = getattr(self, flag)
            if path and not Path(path).is_dir():
                raise FileNotFoundError(f"{path}: no such folder (--{flag})")
        if Path(self.clip).suffix in (".pth", ".pt") and not Path(self.clip).is_file():  # else a name on the hub
            raise FileNotFoundError(f"{self.clip}: no such file (--clip)")

    @cached_property
    def place(self) -> torch.device:
        return choose_device(self.device)

    @cached_property
    def style_encoder(self) -> tuple[VisionStyleEncoder, dict[str, Any]]:
        """The encoder, and the statistics of its validation where it has some."""
        encoder, content = load_encoder(self.style, self.place)
        return encoder, content.get("validation", {})

    @cached_property
    def clip_model(self) -> CLIPModel:
        return load_clip(self.clip, self.place)[0]

    @cached_property
    def searcher(self) -> Searcher:
        if self.index:
            return IndexSearcher(self.index, self.index_weights, self.device)
        return FolderSearcher(self.folder, self.clip_model, self.place)

    @cached_property
    def analyzer(self):
        """llava.analyzer.LlavaAnalyzer."""
        asked = {
            "model_id": self.llava,
            "adapter": self.llava_adapter,
            "language": self.llava_language,
            "device": self.device,
        }
        return open_analyzer(read_settings(llava_config, [f"--{name}={value}" for name, value in asked.items()]))

    @cached_property
    def gated(self) -> Blip2OPTGated:
        return load_gated(self.blip2, self.place)[0]
