"""What each tab of the web page computes: models and a visitor's input -> plain values, independent of any page.

compare_styles   two images           -> text, two maps of the style head's sensitivity
search_by_*      an image or words    -> thumbnails with captions, and their files
ask_*            an image, a question -> an answer
match_texts      an image, texts      -> texts with cosine and probability, the best first
show_text        an image, a text     -> heat map of the text
describe         an image, a text     -> description, score, expected score, P(yes), analysis, seconds
what_if          image, question, style image -> two answers with their styles

Images are paths of files. Input that cannot be used is a ValueError or OSError of one line.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from blip2_gated import inference
from clip.embed import embed_texts
from clip.heatmaps import heatmap, overlay
from clip.inference import rank_texts
from common.images.io import open_image
from inspect_image import style_sensitivity
from style_comparator import compare_images
from style_encoder import read_image
from webpage.models import Models

THUMBNAIL = 400  # pixels of the shorter side of a found image: what the page shows and no more
MAX_TEXTS = 50
MAX_NEW_TOKENS = 256  # of an answer, as on the command line


class Match(NamedTuple):
    """A found image as the page shows it. path: its file, '' where that is not shown."""

    picture: Image.Image
    caption: str
    path: str


def compare_styles(models: Models, first: str, second: str) -> tuple[str, Image.Image, Image.Image]:
    encoder, statistics = models.style_encoder
    paths = require_image(first, "the first image"), require_image(second, "the second image")
    models.report(1, 3, "comparing")
    _, text = compare_images(*paths, encoder, statistics)
    models.report(2, 3, "computing the maps")
    with torch.enable_grad():
        maps = [style_sensitivity(encoder, read_image(path, encoder)[None].to(models.torch_device)) for path in paths]
    one, other = (overlay(open_image(path), heat) for path, heat in zip(paths, maps))
    return "\n".join(line.strip() for line in text.splitlines()), one, other


def search_by_image(models: Models, image: str, count: int) -> list[Match]:
    return thumbnails(models, *models.searcher.search([require_image(image)], [], count))


def search_by_vitp(models: Models, image: str, count: int) -> list[Match]:
    return thumbnails(models, *models.vitp_searcher.search([require_image(image)], [], count))


def search_by_words(models: Models, words: str, count: int) -> list[Match]:
    if not words.strip():
        raise ValueError("the text is empty; describe what the images should show")
    return thumbnails(models, *models.searcher.search([], [words.strip()], count))


def match_texts(models: Models, image: str, texts: str) -> list[dict[str, Any]]:
    """texts: one per line -> [{"text", "score" (cosine), "probability" (softmax over these texts)}], the best first."""
    path, lines = require_image(image), split_texts(texts)
    model = models.clip_model
    models.report(1, 2, "matching")
    vectors = embed_texts(model, lines, models.torch_device, quiet=True)  # (M, D)
    image_vector = torch.from_numpy(models.clip_extractor.encode([path])[0])  # (D,)
    ranked = rank_texts(vectors @ image_vector, model.scale.item(), len(lines), set())
    return [{**match, "text": lines[match["text"]]} for match in ranked["top"]]


def show_text(models: Models, image: str, texts: str, chosen: str) -> Image.Image:
    """The image under the heat map of one of its texts, relative to what all texts have in common."""
    lines = split_texts(texts)
    if chosen not in lines:
        raise ValueError("the texts have changed since; match them again")
    model, device = models.clip_model, models.torch_device
    vectors = embed_texts(model, lines, device, quiet=True).to(device)  # (M, D)
    shared = vectors.mean(0) if len(lines) > 1 else None
    picture = open_image(require_image(image))
    heat = heatmap(model, model.preprocess(picture)[None].to(device), vectors[lines.index(chosen)][None], None, shared)
    return overlay(model.preprocess.visible(picture), heat[0].cpu(), 480)


def describe(models: Models, image: str, text: str) -> tuple[str, ...]:
    path, analyzer = str(require_image(image)), models.analyzer
    models.report(1, 2, "describing and scoring")
    result = analyzer.analyze_image(path, text)
    return (
        result["description"],
        "none given" if result["score"] is None else f"{result['score']} of 10",
        "" if result["expected_score"] is None else f"{result['expected_score']:.2f}",
        f"{result['p_yes']:.3f}",
        result["analysis"] or "",
        f"{result['seconds']:.1f}",
    )


def ask_vitp(models: Models, image: str, question: str) -> str:
    if not question.strip():
        raise ValueError("the question is empty; ask about the picture, or write: Describe this picture.")
    picture, predictor = open_image(require_image(image)), models.vitp_predictor
    models.report(1, 2, "answering")
    return predictor([([picture], question)], MAX_NEW_TOKENS)[0]


def ask_blip2(models: Models, image: str, question: str) -> tuple[str, dict[str, float]]:
    """Answer, and the probability of each style, {} if the model knows none. An empty question asks for a caption."""
    path, model = require_image(image), models.gated
    models.report(1, 2, "answering")
    with torch.no_grad():
        features = model.features(model.prepare([path]))
        (answer,) = model.predict_answers(features, [question])
        return answer, model.style_probabilities(features)


def what_if(models: Models, image: str, question: str, style_image: str | None) -> list:
    """Answer, styles given to the gates, probability of each style's name; then the same with the other style."""
    path, model = str(require_image(image)), models.gated
    models.report(1, 2, "answering twice")
    outcomes = inference.what_if(model, path, question, style_image or None)
    return [value for outcome in outcomes for value in outcome]


def thumbnails(models: Models, scores: list[list[float]], paths: list[list[Path]]) -> list[Match]:
    """Results of one query as small copies with captions.

    The files themselves, with what their metadata says of place, camera and the like, stay on this machine. An index
    from elsewhere can name any file, and a link of its images lead to one: only what truly lies below its image folder
    is shown. The images of --folder may be links.
    """
    matches = []
    for path, score in zip(paths[0], scores[0]):
        picture, problem = Image.new("RGB", (THUMBNAIL, THUMBNAIL), "white"), ""
        if models.index and not path.resolve().is_relative_to(models.searcher.store.image_dir.resolve()):
            problem = " (outside the image folder)"
        else:
            try:
                picture = thumbnail(path)
            except (ValueError, OSError):  # gone or broken since it was indexed
                problem = " (missing)"
        matches.append(Match(picture, f"{score:.3f}  {path.name}{problem}", "" if problem else str(path)))
    return matches


def thumbnail(path: str | Path) -> Image.Image:
    picture = open_image(path, at_least=THUMBNAIL)
    picture.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    picture.info.clear()
    return picture


def require_image(image: str | None, name: str = "an image") -> Path:
    if not image:
        raise ValueError(f"{name} is missing; choose a file or paste a picture")
    return Path(image)


def split_texts(texts: str) -> list[str]:
    lines = list(dict.fromkeys(line.strip() for line in texts.splitlines() if line.strip()))
    if not 1 <= len(lines) <= MAX_TEXTS:
        raise ValueError(f"{len(lines)} texts; write at least one, at most {MAX_TEXTS}, one per line")
    return lines
