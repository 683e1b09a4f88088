"""Parts for joining a vision encoder to a language model. Needs torch alone: copy this file into any project.

    patches (B, N, V) -> build_projector -> project_sequence_embed (B, N, D) -> merge_image_tokens into text (B, T, D)

Masks are 1 = real everywhere. Labels of -100 are ignored, as torch's cross entropy does.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

PROJECTORS = ("linear", "mlp2x_gelu", "internvl")
MASK_MODES = ("zero", "drop", "token")


def build_projector(kind: str, vision_dim: int, text_dim: int, shuffle: int = 2) -> nn.Module:
    """A module (..., vision_dim) -> (..., text_dim).

    'linear': one Linear (LLaVA v1). 'mlp2x_gelu': Linear, GELU, Linear (LLaVA v1.5). 'internvl': LayerNorm, Linear,
    GELU, Linear over patches that pixel_shuffle by `shuffle` has made shuffle^2 times wider (InternVL's mlp1).
    """
    if kind == "linear":
        return nn.Linear(vision_dim, text_dim)
    if kind == "mlp2x_gelu":
        return nn.Sequential(nn.Linear(vision_dim, text_dim), nn.GELU(), nn.Linear(text_dim, text_dim))
    if kind == "internvl":
        width = vision_dim * shuffle**2
        return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, text_dim), nn.GELU(), nn.Linear(text_dim, text_dim))
    raise ValueError(f"projector '{kind}': expected one of {', '.join(PROJECTORS)}")


def project_sequence_embed(embed: torch.Tensor, projector: nn.Module) -> torch.Tensor:
    """embed (B, L, V) -> (B, L, D). Computed in the projector's dtype, returned in the embed's."""
    if embed.ndim != 3:
        raise ValueError(
            f"embed {tuple(embed.shape)}: expected (B, L, V); a pooled (B, V) goes to project_pooled_embed"
        )
    return _project(embed, projector)


def project_pooled_embed(pooled: torch.Tensor, projector: nn.Module) -> torch.Tensor:
    """pooled (B, V) -> (B, D). Computed in the projector's dtype, returned in the pooled's."""
    if pooled.ndim != 2:
        raise ValueError(f"pooled {tuple(pooled.shape)}: expected (B, V); a sequence goes to project_sequence_embed")
    return _project(pooled, projector)


def create_attention_mask_from_embed(
    embed: torch.Tensor, lengths: torch.Tensor | None = None, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """embed (B, L, D) -> attention mask (B, L) int64: from lengths (B,) in tokens, or an existing mask, or all ones."""
    if embed.ndim != 3:
        raise ValueError(f"embed {tuple(embed.shape)}: expected (B, L, D)")
    batch, length = embed.shape[:2]
    if lengths is not None and mask is not None:
        raise ValueError("lengths and mask both given; they say the same thing, give one")
    if mask is not None:
        if mask.shape != (batch, length):
            raise ValueError(f"mask {tuple(mask.shape)}: expected {(batch, length)}, as embed {tuple(embed.shape)} has")
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError("mask: expected 0 and 1 only (1 = real); an additive mask of -inf is another thing")
        return mask.to(embed.device, torch.int64)
    if lengths is None:
        return torch.ones(batch, length, dtype=torch.int64, device=embed.device)
    lengths = torch.as_tensor(lengths, device=embed.device)
    if lengths.shape != (batch,) or (lengths < 0).any() or (lengths > length).any():
        raise ValueError(f"lengths {lengths.tolist()}: expected {batch} numbers from 0 to {length}")
    return (torch.arange(length, device=embed.device) < lengths[:, None]).long()


def pixel_shuffle(patches: torch.Tensor, factor: int = 2, grid: tuple[int, int] | None = None) -> torch.Tensor:
    """patches (B, N, V) -> (B, N / factor^2, V * factor^2): each token becomes its factor x factor block of patches.

    The order inside a block is row by row, as InternVL's 'ps v2'. grid (rows, columns); a square one if not given.
    """
    batch, count, width = patches.shape
    rows, columns = grid or (math.isqrt(count), math.isqrt(count))
    if rows * columns != count:
        raise ValueError(f"patches {tuple(patches.shape)}: {count} do not fill a {rows} x {columns} grid; give grid")
    if rows % factor or columns % factor:
        wanted = [round(side / factor) * factor or factor for side in (rows, columns)]
        raise ValueError(
            f"a {rows} x {columns} grid cannot be shuffled by {factor}; the nearest that can is "
            f"{wanted[0]} x {wanted[1]}: change the image size"
        )
    blocks = patches.reshape(batch, rows // factor, factor, columns // factor, factor, width)
    return blocks.transpose(2, 3).reshape(batch, count // factor**2, width * factor**2)


class MaskedTokens(NamedTuple):
    tokens: torch.Tensor  # (B, K, D); K = N, or for 'drop' the most that any sample keeps
    positions: torch.Tensor  # (B, K) where each token stood among the N, rising; 0 at padding
    mask: torch.Tensor  # (B, K) 1 = a token of the model's input, 0 = padding of a sample that keeps fewer
    kept: torch.Tensor  # (B, N) 1 = untouched, 0 = zeroed, dropped or replaced


def mask_tokens(
    tokens: torch.Tensor, ratio: float, mode: str = "zero", prob: float = 1.0,
    mask_token: torch.Tensor | None = None, generator: torch.Generator | None = None,
) -> MaskedTokens:  # fmt: skip
    """Hide a random share of tokens (B, N, D), drawn for each sample by itself without replacement.

    Of a sample that is drawn (each with probability `prob`) ceil((1 - ratio) N) tokens stay, in their order, as in
    ViTP; the others become zeros, are dropped (a truly shorter sequence) or become mask_token (D,). `generator` lives
    on the CPU: one per rank, saved with the run, makes the draw repeatable wherever the tokens are.
    """
    if tokens.ndim != 3:
        raise ValueError(f"tokens {tuple(tokens.shape)}: expected (B, N, D)")
    if mode not in MASK_MODES:
        raise ValueError(f"mode '{mode}': expected one of {', '.join(MASK_MODES)}")
    if not 0 <= ratio < 1 or not 0 <= prob <= 1:
        raise ValueError(f"ratio {ratio} must lie in [0, 1), prob {prob} in [0, 1]")
    if (mode == "token") != (mask_token is not None):
        raise ValueError("mask_token (D,) belongs to mode 'token', and that mode needs it")
    batch, count, _ = tokens.shape
    stay = math.ceil(round((1 - ratio) * count, 6))  # rounded: (1 - 0.7) * 10 is 3.0000000000000004
    drawn = torch.rand(batch, generator=generator) < prob
    rank = torch.rand(batch, count, generator=generator).argsort(1).argsort(1)  # a random permutation per sample
    kept = ((rank < stay) | ~drawn[:, None]).to(tokens.device)  # (B, N)
    everywhere = torch.arange(count, device=tokens.device).expand(batch, -1)
    if mode != "drop":
        hidden = mask_token.to(tokens) if mask_token is not None else tokens.new_zeros(())
        return MaskedTokens(
            torch.where(kept[..., None], tokens, hidden), everywhere, torch.ones_like(everywhere), kept.long()
        )
    lengths = kept.sum(1)
    order = (~kept).long().argsort(dim=1, stable=True)[:, : int(lengths.max())]  # kept ones first, in their order
    mask = (torch.arange(order.shape[1], device=tokens.device) < lengths[:, None]).long()
    positions = order * mask
    shorter = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2])) * mask[..., None].to(tokens)
    return MaskedTokens(shorter, positions, mask, kept.long())


class MergedTokens(NamedTuple):
    embeds: torch.Tensor  # (B, T', D)
    attention_mask: torch.Tensor  # (B, T') 1 = real
    labels: torch.Tensor | None  # (B, T'), -100 at images and padding; None if none were given
    position_ids: torch.Tensor  # (B, T') counting real tokens from 0; 0 at padding


def merge_image_tokens(
    text_embeds: torch.Tensor, input_ids: torch.Tensor, image_embeds: Sequence[torch.Tensor] | torch.Tensor,
    image_token_id: int, attention_mask: torch.Tensor | None = None, labels: torch.Tensor | None = None,
    padding_side: str = "right", ignore_index: int = -100,
) -> MergedTokens:  # fmt: skip
    """Put image embeddings where input_ids (B, T) holds image_token_id.

    text_embeds (B, T, D); image_embeds: one (N_i, D) per image, in reading order over the batch. A placeholder either
    stands for a whole image, or there are as many placeholders as image tokens (as transformers' processors write
    them); the counts tell which. Padding of the input is taken off and put back on `padding_side`.
    """
    batch, length, width = text_embeds.shape
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    for name, tensor in (("input_ids", input_ids), ("attention_mask", mask), ("labels", labels)):
        if tensor is not None and tensor.shape != (batch, length):
            raise ValueError(f"{name} {tuple(tensor.shape)}: expected {(batch, length)}, as text_embeds has")
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side '{padding_side}': expected left or right")
    images = list(image_embeds)
    if wrong := [tuple(image.shape) for image in images if image.ndim != 2 or image.shape[1] != width]:
        raise ValueError(f"image_embeds {wrong[0]}: expected (N, {width}), as text_embeds {tuple(text_embeds.shape)}")
    places = (input_ids == image_token_id) & mask.bool()
    placeholders, tokens = int(places.sum()), sum(len(image) for image in images)
    if placeholders not in (len(images), tokens):
        raise ValueError(
            f"{placeholders} placeholders of id {image_token_id} for {len(images)} images of {tokens} tokens together; "
            "expected one per image, or one per image token"
        )
    if placeholders != len(images):  # one per token: every token is then an image of its own
        images = list(torch.cat(images).split(1))
    images = iter(images)
    rows = []
    for row in range(batch):
        text_labels = labels[row] if labels is not None else torch.full_like(input_ids[row], ignore_index)
        rows.append(_spliced(text_embeds[row], text_labels, places[row], mask[row].bool(), images, ignore_index))
    return _padded(rows, padding_side, ignore_index, with_labels=labels is not None)


def _spliced(embeds, labels, places, real, images, ignore_index) -> tuple[torch.Tensor, torch.Tensor]:
    """One sample without padding -> its embeds (T', D) and labels (T',) with images in their places."""
    pieces, piece_labels, start = [], [], 0
    for place in [*places.nonzero()[:, 0].tolist(), len(places)]:
        text = real[start:place]
        pieces.append(embeds[start:place][text])
        piece_labels.append(labels[start:place][text])
        if place < len(places):
            image = next(images).to(embeds)
            pieces.append(image)
            piece_labels.append(labels.new_full((len(image),), ignore_index))
        start = place + 1
    return torch.cat(pieces), torch.cat(piece_labels)


def _padded(rows, padding_side: str, ignore_index: int, with_labels: bool) -> MergedTokens:
    lengths = [len(embeds) for embeds, _ in rows]
    longest = max(lengths)
    embeds, labels, mask = [], [], []
    for (row, row_labels), length in zip(rows, lengths):
        pad = (longest - length, 0) if padding_side == "left" else (0, longest - length)
        embeds.append(nn.functional.pad(row, (0, 0, *pad)))
        labels.append(nn.functional.pad(row_labels, pad, value=ignore_index))
        mask.append(nn.functional.pad(torch.ones_like(row_labels), pad))
    mask = torch.stack(mask)
    positions = (mask.cumsum(1) - 1).clamp(min=0) * mask
    return MergedTokens(torch.stack(embeds), mask, torch.stack(labels) if with_labels else None, positions)


def _project(embed: torch.Tensor, projector: nn.Module) -> torch.Tensor:
    first = next((m for m in projector.modules() if isinstance(m, (nn.Linear, nn.LayerNorm))), None)
    if first is not None:
        width = first.in_features if isinstance(first, nn.Linear) else first.normalized_shape[-1]
        if embed.shape[-1] != width:
            raise ValueError(
                f"embed {tuple(embed.shape)}: the projector takes vectors of {width}, not {embed.shape[-1]}"
            )
    weight = next(projector.parameters(), None)
    return projector(embed if weight is None else embed.to(weight.dtype)).to(embed.dtype)
