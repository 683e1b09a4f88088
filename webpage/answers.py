"""What does each tab show? Models and what was asked -> plain values; nothing here knows of a page.

compare_styles   two images           -> words, two maps of where the style head looks
search           an image or words    -> pictures with captions
match_texts      an image, texts      -> texts with cosine and probability, the best first
show_text        an image, a text     -> where in the image it is
describe         an image, a text     -> description, score, expected score, P(yes), analysis, seconds
what_if          image, question, style image -> two answers with their styles

Images are files; ValueError or OSError, one line for a person, where one cannot be used.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from blip2_gated.counterfactual import Told
from blip2_gated.counterfactual import what_if as told_twice
from clip.embed import encode_texts
from clip.heatmap_overlay import overlay
from clip.inference import draw_maps, image_encoder, rank_texts
from common.images.io import open_image
from inspect_image import style_sensitivity
from style_comparator import compare_images
from style_encoder import read_image
from webpage.models import Models
from webpage.searching import Found

THUMBNAIL = 400  # pixels of the shorter side of a found image: what the page shows and no more
MAX_TEXTS = 50


def compare_styles(models: Models, first: str, second: str) -> tuple[str, Image.Image, Image.Image]:
    encoder, statistics = models.style_encoder
    _need(first, "the first image"), _need(second, "the second image")
    _, words = compare_images(Path(first), Path(second), encoder, statistics, models.place)
    maps = []
    for path in (first, second):
        with torch.enable_grad():
            heat = style_sensitivity(encoder, read_image(path, encoder)[None].to(models.place))
        maps.append(overlay(open_image(path), heat))
    return "\n".join(line.strip() for line in words.splitlines()), *maps


def search_by_image(models: Models, image: str, count: int) -> list[tuple[Image.Image, str]]:
    return _thumbnails(models.searcher.by_image(_need(image, "an image"), int(count)))


def search_by_words(models: Models, words: str, count: int) -> list[tuple[Image.Image, str]]:
    if not words.strip():
        raise ValueError("no words; say what the images should show")
    return _thumbnails(models.searcher.by_words(words.strip(), int(count)))


def match_texts(models: Models, image: str, texts: str) -> list[dict[str, Any]]:
    """texts: one a line -> [{"text", "score" (cosine), "probability" (softmax over these texts)}], the best first."""
    lines = _lines(texts)
    vectors = encode_texts(models.clip_model, lines, models.place, quiet=True)  # (M, D)
    seen = image_encoder(models.clip_model, models.place)([open_image(_need(image, "an image"))])  # (1, D)
    ranked = rank_texts((seen.cpu() @ vectors.T)[0], models.clip_model.scale.item(), len(lines), set())
    return [{**one, "text": lines[one["text"]]} for one in ranked["top"]]


def show_text(models: Models, image: str, texts: str, chosen: str) -> Image.Image:
    """The image under the map of one of its texts; what all texts have in common is taken off."""
    lines = _lines(texts)
    if chosen not in lines:
        raise ValueError("the texts have changed since; match them again")
    vectors = encode_texts(models.clip_model, lines, models.place, quiet=True)
    shared = vectors.mean(0) if len(lines) > 1 else None
    picture = open_image(_need(image, "an image"))
    vector = vectors[lines.index(chosen)][None]
    return overlay(picture, draw_maps(models.clip_model, [picture], vector, shared, None, models.place)[0], 480)


def describe(models: Models, image: str, text: str) -> dict[str, Any]:
    return models.analyzer.analyze_image(_need(image, "an image"), text)


def what_if(models: Models, image: str, question: str, style_image: str | None) -> tuple[Told, Told]:
    return told_twice(models.gated, _need(image, "an image"), question, style_image or None)


def _thumbnails(found: Found) -> list[tuple[Image.Image, str]]:
    """Small pictures made anew: the files, with what they say of place, camera and the like, stay here."""
    shown = []
    for path, score in found:
        try:
            picture = open_image(path, at_least=THUMBNAIL)
        except (ValueError, OSError):  # gone or broken since it was indexed
            shown.append((Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white"), f"{score:.3f}  {path.name} (gone)"))
            continue
        picture.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
        picture.info.clear()
        shown.append((picture, f"{score:.3f}  {path.name}"))
    return shown


def _need(image: str | None, what: str) -> str:
    if not image:
        raise ValueError(f"{what} is missing; choose a file or paste a picture")
    return image


def _lines(texts: str) -> list[str]:
    lines = list(dict.fromkeys(line.strip() for line in texts.splitlines() if line.strip()))
    if not lines:
        raise ValueError("no text; write one a line")
    if len(lines) > MAX_TEXTS:
        raise ValueError(f"{len(lines)} texts; at most {MAX_TEXTS} are matched at once")
    return lines
