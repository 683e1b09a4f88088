"""Styles by their names: zero-shot, by a read-out that fit_names.py put into the weights.

    python style_comparator.py a.png --names watercolour "pixel art" woodcut --weights checkpoints/best.pth

image -> feature maps -> means and deviations of channels (B, W) -> linear read-out (B, P) -------\\
name  -> prompt -> text encoder -> pooled (P,), without the mean of all texts, whitened (P,) ------> cosine, in
                                                                      standard deviations over images of the fit
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F

from common.cli.errors import printable
from model import StyleOutput, VisionStyleEncoder
from style_encoder import encode_folder, encode_images
from text_encoder import HASH, TextEncoderRecord, open_text_encoder

VISIBLE = 0.6  # AUC of a word below which it is called hardly visible


def rank_names(
    query: Path, names: Sequence[str], encoder: VisionStyleEncoder, content: dict[str, Any], top: int
) -> tuple[dict[str, Any], str]:
    """query: an image or a folder of them; content: of the encoder's checkpoint -> result, report."""
    texts = content.get("texts")
    if not texts or "readout" not in texts:
        raise ValueError("--names: these weights hold no names; fit_names.py --weights ... fits them")
    if query.is_dir():
        paths, vectors = encode_folder(query, encoder, statistics_of(encoder))
    else:
        paths, vectors = [query], encode_images([query], encoder, statistics_of(encoder))
    cosines = name_similarity(vectors, encode_names(names, texts, encoder.device), texts)
    entries = [
        {"name": name, "similarity": similarity, **knowledge(name, texts)}
        for name, similarity in zip(names, cosines.mean(0).tolist())
    ]
    entries.sort(key=lambda entry: -entry["similarity"])
    result = {
        "names": entries,
        "images": [
            {"image": str(path), "best": names[row.index(max(row))], "similarity": max(row)}
            for path, row in zip(paths, cosines.tolist())
        ],
    }
    what = printable(query) if len(paths) == 1 else f"{len(paths)} images of {printable(query)}, on average"
    lines = [f"{what}, in standard deviations above other images:"]
    for entry in entries[:top]:
        auc = f"   (AUC {entry['auc']:.2f} in drawings not fitted on)" if "auc" in entry else ""
        lines.append(f"{entry['similarity']:8.2f}  {printable(entry['name'])}{auc}")
    if unread := sorted(set().union(*(entry["unread"] for entry in entries))):
        meaning = "random" if texts["text_encoder"] == HASH else "guessed from words that the text encoder puts near"
        lines.append(f"no text that the names are fitted on holds {', '.join(map(printable, unread))}: {meaning}")
    return result, "\n".join([*lines, summary(texts)])


def summary(texts: dict[str, Any]) -> str:
    """What names of a checkpoint are worth."""
    lines = [f"fitted on {texts['drawn_styles']} drawn styles and {texts['styles']} of the data, each with its words"]
    if "first" in texts:
        hardly = [word for word, auc in texts["visible"].items() if auc < VISIBLE]
        lines.append(
            f"of {texts['choices']} drawn styles kept from it, {texts['first']:.0%} of the images are nearest to their "
            f"own words (chance {1 / texts['choices']:.1%})"
        )
        lines += [f"hardly visible: {', '.join(hardly)}"] * bool(hardly)
    return "; ".join(lines)


def knowledge(name: str, texts: dict[str, Any]) -> dict[str, Any]:
    """-> `unread`, words of a name that no text of the fit holds; `auc` of a name that is a word of the drawings."""
    auc = texts.get("visible", {}).get(name)
    return {"unread": sorted(words_of(name) - set(texts["words"])), **({} if auc is None else {"auc": auc})}


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def encode_names(names: Sequence[str], texts: dict[str, Any], device: torch.device) -> torch.Tensor:
    """-> whitened vectors (K, P) of the prompt with each name. texts: of fit_names."""
    prompts = [texts.get("prompt", "{style}").replace("{style}", name) for name in names]
    pooled = encode_texts(prompts, cast(TextEncoderRecord, texts), device)
    return (pooled - texts["text_mean"]) @ texts["whitening"]


def name_similarity(images: torch.Tensor, names: torch.Tensor, texts: dict[str, Any]) -> torch.Tensor:
    """statistics (N, W) of images, (K, P) of encode_names -> cosines (N, K), each in standard deviations of its name's
    over the background."""
    names = F.normalize(names, dim=1).T
    background = texts["background"] @ names
    return (read_out(images, texts) @ names - background.mean(0)) / background.std(0).clamp(min=1e-6)


def read_out(images: torch.Tensor, texts: dict[str, Any]) -> torch.Tensor:
    """statistics (N, W) -> (N, P), unit length"""
    return F.normalize((images - texts["mean"]) @ texts["readout"], dim=1)


def statistics_of(encoder: VisionStyleEncoder) -> Callable[[StyleOutput], torch.Tensor]:
    """-> the function that takes means and deviations of the channels (B, W) from an output: of the maps that training
    leaves as pretrained, or of all where it has none."""
    maps = encoder.style_head.frozen_maps or None

    def read(output: StyleOutput) -> torch.Tensor:
        flat = [feature_map.float().flatten(2) for feature_map in output.features.feature_maps[:maps]]
        return torch.cat([part for rows in flat for part in (rows.mean(2), rows.std(2, unbiased=False))], 1)

    return read


def encode_texts(texts: Sequence[str], record: TextEncoderRecord, device: torch.device) -> torch.Tensor:
    """-> pooled (N, P) of unit length; each different text is encoded once."""
    encode = open_text_encoder(record["text_encoder"], record["max_length"], device)
    different = list(dict.fromkeys(texts))
    batches = (different[start : start + 64] for start in range(0, len(different), 64))
    vectors = [targets["pooled"] for batch in batches for targets in encode(batch)]
    place = {text: number for number, text in enumerate(different)}
    return F.normalize(torch.stack(vectors).float(), dim=1)[[place[text] for text in texts]]
