"""Building blocks of vision-language models. Needs only torch: copy this file into any project.

    patches (B, N, V) -> pixel_shuffle (B, N / f^2, V f^2) -> project_sequence_embed (B, N', D), the module being
    build_projector's -> mask_tokens, in training -> merge_image_tokens into text (B, T, D)

Masks are int64, 1 = real. Labels of -100 are ignored, as in torch's cross entropy. Results have the dtype and device
of the first argument and pass gradients to every embedding. Arguments that do not fit raise ValueError.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

PROJECTORS = ("linear", "mlp2x_gelu", "internvl")
MASK_MODES = ("zero", "drop", "token")


def build_projector(kind: str, vision_dim: int, text_dim: int, shuffle: int = 2) -> nn.Module:
    """Module (..., vision_dim) -> (..., text_dim).

    'linear': one Linear (LLaVA, arXiv 2304.08485). 'mlp2x_gelu': Linear, GELU, Linear (LLaVA-1.5, arXiv 2310.03744).
    'internvl': LayerNorm, Linear, GELU, Linear (mlp1 of InternVL 1.5, arXiv 2404.16821) of patches that pixel_shuffle
    by `shuffle` has made shuffle^2 times as wide as the encoder's vision_dim; `shuffle` is for this kind alone.
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
    embed: torch.Tensor, lengths: torch.Tensor | Sequence[int] | None = None, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """embed (B, L, D) -> attention mask (B, L) int64: from lengths (B,) in tokens, or an existing mask, or all ones."""
    if embed.ndim != 3:
        raise ValueError(f"embed {tuple(embed.shape)}: expected (B, L, D)")
    batch, length = embed.shape[:2]
    if lengths is not None and mask is not None:
        raise ValueError("lengths and mask both given, but they mean the same; give one")
    if mask is not None:
        if mask.shape != (batch, length):
            raise ValueError(f"mask {tuple(mask.shape)}: expected {(batch, length)}, as embed {tuple(embed.shape)} has")
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError("mask: expected 0 and 1 only (1 = real); an additive mask of 0 and -inf is not accepted")
        return mask.to(embed.device, torch.int64)
    if lengths is None:
        return torch.ones(batch, length, dtype=torch.int64, device=embed.device)
    lengths = torch.as_tensor(lengths, device=embed.device)
    if lengths.shape != (batch,):
        raise ValueError(f"lengths {tuple(lengths.shape)}: expected {(batch,)}, as embed {tuple(embed.shape)} has")
    if (lengths < 0).any() or (lengths > length).any():
        raise ValueError(
            f"lengths {lengths.tolist()}: expected 0 to {length} tokens, as embed {tuple(embed.shape)} has"
        )
    return lengths_to_mask(lengths, length)


def lengths_to_mask(lengths: torch.Tensor, length: int | None = None) -> torch.Tensor:
    """lengths (B,) in tokens -> mask (B, length) int64, 1 = real, on their device; length None: the longest of them."""
    if length is None:
        length = max(lengths.tolist(), default=0)
    return (torch.arange(length, device=lengths.device) < lengths[:, None]).long()


