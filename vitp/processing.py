"""What goes with a model into its folder: tokenizer, chat template, how images are cut and normalised.

folder -> tokenizer, Tiling            tokenizer, Tiling -> InternVLProcessor, which transformers loads again
"""

from pathlib import Path

from transformers import (
    AutoTokenizer,
    GotOcr2ImageProcessor,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerBase,
)

from common.images.tiling import IMAGENET_MEAN, IMAGENET_STD, Tiling
from vitp.checkpoint import read_json

FILES = ("processor_config.json", "preprocessor_config.json")


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """From a folder, from a .gguf file, or from the folder of a config.json. No code from it is run."""
    place, more = Path(path), {}
    if place.suffix == ".gguf":
        place, more = place.parent, {"gguf_file": place.name}
    elif place.suffix == ".json":
        place = place.parent
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False, **more)
    except (ValueError, OSError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: no tokenizer can be read there ({reason}); give --tokenizer its folder") from None


def read_image_settings(folder: str | Path) -> dict:
    """-> image_mean, image_std and whatever else the folder's image processor says; ImageNet's where it has none."""
    for name in FILES:
        path = Path(folder) / name
        if path.is_file():
            facts = read_json(path)
            facts = facts.get("image_processor", facts)
            if "image_mean" in facts and "image_std" in facts:
                return facts
    return {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}


def build_processor(tokenizer: PreTrainedTokenizerBase, template: str, tiling: Tiling) -> InternVLProcessor:
    """transformers' own processor, with this tiling. Its images differ in the last bit or two: it resizes tensors,
    this repository (as InternVL) PIL images."""
    images = GotOcr2ImageProcessor(
        size={"height": tiling.tile_size, "width": tiling.tile_size},
        image_mean=list(tiling.mean),
        image_std=list(tiling.std),
        crop_to_patches=tiling.max_tiles > 1,
        min_patches=tiling.min_tiles,
        max_patches=tiling.max_tiles,
    )
    return InternVLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=tiling.tokens,
        chat_template=template,
    )
