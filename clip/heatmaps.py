"""Heat maps: the regions of an image that match a text.

image (B, 3, S, S), text vectors (B, D) -> one of the methods -> (B, rows, columns) in [0, 1], one value per patch
image (PIL), map (rows, columns), text -> the image and its overlay side by side, the text below

Image i is explained for text i. The methods are in clip/attention_maps.py and clip/cnn_heatmaps.py; they do not change
the model. Each map is scaled to [0, 1], as in all the papers: it shows where, not how well, the text matches.
"""

from collections.abc import Callable

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import nn

from clip.attention_maps import chefer, grad_eclip, legrad, min_max, surgery
from clip.cnn_heatmaps import dense, gradcam, is_timm_transformer
from clip.model import CLIPModel
from common.images.contact_sheet import GAP, LINE, draw_text, wrap
from common.images.transforms import square
from common.models.eval_mode import eval_mode

SIDE = 320  # pixels of one image of side_by_side
MAX_LINES = 12  # of a text below its heat map
COLOURS = matplotlib.colormaps["inferno"]  # perceptually uniform: in greyscale too
MAX_WEIGHTS = 2**27  # attention weights kept at once: 0.5 GB, and as much again for their gradients


def heatmap(
    model: CLIPModel,
    image: torch.Tensor,
    text_vectors: torch.Tensor,
    method: str | None = None,
    shared: torch.Tensor | None = None,
) -> torch.Tensor:
    """image (B, 3, S, S) as encode_image takes it, text_vectors (B, D) unit -> (B, rows, columns) float32 in [0, 1].

    method: one of `methods_of(model)`, None the best in benchmarks/heatmaps.py. shared (D,): the part that all texts
    have in common, such as their mean; it is subtracted, so that the map shows what matches this text and not any text
    (feature surgery of Li et al. 2023). A constant map is 0 everywhere.
    """
    compute = find_method(model, method)
    if image.shape[1:] != (3, model.image_size, model.image_size) or len(image) != len(text_vectors):
        raise ValueError(
            f"image {tuple(image.shape)} and text vectors {tuple(text_vectors.shape)}: expected "
            f"(B, 3, {model.image_size}, {model.image_size}) and (B, D)"
        )
    direction = text_vectors if shared is None else F.normalize(text_vectors - shared, dim=-1)
    visual, maps, count = model.network.visual, [], 64
    if isinstance(visual, VisionTransformer):  # images whose attention weights, all kept for their gradients, fit
        tokens, blocks = visual.positional_embedding.shape[0], visual.transformer.resblocks
        count = max(1, MAX_WEIGHTS // (tokens**2 * len(blocks) * blocks[0].attn.num_heads))
    with torch.inference_mode(False), torch.enable_grad(), eval_mode(model):  # whatever mode the caller is in
        pixels, direction = model.normalise(image.clone()).detach(), direction.clone().detach()
        for part in torch.arange(len(image)).split(count):
            maps.append(min_max(compute(visual, pixels[part], direction[part]).detach().float()))
    return torch.cat(maps)


def find_method(model: CLIPModel, name: str | None) -> Callable:
    """The method of that name, or the default; ValueError with the valid names for any other."""
    known = methods_of(model)
    if name and name not in known:
        raise ValueError(f"heat map method '{name}': this image tower has {', '.join(known)}")
    return known[name or next(iter(known))]


def methods_of(model: CLIPModel) -> dict[str, Callable]:
    """The methods for this model's image tower; ValueError where there is none.

    The first is the default: the best in benchmarks/heatmaps.py, whose peak is most often on the named object.
    """
    visual = model.network.visual
    if isinstance(visual, VisionTransformer):
        plain = all(isinstance(block.attn, nn.MultiheadAttention) for block in visual.transformer.resblocks)
        if not plain or visual.attn_pool is not None or visual.pool_type != "tok" or visual.final_ln_after_pool:
            return {"gradcam": gradcam}  # the others need plain attention and a class token that is the image's vector
        return {"chefer": chefer, "grad_eclip": grad_eclip, "legrad": legrad, "surgery": surgery}
    if is_timm_transformer(visual):  # its attention has too many variants to be recomputed
        return {"gradcam": gradcam}
    if isinstance(visual, (ModifiedResNet, TimmModel)):
        return {"gradcam": gradcam, "dense": dense}
    raise ValueError(f"no heat map method for an image tower of class {type(visual).__name__}")


def enlarge(maps: torch.Tensor, size: int) -> torch.Tensor:
    """(B, rows, columns) -> (B, size, size) in [0, 1], smooth between the centres of the patches."""
    return F.interpolate(maps[:, None], (size, size), mode="bicubic", align_corners=False)[:, 0].clamp(0, 1)


def overlay(image: Image.Image, heat: torch.Tensor, side: int = SIDE) -> Image.Image:
    """The centred square of an image under its map (rows, columns) in [0, 1]: low values dim, high ones in colour."""
    pixels = square(np.asarray(image), side).astype(np.float32)
    strength = enlarge(heat[None].float().cpu(), side)[0].numpy()[..., None]  # (side, side, 1)
    colour = COLOURS(strength[..., 0])[..., :3] * 255
    share = 0.35 + 0.3 * strength
    return Image.fromarray((pixels * (1 - share) + colour * share).astype(np.uint8))


def side_by_side(image: Image.Image, heat: torch.Tensor, text: str, caption: str) -> Image.Image:
    """The input of the model, its overlay, and below them the text, wrapped, and a caption in one line."""
    width = 2 * SIDE + 3 * GAP
    lines = wrap(text, width - 2 * GAP, MAX_LINES)
    sheet = Image.new("RGB", (width, SIDE + 3 * GAP + LINE * (len(lines) + 1) + 4), "white")
    sheet.paste(Image.fromarray(square(np.asarray(image), SIDE)), (GAP, GAP))
    sheet.paste(overlay(image, heat), (2 * GAP + SIDE, GAP))
    draw_text(sheet, lines, [caption], GAP, SIDE + 2 * GAP)
    return sheet