def pixel_shuffle(patches: torch.Tensor, factor: int = 2, grid: tuple[int, int] | None = None) -> torch.Tensor:
    """patches (B, N, V) -> (B, N / factor^2, V factor^2), or (B, H, W, V) -> (B, H / factor, W / factor, V factor^2).

    Each token becomes its factor x factor block of patches, row by row: InternVL's 'ps v2' at downsample_ratio
    1 / factor. grid (H, W) in patches is for (B, N, V); a square one if not given.
    """
    if patches.ndim not in (3, 4) or (patches.ndim == 4 and grid is not None):
        raise ValueError(f"patches {tuple(patches.shape)}: expected (B, N, V), with grid or square, or (B, H, W, V)")
    if factor < 1 or factor != int(factor):
        raise ValueError(f"factor {factor}: expected a whole number; InternVL's downsample_ratio 0.5 is factor 2")
    batch, count, width = len(patches), math.prod(patches.shape[1:-1]), patches.shape[-1]
    rows, columns = patches.shape[1:3] if patches.ndim == 4 else grid or (math.isqrt(count), math.isqrt(count))
    if rows * columns != count:
        raise ValueError(
            f"patches {tuple(patches.shape)}: {count} do not fill a {rows} x {columns} grid; remove prefix tokens "
            "(CLS, registers), or give grid=(rows, columns)"
        )
    if rows % factor or columns % factor:
        raise ValueError(
            f"a {rows} x {columns} grid cannot be shuffled by {factor}; the nearest that can has "
            f"{_multiples(rows, factor)} rows and {_multiples(columns, factor)} columns: change the image size"
        )
    blocks = patches.reshape(batch, rows // factor, factor, columns // factor, factor, width).transpose(2, 3)
    shape = (rows // factor, columns // factor) if patches.ndim == 4 else (count // factor**2,)
    return blocks.reshape(batch, *shape, width * factor**2)


class MaskedTokens(NamedTuple):
    tokens: torch.Tensor  # (B, K, D); K = N, or for 'drop' the most that any sample keeps
    positions: torch.Tensor  # (B, K) index of each token among the N, ascending; 0 at padding
    mask: torch.Tensor  # (B, K) 1 = a token of the model's input, 0 = padding of a sample that keeps fewer
    kept: torch.Tensor  # (B, N) 1 = untouched, 0 = zeroed, dropped or replaced


def mask_tokens(
    tokens: torch.Tensor,
    ratio: float,
    mode: str = "zero",
    generator: torch.Generator | None = None,
    prob: float = 1.0,
    mask_token: torch.Tensor | None = None,
) -> MaskedTokens:
    """Hide a random share of tokens (B, N, D), drawn for each sample independently, without replacement.

    Of a sample that is drawn (each with probability `prob`) ceil((1 - ratio) N) tokens stay, in their order: ViTP's
    rule, in every mode. The others become zeros, are dropped (a truly shorter sequence; samples that keep fewer are
    padded with zeros at the end) or become mask_token (D,). Every call takes the same amount from `generator`: give
    each rank its own and save it with the run. One on the CPU draws the same for tokens on any device.
    """
    if tokens.ndim != 3:
        raise ValueError(f"tokens {tuple(tokens.shape)}: expected (B, N, D)")
    if mode not in MASK_MODES:
        raise ValueError(f"mode '{mode}': expected one of {', '.join(MASK_MODES)}")
    if not 0 <= ratio < 1 or not 0 <= prob <= 1:
        raise ValueError(f"ratio {ratio} must lie in [0, 1), prob {prob} in [0, 1]")
    batch, count, width = tokens.shape
    if (mode == "token") != (mask_token is not None):
        raise ValueError(f"mask_token ({width},) belongs to mode 'token', and that mode needs it; mode is '{mode}'")
    if mask_token is not None and mask_token.shape != (width,):
        raise ValueError(f"mask_token {tuple(mask_token.shape)}: expected ({width},), as tokens {tuple(tokens.shape)}")
    device = "cpu" if generator is None else generator.device
    drawn = torch.rand(batch, generator=generator, device=device) < prob
    rank = torch.rand(batch, count, generator=generator, device=device).argsort(1).argsort(1)  # random permutations
    stay = max(1, math.ceil(round((1 - ratio) * count, 6)))  # rounded: (1 - 0.7) * 10 is 3.0000000000000004
    kept = ((rank < stay) | ~drawn[:, None]).cpu()  # (B, N) True = stays; on the CPU, indices need no wait for a GPU
    everywhere = torch.arange(count).expand(batch, -1)
    if mode != "drop":
        hidden = tokens.new_zeros(()) if mask_token is None else mask_token.to(tokens)
        kept, everywhere = kept.to(tokens.device), everywhere.to(tokens.device)
        shown = torch.where(kept[..., None], tokens, hidden)
        return MaskedTokens(shown, everywhere, torch.ones_like(everywhere), kept.long())
    return drop_tokens(tokens, kept)


def drop_tokens(tokens: torch.Tensor, kept: torch.Tensor) -> MaskedTokens:
    """tokens (B, N, D), kept (B, N) bool -> the kept ones in their order, padded at the end where a sample keeps fewer.

    To shorten labels or positions (B, N) alike, gather them by the result's `positions`.
    """
    if kept.shape != tokens.shape[:2] or kept.dtype != torch.bool:
        raise ValueError(f"kept {tuple(kept.shape)} {kept.dtype}: expected bool, as tokens {tuple(tokens.shape)}")
    mask = lengths_to_mask(kept.sum(1)).bool()  # (B, K)
    order = (~kept).long().argsort(dim=1, stable=True)[:, : mask.shape[1]]  # kept ones first, in their order
    order, mask, kept = (tensor.to(tokens.device) for tensor in (order, mask, kept))
    shorter = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[-1])).masked_fill(~mask[..., None], 0)
    return MaskedTokens(shorter, order * mask, mask.long(), kept.long())


class MergedTokens(NamedTuple):
    embeds: torch.Tensor  # (B, T', D), 0 at padding
    attention_mask: torch.Tensor  # (B, T') 1 = real
    labels: torch.Tensor | None  # (B, T'), ignore_index at images and padding; None if none were given
    position_ids: torch.Tensor  # (B, T') counting real tokens from 0; 0 at padding


