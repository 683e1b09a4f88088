"""Attention-based heat maps of vision transformers.

pixels (B, 3, S, S), direction (B, D) unit -> blocks step by step -> (B, rows, columns), higher = more for the text

Attention is recomputed from its weights, because torch's own does not expose the intermediate values.
Shapes: one class token and N patches are T tokens of width V; H heads.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import nn


def min_max(maps: torch.Tensor) -> torch.Tensor:
    """(B, rows, columns) -> the same, each map scaled to [0, 1]."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


class Attention(NamedTuple):
    """Intermediate values of one block's attention."""

    queries: torch.Tensor  # (B, H, T, V / H), as keys and values
    keys: torch.Tensor
    values: torch.Tensor
    weights: torch.Tensor  # (B, H, T, T), each row sums to 1
    attended: torch.Tensor  # (B, T, V), before the output projection


def attend(block: nn.Module, tokens: torch.Tensor) -> Attention:
    """The attention of an open_clip block over tokens (B, T, V)."""
    projected = F.linear(block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias)  # (B, T, 3 V)
    queries, keys, values = (
        part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1)
    )
    weights = self_similarity(queries, keys)
    return Attention(queries, keys, values, weights, merge_heads(weights @ values))


def self_similarity(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return (queries @ keys.transpose(-2, -1) * queries.shape[-1] ** -0.5).softmax(-1)


def merge_heads(values: torch.Tensor) -> torch.Tensor:
    """(B, H, T, V / H) -> (B, T, V)"""
    return values.transpose(1, 2).flatten(2)


def finish_block(block: nn.Module, tokens: torch.Tensor, attention: Attention) -> torch.Tensor:
    """The rest of the block after its attention -> tokens (B, T, V) of the next block."""
    tokens = tokens + block.ls_1(block.attn.out_proj(attention.attended))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def project(visual: VisionTransformer, tokens: torch.Tensor) -> torch.Tensor:
    """tokens (..., V) -> (..., D) unit, by the projection of the class token."""
    return F.normalize(visual.ln_post(tokens) @ visual.proj, dim=-1)


@torch.no_grad()
def tokens_before(visual: VisionTransformer, pixels: torch.Tensor, block: int) -> torch.Tensor:
    """-> (B, T, V), the input of block number `block`."""
    tokens = visual._embeds(pixels)
    for layer in visual.transformer.resblocks[:block]:
        tokens = layer(tokens)
    return tokens


def to_grid(visual: VisionTransformer, patches: torch.Tensor) -> torch.Tensor:
    return patches.unflatten(1, visual.grid_size)  # (B, rows, columns)


def grad_eclip(visual: VisionTransformer, pixels: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Zhao et al. 2024, Gradient-based visual explanation for CLIP: relu(sum_c w_c k_i v_ic) of the last block.

    w: gradient of the cosine in the class token's attended values; v: values of patch i; k: cosine of the class
    token's query and patch i's key, scaled to [0, 1], in place of the softmax, which suppresses too many patches.
    w and v are those of the real heads; the authors' program computes the block as if it had one head.
    """
    blocks = visual.transformer.resblocks
    tokens = tokens_before(visual, pixels, len(blocks) - 1).requires_grad_()
    attention = attend(blocks[-1], tokens)
    cosine = (project(visual, finish_block(blocks[-1], tokens, attention)[:, 0]) * direction).sum()
    channels = torch.autograd.grad(cosine, attention.attended)[0][:, :1]  # (B, 1, V)
    queries, keys, values = (merge_heads(part) for part in attention[:3])
    similarity = to_grid(visual, F.cosine_similarity(queries[:, :1], keys[:, 1:], dim=-1))
    return F.relu(to_grid(visual, (channels * values[:, 1:]).sum(-1)) * min_max(similarity))


def legrad(visual: VisionTransformer, pixels: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Bousselham et al. 2024, LeGrad: sensitivity of the cosine to attention to each patch.

    A block's cosine is that of the mean of its tokens. Its gradient in the block's own attention weights, the positive
    part, mean over heads and queries; mean over all blocks.
    """
    tokens, maps = tokens_before(visual, pixels, 0), []
    for block in visual.transformer.resblocks:
        tokens = tokens.detach().requires_grad_()
        attention = attend(block, tokens)
        tokens = finish_block(block, tokens, attention)
        gradient = torch.autograd.grad((project(visual, tokens.mean(1)) * direction).sum(), attention.weights)[0]
        maps.append(F.relu(gradient).mean((1, 2))[:, 1:])  # (B, H, T, T) -> (B, N)
    return to_grid(visual, torch.stack(maps).mean(0))


def chefer(visual: VisionTransformer, pixels: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Chefer et al. 2021, Generic attention-model explainability, eq. 5 and 6: rollout weighted by gradients.

    R starts as the identity; each block adds A R, A being the mean over heads of relu(gradient * attention weights).
    The map is the relevance of each patch for the class token.
    """
    tokens = tokens_before(visual, pixels, 0).requires_grad_()
    weights = []
    for block in visual.transformer.resblocks:
        attention = attend(block, tokens)
        tokens = finish_block(block, tokens, attention)
        weights.append(attention.weights)
    gradients = torch.autograd.grad((project(visual, tokens[:, 0]) * direction).sum(), weights)
    relevance = torch.eye(tokens.shape[1], device=tokens.device, dtype=tokens.dtype).expand(len(tokens), -1, -1)
    for weight, gradient in zip(weights, gradients):
        relevance = relevance + F.relu(gradient * weight).mean(1) @ relevance  # (B, T, T)
    return to_grid(visual, relevance[:, 0, 1:])


@torch.no_grad()
def surgery(visual: VisionTransformer, pixels: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Li et al. 2023, CLIP Surgery: patches that attend to similar patches, compared with the text.

    In the upper half of the blocks a second path accumulates attention with values in place of queries and keys,
    without MLPs; its patches are projected like the class token.
    """
    blocks = visual.transformer.resblocks
    start = len(blocks) // 2
    tokens = path = tokens_before(visual, pixels, start)
    for block in blocks[start:]:
        attention = attend(block, tokens)
        similar = self_similarity(attention.values, attention.values) @ attention.values
        path = path + block.ls_1(block.attn.out_proj(merge_heads(similar)))
        tokens = finish_block(block, tokens, attention)
    return to_grid(visual, (project(visual, path[:, 1:]) * direction[:, None]).sum(-1))
