"""The model that a training begins with: what its settings mean together, and which weights it starts from."""

from argparse import Namespace
from pathlib import Path

from clip import config
from clip.architectures import check_architecture, is_architecture
from clip.checkpoint import load_clip
from clip.model import CLIPModel
from clip.pretrained import choose_weights

# Of an architecture; a complete model brings its own.
MODEL_SETTINGS = ("pretrained", "image_size", "projection_dim", "image_tower", "text_tower")
MODEL_SETTINGS += ("normalisation", "patch_dropout")


def check_settings(settings: Namespace) -> None:
    """Checks beyond the types of single settings."""
    if settings.freeze_backbone and settings.lock_image:
        raise ValueError("--freeze_backbone and --lock_image: the first freezes both towers, the second one; give one")
    if settings.image_weights and not settings.image_tower:
        raise ValueError("--image_weights: names weights of --image_tower, which is not given")
    changed = [name for name in MODEL_SETTINGS if getattr(settings, name) != getattr(config, name.upper())]
    if changed and is_complete_model(settings.model_name):
        raise ValueError(
            f"--{changed[0]}: {settings.model_name} is a complete model that defines this itself; omit the flag"
        )
    if is_complete_model(settings.model_name):
        return
    check_architecture(settings.model_name)
    if weights_of(settings):
        return
    image_is_random = not (settings.image_tower and settings.image_weights)
    is_random = image_is_random or (settings.freeze_backbone and not settings.text_tower)
    if is_random and (settings.freeze_backbone or settings.lock_image):
        flag = "--freeze_backbone" if settings.freeze_backbone else "--lock_image"
        raise ValueError(
            f"{flag}: {settings.model_name} starts from random weights here, which would stay random; give "
            "--pretrained openai (for all but small) or a file of weights, or omit the flag"
        )


def is_complete_model(name: str) -> bool:
    """Whether this is a checkpoint, folder, name on the Hub or NAME:TAG of open_clip, and not an architecture."""
    return Path(name).exists() or (("/" in name or ":" in name) and not is_architecture(name))


def weights_of(settings: Namespace) -> str | None:
    """What an architecture starts from: a tag of open_clip or a file; None: random weights."""
    is_plain = not settings.image_tower and not settings.text_tower
    return choose_weights(settings.pretrained, settings.model_name, is_plain)


def build_model(settings: Namespace) -> CLIPModel:
    if is_complete_model(settings.model_name):
        model, _ = load_clip(settings.model_name)
        model.train()
    else:
        model = CLIPModel(
            settings.model_name,
            weights_of(settings),
            image_size=settings.image_size or None,
            projection_dim=settings.projection_dim or None,
            patch_dropout=settings.patch_dropout,
            image_tower=settings.image_tower or None,
            image_weights=settings.image_weights,
            text_tower=settings.text_tower or None,
            sigmoid=settings.loss == "siglip",
            normalisation=settings.normalisation,
        )
    if settings.loss == "siglip" and model.network.logit_bias is None:
        raise ValueError(f"--loss siglip: {settings.model_name} was trained with --loss clip and has no bias; use that")
    if settings.freeze_backbone:
        model.freeze_backbone()
    if settings.lock_image:
        model.lock_image_tower()
    if settings.gradient_checkpointing:
        model.network.set_grad_checkpointing()
    return model
