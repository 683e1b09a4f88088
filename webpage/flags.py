"""Flags of app.py that name the models of the page."""

from dataclasses import dataclass
from pathlib import Path

from common.cli.paths import find_from_root
from common.text.schema import read_checked
from common.vectors.records import StoreMetadata, is_milvus


@dataclass
class ModelFlags:
    """Weights by the flags of app.py; '' = not given."""

    style: str = ""  # a style encoder's .pth: compare styles
    clip: str = ""  # best_model.pth, a Hugging Face CLIP, ViT-B/32, NAME:TAG of open_clip: match texts, heat maps
    index: str = ""  # written by retrieval/build_index.py, a folder or a place of Milvus: search it
    index_weights: str = ""  # where the weights of --index are, if they have moved
    index_images: str = ""  # where the images of --index are, if they have moved
    folder: str = ""  # images to search with --clip or --vitp; vectors are kept in .image_index
    llava: str = ""  # folder or name of an image-text model: describe and score
    llava_adapter: str = ""  # folder of a LoRA adapter for --llava
    llava_language: str = "en"  # of its prompts: en or zh
    vitp: str = ""  # folder of vitp/train.py, or an InternVL: answers; search of --folder by its vision encoder
    blip2: str = ""  # best.pt of blip2_gated/train.py: answers, also with another style
    device: str = "auto"

    def check(self) -> None:
        """ValueError or FileNotFoundError for missing files and flags that exclude or need each other."""
        if not (self.style or self.clip or self.index or self.llava or self.vitp or self.blip2):
            raise ValueError("nothing to show; give one of --style, --clip, --index, --llava, --vitp, --blip2")
        if self.folder and self.index:
            raise ValueError("--folder and --index: the page searches only one of them")
        if self.folder and not (self.clip or self.vitp):
            raise ValueError("--folder: needs a model to search it; give --clip or --vitp too")
        for flag, needed in (("index_weights", "index"), ("index_images", "index"), ("llava_adapter", "llava")):
            if getattr(self, flag) and not getattr(self, needed):
                raise ValueError(f"--{flag}: is used with --{needed} only; give --{needed} too")
        for flag in ("style", "clip", "index", "index_images", "folder", "blip2"):
            path = Path(getattr(self, flag).rpartition(":")[2] if flag == "clip" else getattr(self, flag))
            is_folder = flag in ("index", "index_images", "folder")
            elsewhere = flag == "clip" and path.suffix not in (".pth", ".pt")  # a folder, an architecture, the Hub
            elsewhere |= flag == "index" and is_milvus(self.index)
            if getattr(self, flag) and not elsewhere and not (path.is_dir() if is_folder else path.is_file()):
                raise FileNotFoundError(f"{path}: no such {'folder' if is_folder else 'file'} (--{flag})")
        if self.vitp and not Path(find_from_root(self.vitp)).exists():
            raise FileNotFoundError(f"{self.vitp}: no such folder (--vitp)")
        if is_milvus(self.index) and not self.index_images:
            raise ValueError(f"--index {self.index}: give the folder whose images visitors may see: --index_images")
        if self.index and not self.index_images and _is_wide(self.shown_folder()):
            raise ValueError(
                f"--index {self.index}: its image folder is {self.shown_folder()}, and the page would show any image "
                "in it; confirm it, or name another, with --index_images FOLDER"
            )

    def shown_folder(self) -> Path | None:
        """The folder whose images visitors may see."""
        if self.index and not self.index_images:
            return Path(read_checked(Path(self.index) / "metadata.json", StoreMetadata)["image_dir"]).resolve()
        return Path(self.index_images or self.folder).resolve() if self.index_images or self.folder else None


def _is_wide(folder: Path | None) -> bool:
    """Whether it holds much else than images: /, a folder of it, one with the user's home."""
    return folder is not None and (len(folder.parts) <= 2 or Path.home().resolve().is_relative_to(folder))