def merge_image_tokens(
    text_embeds: torch.Tensor,
    input_ids: torch.Tensor,
    image_embeds: Sequence[torch.Tensor] | torch.Tensor,
    image_token_id: int,
    attention_mask: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    padding_side: str = "right",
    ignore_index: int = -100,
) -> MergedTokens:
    """Put image embeddings where input_ids (B, T) holds image_token_id.

    text_embeds (B, T, D); image_embeds: one (N_i, D) per image, in reading order over the batch, or (images, N, D).
    A placeholder either stands for a whole image (LLaVA's code), or there are as many placeholders as image tokens (as
    transformers' processors write them); their number decides. Tokens that attention_mask (B, T) hides are removed,
    placeholders included, and padding is added on `padding_side`. labels (B, T) move with their tokens.
    """
    mask = create_attention_mask_from_embed(text_embeds, mask=attention_mask)
    batch, length, width = text_embeds.shape
    for name, tensor in (("input_ids", input_ids), ("labels", labels)):
        if tensor is not None and tensor.shape != (batch, length):
            raise ValueError(
                f"{name} {tuple(tensor.shape)}: expected {(batch, length)}, as text_embeds {tuple(text_embeds.shape)}"
            )
    if padding_side not in ("left", "right"):
        raise ValueError(f"padding_side '{padding_side}': expected left or right")
    images = list(image_embeds)
    for image in images:
        if image.ndim != 2 or image.shape[1] != width or len(image) == 0:
            raise ValueError(
                f"image_embeds holds {tuple(image.shape)}: expected a list of (N, {width}), N > 0, one per image, "
                f"as text_embeds {tuple(text_embeds.shape)}"
            )
    # The index is computed on the CPU; the embeddings then move once, in one gather.
    real = mask.bool().cpu()
    placeholders = (input_ids.cpu() == image_token_id) & real
    counts = _output_counts(real, placeholders, [len(image) for image in images], image_token_id)  # (B, T)
    # Rows to gather: the B T text positions, then all image tokens in reading order; 0 at padding.
    is_image = placeholders.flatten().repeat_interleave(counts.flatten())  # (S,) over the output tokens of the batch
    text_row = torch.arange(counts.numel()).repeat_interleave(counts.flatten())
    filled = lengths_to_mask(counts.sum(1)).bool()  # (B, T') no padding
    if padding_side == "left":
        filled = filled.flip(1)
    index = torch.zeros(filled.shape, dtype=torch.long)
    index[filled] = torch.where(is_image, counts.numel() + is_image.cumsum(0) - 1, text_row)
    index, filled = index.to(text_embeds.device), filled.to(text_embeds.device)
    vectors = torch.cat([text_embeds.flatten(0, 1), *(image.to(text_embeds) for image in images)])
    embeds = vectors.index_select(0, index.flatten()).view(*index.shape, width).masked_fill(~filled[..., None], 0)
    if labels is not None:
        is_text = filled & (index < batch * length)
        labels = labels.to(index.device).flatten()[index * is_text].masked_fill(~is_text, ignore_index)
    return MergedTokens(embeds, filled.long(), labels, (filled.cumsum(1) - 1).clamp(min=0) * filled)


def _output_counts(
    real: torch.Tensor, placeholders: torch.Tensor, sizes: list[int], image_token_id: int
) -> torch.Tensor:
    """real, placeholders (B, T) bool -> tokens that each position becomes (B, T): 0 hidden, 1 text, N_i an image."""
    total, counts = int(placeholders.sum()), real.long()
    if total not in (len(sizes), sum(sizes)):
        raise ValueError(
            f"{total} placeholders of id {image_token_id} for {len(sizes)} images of {sum(sizes)} tokens "
            "together; expected one per image, or one per image token. Was a prompt cut to a maximum length?"
        )
    if total == len(sizes):
        counts[placeholders] = torch.tensor(sizes, dtype=torch.long)
        return counts
    image_ends = set(torch.tensor([0, *sizes]).cumsum(0).tolist())
    for row, end in enumerate(placeholders.sum(1).cumsum(0).tolist()):
        if end not in image_ends:  # the totals agree, but an image would begin in one sample and end in the next
            raise ValueError(
                f"sample {row} holds {int(placeholders[row].sum())} placeholders of id {image_token_id}, not the sizes "
                f"of whole images (their tokens: {sizes}); expected one placeholder per token of each of its images"
            )
    return counts


def _multiples(side: int, factor: int) -> str:
    """The multiples of factor on both sides of `side`, as words."""
    return " or ".join(map(str, sorted({side // factor * factor, -(-side // factor) * factor} - {0})))


def _project(vectors: torch.Tensor, projector: nn.Module) -> torch.Tensor:
    width = _input_width(projector)
    if width is not None and vectors.shape[-1] != width:
        raise ValueError(
            f"embed {tuple(vectors.shape)}: the projector takes (..., {width}); give it vision_dim="
            f"{vectors.shape[-1]}, or pixel_shuffle the patches first if it is InternVL's"
        )
    if not vectors.is_floating_point():
        raise ValueError(f"embed {tuple(vectors.shape)} is {vectors.dtype}: expected floating point")
    # A quantised layer holds integers; what it computes in is not their dtype.
    dtype = next((weight.dtype for weight in projector.parameters() if weight.is_floating_point()), vectors.dtype)
    return projector(vectors.to(dtype)).to(vectors.dtype)


def _input_width(projector: nn.Module) -> int | None:
    """The width a projector takes, if its first layer tells: other modules may use their layers in any order."""
    while isinstance(projector, nn.Sequential) and len(projector):
        projector = projector[0]
    if isinstance(projector, nn.Linear):
        return projector.in_features or None  # 0: a LazyLinear that has seen nothing yet
    return projector.normalized_shape[-1] if isinstance(projector, nn.LayerNorm) else None
