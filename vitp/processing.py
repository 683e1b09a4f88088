"""Tokenizer, chat template and tiling of a model: read from its folder, fitted to it, saved with it.

model, tokenizer, image statistics -> ModelBundle
tokenizer, tiling -> InternVLProcessor, which transformers opens
"""

from pathlib import Path
from typing import NamedTuple

from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor, PreTrainedTokenizerBase

from common.images.tiling import IMAGENET_MEAN, IMAGENET_STD, Tiling
from common.models.checkpoint_file import first_line
from common.models.model_config import ImageProcessorConfig
from common.models.tokenizer import load_tokenizer
from common.text.schema import check_type, read_checked
from vitp.chat_template import ChatTemplate, prepare_tokenizer
from vitp.checkpoint import fit_to_images, fit_to_tokenizer
from vitp.model import VisualInstructionModel

CONFIG_FILES = ("processor_config.json", "preprocessor_config.json")


class ModelBundle(NamedTuple):
    """A model with the template and tiling that fit it."""

    model: VisualInstructionModel
    template: ChatTemplate  # with its tokenizer
    tiling: Tiling


def bundle_model(
    model: VisualInstructionModel,
    tokenizer: PreTrainedTokenizerBase,
    statistics: dict,
    conv_style: str,
    image_size: int | None = None,
    **tiling,
) -> ModelBundle:
    """Fit a model to its tokenizer, in place, and to tiles of image_size pixels (None: its own).

    statistics: image_mean and image_std. tiling: further arguments of Tiling.
    """
    prepare_tokenizer(tokenizer, conv_style)
    template = ChatTemplate(tokenizer, conv_style)
    tokens = fit_to_images(model, image_size)
    fit_to_tokenizer(model, tokenizer, template.end_token_id)
    fitted_tiling = Tiling(
        model.config.vision_config.image_size[0],
        tokens,
        mean=tuple(statistics["image_mean"]),
        std=tuple(statistics["image_std"]),
        **tiling,
    )
    return ModelBundle(model, template, fitted_tiling)


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """From a folder, a .gguf file, or the folder of a config.json. No code from it is run."""
    file = Path(path)
    folder = file.parent if file.suffix in (".gguf", ".json") else file
    options = {"gguf_file": file.name} if file.suffix == ".gguf" else {}
    try:
        return load_tokenizer(folder, **options)
    except (ValueError, OSError, KeyError, ImportError) as error:
        raise ValueError(
            f"{path}: holds no readable tokenizer ({first_line(error)}); --tokenizer names its folder"
        ) from None


def read_image_settings(folder: str | Path) -> dict:
    """-> image_mean, image_std and the other settings of the folder's image processor; ImageNet's if it has none"""
    for name in CONFIG_FILES:
        path = Path(folder) / name
        settings: dict = dict(read_checked(path, ImageProcessorConfig)) if path.is_file() else {}
        settings = settings.get("image_processor", settings)
        check_type(settings, ImageProcessorConfig, path)
        if "image_mean" in settings and "image_std" in settings:
            return settings
    return {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}


def build_processor(template: ChatTemplate, tiling: Tiling) -> InternVLProcessor:
    """transformers' processor with this tiling. Its pixels differ in the last bit or two: it resizes tensors, this
    repository PIL images, as InternVL does."""
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": tiling.tile_size, "width": tiling.tile_size},
            image_mean=list(tiling.mean),
            image_std=list(tiling.std),
            crop_to_patches=tiling.max_tiles > 1,
            min_patches=tiling.min_tiles,
            max_patches=tiling.max_tiles,
        ),
        tokenizer=template.tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=tiling.tokens,
        chat_template=template.template,
    )
