"""Heat maps from the last feature map of an image tower.

pixels (B, 3, S, S), direction (B, D) unit -> feature map (B, C, rows, columns), head -> (B, rows, columns), higher =
more for the text

For open_clip's ResNets, timm's convolutional networks, and, with their last tokens, transformers of all kinds.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from clip.attention_maps import merge_heads, self_similarity, tokens_before


def gradcam(visual: nn.Module, pixels: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Selvaraju et al. 2017, Grad-CAM, eq. 1 and 2, on the last feature map (before the last block of a timm ViT)."""
    features, head = feature_map(visual, pixels)
    cosine = (F.normalize(head(features.requires_grad_()), dim=-1) * direction).sum()
    gradient = torch.autograd.grad(cosine, features)[0]  # (B, C, rows, columns)
    return F.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1))


@torch.no_grad()
def dense(visual: nn.Module, pixels: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """The cosine of each position with the text.

    timm: each position passes the head as if it were the whole map. ModifiedResNet: values attend to values in the
    pooling layer (CLIP Surgery), as unit vectors and eight times as sharp, as the authors do for ResNets.
    """
    features, head = feature_map(visual, pixels)
    batch, _, rows, columns = features.shape
    if isinstance(visual, ModifiedResNet):
        pool = visual.attnpool
        positions = features.flatten(2).mT  # (B, N, C)
        positions = torch.cat([positions.mean(1, keepdim=True), positions], dim=1) + pool.positional_embedding
        values = pool.v_proj(positions).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)
        unit = F.normalize(values, dim=-1)
        vectors = pool.c_proj(merge_heads(self_similarity(8 * unit, unit) @ values))[:, 1:]
    else:
        positions = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1], 1, 1)
        vectors = head(positions).unflatten(0, (batch, -1))
    return (F.normalize(vectors, dim=-1) * direction[:, None]).sum(-1).unflatten(1, (rows, columns))


@torch.no_grad()
def feature_map(visual: nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, Callable]:
    """-> the last feature map (B, C, rows, columns), the head that turns it into vectors (B, D)."""
    if isinstance(visual, ModifiedResNet):
        features = visual.stem(pixels)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            features = layer(features)
        return features, visual.attnpool
    if isinstance(visual, VisionTransformer):
        return _tokens(visual, pixels)
    trunk = visual.trunk
    if is_timm_transformer(visual):
        return _timm_tokens(visual, pixels)
    features = trunk.forward_features(pixels)
    if getattr(trunk, "output_fmt", "NCHW") == "NCHW":
        return features, lambda maps: visual.head(trunk.forward_head(maps))
    return features.permute(0, 3, 1, 2), lambda maps: visual.head(trunk.forward_head(maps.permute(0, 2, 3, 1)))


def is_timm_transformer(visual: nn.Module) -> bool:
    return isinstance(visual, TimmModel) and hasattr(visual.trunk, "blocks") and hasattr(visual.trunk, "patch_embed")


def _tokens(visual: VisionTransformer, pixels: torch.Tensor) -> tuple[torch.Tensor, Callable]:
    """As _timm_tokens, for a network of open_clip."""
    last = visual.transformer.resblocks[-1]
    tokens = tokens_before(visual, pixels, len(visual.transformer.resblocks) - 1)

    def head(features: torch.Tensor) -> torch.Tensor:
        pooled, _ = visual._pool(last(torch.cat([tokens[:, :1], features.flatten(2).mT], dim=1)))
        return pooled @ visual.proj

    return tokens[:, 1:].mT.unflatten(2, visual.grid_size), head


def _timm_tokens(visual: TimmModel, pixels: torch.Tensor) -> tuple[torch.Tensor, Callable]:
    """The input patches of a timm ViT's last block as a feature map; behind it tokens no longer interact."""
    trunk, last = visual.trunk, visual.trunk.blocks[-1]
    calls = []
    with last.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True):
        trunk.forward_features(pixels)
    (tokens, *others), named = calls[0]
    prefix, patches = tokens.tensor_split([trunk.num_prefix_tokens], dim=1)

    def head(features: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([prefix, features.flatten(2).mT], dim=1)
        return visual.head(trunk.forward_head(trunk.norm(last(tokens, *others, **named))))

    return patches.mT.unflatten(2, trunk.patch_embed.grid_size), head
