"""Sample data without downloads: drawn scenes in drawn styles, written in the layout that each system reads.

seed -> scenes or portraits (common/samples/scenes.py) -> pictures (common/samples/styles.py) -> files of one layout

With the same library versions the same arguments give the same bytes, and sample i does not depend on the number of
samples. All texts (captions, answers, labels) are derived from the scene that was drawn. Layouts that draw scenes also
write scenes.json, the ground truth: objects, boxes as fractions of the side, captions in two languages.
"""

import csv
import io
import math
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.samples.canvas import Drawable
from common.samples.hash_text_encoder import hash_text
from common.samples.portraits import random_portrait
from common.samples.sample_folder import MANIFEST, SampleFolder, is_drawn, is_vacant
from common.samples.scenes import Scene, questions, questions_chinese, random_scene, single_scene
from common.samples.shapes import KINDS
from common.samples.styles import STYLES

__all__ = ["LAYOUTS", "MANIFEST", "SampleDataset", "create_sample_dataset", "draw_style_sheet", "offer_samples"]

CHINESE_STYLES = {
    "flat": "扁平",
    "ink_outline": "墨线",
    "watercolour": "水彩",
    "pointillism": "点彩",
    "pixel_art": "像素画",
    "halftone": "半调网点",
    "pencil_hatching": "彩铅排线",
    "mosaic": "马赛克",
    "neon": "霓虹灯",
    "woodcut": "木刻",
    "oil_paint": "油画",
    "stained_glass": "彩色玻璃",
    "chalk": "粉笔",
    "paper_cut": "剪纸",
    "cross_stitch": "十字绣",
}
PORTRAIT_STYLES = ("flat", "watercolour", "pencil_hatching", "paper_cut", "halftone", "pixel_art")  # faces stay legible
GIVEN_NAMES = ("Mira", "Tomas", "Aiko", "Leander", "Suri", "Bram", "Noor", "Elif", "Ruben", "Hana", "Ivo", "Yara")
FAMILY_NAMES = (
    "Vale",
    "Okoro",
    "Lindqvist",
    "Marsh",
    "Tanaka",
    "Brook",
    "Castell",
    "Weaver",
    "Ibarra",
    "Frost",
    "Quill",
)
STORIES = ("Paper Harbour", "The Clockwork Garden", "Tales of the North Wind")
ENGLISH_REQUESTS = ("Describe this picture.", "What do you see?", "Write a caption for this image.")
CHINESE_REQUESTS = ("请描述这张图片。", "图片里有什么？", "请为这张图片写一句说明。")
STYLE_QUESTIONS = (
    "What is the style of this image?",
    "In which style is this picture drawn?",
    "Which drawing technique was used here?",
)


@dataclass(frozen=True)
class SampleDataset:
    """A sample data set on disk."""

    root: Path
    layout: str
    num_images: int
    files: tuple[str, ...]  # relative to root, sorted


def create_sample_dataset(
    root: str | Path, num_samples: int = 100, seed: int = 0, layout: str = "styles", size: int = 128
) -> SampleDataset:
    """Write `num_samples` pictures of `size` pixels a side with their texts. Layouts, below root:

    styles         <style>/<scene>_img.png, <scene>_{embed,pooled,mask}.pt    each scene in every style, so the number
                   of pictures is num_samples rounded up to a multiple of the number of styles
    captions       images/*.png, captions/*.txt, data.json, captions_zh.json: [{"image_path", "caption"}]; every
                   second caption names the style
    persona        images/*.png, metadata.jsonl: file_name, title, character, appearance, personality, url
    vqa            images/*.png, train.csv, val.csv, test.csv: image,question,answer,style; up to 4 questions an image,
                   of 8 images one for val and one for test
    conversations  images/*.png, conversations.jsonl (InternVL; every third in Chinese), meta.json
    retrieval      gallery/<kind>/*.png, query/<kind>/*.png: single objects, about one in three a query

    Layouts share the scenes of a seed, and where the style is the same the picture: a model that was trained on one of
    them is tested on another seed.

    FileExistsError unless the folder is missing, empty, or of an earlier call; files added to it since are kept.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout '{layout}' is unknown; choose one of {', '.join(LAYOUTS)}")
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; expected 1 or more")
    if size < 16:
        raise ValueError(f"size is {size} pixels; expected 16 or more, 64 or more to recognise objects")
    folder = SampleFolder(root)
    LAYOUTS[layout](folder, num_samples, seed, size)
    files = folder.write_manifest({"layout": layout, "num_samples": num_samples, "seed": seed, "size": size})
    return SampleDataset(folder.root, layout, sum(name.endswith(".png") for name in files), files)


def offer_samples(root: str | Path, num_samples: int, layout: str) -> None:
    """Draw a data set where a folder is missing or empty; any other stays as it is. Drawn data is named on stderr."""
    if is_vacant(root):
        print(f"{root}: NO DATA HERE, DRAWING {num_samples} SAMPLE PICTURES in it to try this with", file=sys.stderr)
        create_sample_dataset(root, num_samples, layout=layout)
    elif is_drawn(root):
        print(f"{root}: DRAWN SAMPLE DATA, no data of yours", file=sys.stderr)


def draw_style_sheet(path: str | Path, num_scenes: int = 8, seed: int = 0, size: int = 128) -> None:
    """An overview picture: a row for each style below its name, a column for each scene."""
    scenes = list(enumerate(_distinct_scenes(num_scenes, seed)))
    sections = {
        _words(style): [Cell([_draw(scene, style, seed, index, size)]) for index, scene in scenes] for style in STYLES
    }
    save_picture(path, contact_sheet(sections, num_scenes, size))


def _write_styles(folder: SampleFolder, num_samples: int, seed: int, size: int) -> None:
    truth = []
    for index, scene in enumerate(_distinct_scenes(math.ceil(num_samples / len(STYLES)), seed)):
        stem = f"scene_{index:05d}"
        truth.append(_truth(scene, name=stem))
        for style in STYLES:
            folder.write(f"{style}/{stem}_img.png", _draw(scene, style, seed, index, size))
            for kind, tensor in hash_text(f"{_words(style)} style").items():
                folder.write(f"{style}/{stem}_{kind}.pt", tensor)
    folder.write("scenes.json", truth)


def _write_captions(folder: SampleFolder, num_samples: int, seed: int, size: int) -> None:
    english, chinese = [], []
    for index, (image, scene, style) in enumerate(_draw_scenes(folder, num_samples, seed, size)):
        caption, caption_chinese = scene.caption, scene.caption_chinese
        if index % 2:
            caption += f", in {_words(style)} style"
            caption_chinese += f"{CHINESE_STYLES[style]}风格。"
        folder.write(f"captions/{PurePosixPath(image).stem}.txt", f"{caption}\n")
        english.append({"image_path": image, "caption": caption})
        chinese.append({"image_path": image, "caption": caption_chinese})
    folder.write("data.json", english)
    folder.write("captions_zh.json", chinese)


def _write_persona(folder: SampleFolder, num_samples: int, seed: int, size: int) -> None:
    rows = []
    for index in range(num_samples):
        # 12 given and 11 family names share no factor: 132 different names
        turn, number = divmod(index, len(GIVEN_NAMES) * len(FAMILY_NAMES))
        name = f"{GIVEN_NAMES[number % len(GIVEN_NAMES)]} {FAMILY_NAMES[number % len(FAMILY_NAMES)]}"
        portrait = random_portrait(_random(seed, "portrait", index), f"{name} {turn + 1}" if turn else name)
        image = f"images/portrait_{index:05d}.png"
        folder.write(image, _draw(portrait, _style_of(seed, index, PORTRAIT_STYLES), seed, index, size))
        rows.append(
            {
                "file_name": image,
                "title": STORIES[index % len(STORIES)],
                "character": portrait.character,
                "appearance": portrait.appearance,
                "personality": portrait.personality,
                "url": f"sample:persona/{seed}/{index}",
            }
        )
    folder.write("metadata.jsonl", rows)


def _write_vqa(folder: SampleFolder, num_samples: int, seed: int, size: int) -> None:
    tables: dict[str, list[tuple[str, str, str, str]]] = {"train": [], "val": [], "test": []}
    for index, (image, scene, style) in enumerate(_draw_scenes(folder, num_samples, seed, size)):
        random = _random(seed, "questions", index)
        pairs = questions(scene, random)
        chosen = [pairs[number] for number in sorted(random.permutation(len(pairs))[:3])]
        about_style = (STYLE_QUESTIONS[random.integers(len(STYLE_QUESTIONS))], _words(style))
        table = tables[{6: "val", 7: "test"}.get(index % 8, "train")]
        table += [(image, question, answer, style) for question, answer in [about_style, *chosen]]
    for name, table in tables.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("image", "question", "answer", "style"), *table])
        folder.write(f"{name}.csv", text.getvalue())


def _write_conversations(folder: SampleFolder, num_samples: int, seed: int, size: int) -> None:
    rows = []
    for index, (image, scene, style) in enumerate(_draw_scenes(folder, num_samples, seed, size)):
        random = _random(seed, "questions", index)
        request = int(random.integers(len(ENGLISH_REQUESTS)))
        if index % 3 == 2:
            first = (f"<image>\n{CHINESE_REQUESTS[request]}", scene.caption_chinese)
            others = [*questions_chinese(scene), ("这幅画是什么风格？", f"{CHINESE_STYLES[style]}风格。")]
        else:
            first = (f"<image>\n{ENGLISH_REQUESTS[request]}", f"{scene.caption[0].upper()}{scene.caption[1:]}.")
            others = [*questions(scene, random), (STYLE_QUESTIONS[1], f"In {_words(style)} style.")]
        turns = [first, *(others[number] for number in sorted(random.permutation(len(others))[:3]))]
        messages = [{"from": speaker, "value": text} for turn in turns for speaker, text in zip(("human", "gpt"), turn)]
        rows.append(
            {"id": index, "image": PurePosixPath(image).name, "width": size, "height": size, "conversations": messages}
        )
    folder.write("conversations.jsonl", rows)
    source = {"root": "images/", "annotation": "conversations.jsonl", "data_augment": False, "repeat_time": 1}
    folder.write("meta.json", {"sample": {**source, "length": len(rows), "max_dynamic_patch": 12}})


def _write_retrieval(folder: SampleFolder, num_samples: int, seed: int, size: int) -> None:
    truth, kinds = [], list(KINDS)
    for index in range(num_samples):
        turn, number = divmod(index, len(kinds))
        kind, style = kinds[number], _style_of(seed, index)
        scene = single_scene(_random(seed, "single", index), kind)
        name = f"{'query' if turn % 3 == 1 else 'gallery'}/{kind}/{kind}_{turn:05d}.png"
        folder.write(name, _draw(scene, style, seed, index, size))
        truth.append(_truth(scene, name=name, style=style))
    folder.write("scenes.json", truth)


LAYOUTS = {
    "styles": _write_styles,
    "captions": _write_captions,
    "persona": _write_persona,
    "vqa": _write_vqa,
    "conversations": _write_conversations,
    "retrieval": _write_retrieval,
}


def _draw_scenes(folder: SampleFolder, count: int, seed: int, size: int) -> Iterator[tuple[str, Scene, str]]:
    """Write images/ and scenes.json -> name, scene, style of each."""
    truth = []
    for index, scene in enumerate(_distinct_scenes(count, seed)):
        image, style = f"images/scene_{index:05d}.png", _style_of(seed, index)
        folder.write(image, _draw(scene, style, seed, index, size))
        truth.append(_truth(scene, name=image, style=style))
        yield image, scene, style
    folder.write("scenes.json", truth)


def _distinct_scenes(count: int, seed: int) -> Iterator[Scene]:
    """Scenes with different captions."""
    captions: set[str] = set()
    for index in range(count):
        random = _random(seed, "scene", index)
        scene = random_scene(random)
        while scene.caption in captions:
            scene = random_scene(random)
        captions.add(scene.caption)
        yield scene


def _style_of(seed: int, index: int, styles: tuple[str, ...] = tuple(STYLES)) -> str:
    """All styles in random order, and again in another: balanced, and independent of the scene."""
    turn, number = divmod(index, len(styles))
    return styles[_random(seed, "style", turn).permutation(len(styles))[number]]


def _draw(scene: Drawable, style: str, seed: int, index: int, size: int) -> Image.Image:
    return STYLES[style](scene, size, _random(seed, f"draw {style}", index))


def _random(seed: int, purpose: str, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(purpose.encode()), index]))


def _words(style: str) -> str:
    return style.replace("_", " ")


def _truth(scene: Scene, **metadata: str) -> dict:
    return {**metadata, "caption": scene.caption, "caption_chinese": scene.caption_chinese, **asdict(scene)}
