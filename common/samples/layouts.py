"""Sample data without a network: drawn scenes in drawn styles, written in the layout that each system reads.

seed -> scenes or portraits (common.samples.scenes) -> pictures (common.samples.styles) -> files of one layout

With the same library versions the same arguments give the same bytes, and sample i does not depend on how many samples
are written. All that is said of a picture (captions, answers, labels) follows from the scene it was drawn from. Layouts
that draw scenes also write scenes.json, the truth: objects, boxes as fractions of the side, captions in two languages.
"""

import csv
import io
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from common.samples.hash_text_encoder import hash_text
from common.samples.portraits import random_portrait
from common.samples.scenes import Scene, questions, questions_chinese, random_scene, single_scene
from common.samples.shapes import KINDS
from common.samples.styles import STYLES

MANIFEST = "sample_data.json"  # lists the files that are ours, so that a second call replaces those and no others
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
GIVEN = ("Mira", "Tomas", "Aiko", "Leander", "Suri", "Bram", "Noor", "Elif", "Ruben", "Hana", "Ivo", "Yara")
FAMILY = ("Vale", "Okoro", "Lindqvist", "Marsh", "Tanaka", "Brook", "Castell", "Weaver", "Ibarra", "Frost", "Quill")
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
    """What was written."""

    root: Path
    layout: str
    num_images: int
    files: tuple[str, ...]  # relative to root, sorted


def create_sample_dataset(
    root: str | Path, num_samples: int = 100, seed: int = 0, layout: str = "styles", size: int = 128
) -> SampleDataset:
    """Write `num_samples` pictures of `size` pixels a side and what belongs to them. Layouts, below root:

    styles         <style>/<scene>_img.png, <scene>_{embed,pooled,mask}.pt    each scene in every style, so the number
                   of pictures is num_samples rounded up to a multiple of the number of styles
    captions       images/*.png, captions/*.txt, data.json, captions_zh.json: [{"image_path", "caption"}]; every
                   second caption names the style
    persona        images/*.png, metadata.jsonl: file_name, title, character, appearance, personality, url
    vqa            images/*.png, train.csv, val.csv, test.csv: image,question,answer,style; 4 questions an image or
                   fewer, of 8 images one for val and one for test
    conversations  images/*.png, conversations.jsonl (InternVL; every third in Chinese), meta.json
    retrieval      gallery/<kind>/*.png, query/<kind>/*.png: single objects, about one in three a query

    A folder that is there already keeps its other files; a file of a name needed here that is not ours is an error.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout '{layout}' is unknown; choose one of {', '.join(LAYOUTS)}")
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; expected 1 or more")
    if size < 16:
        raise ValueError(f"size is {size} pixels; expected 16 or more, 64 or more to recognise something")
    folder = _Folder(Path(root))
    LAYOUTS[layout](folder, num_samples, seed, size)
    files = folder.finish({"layout": layout, "num_samples": num_samples, "seed": seed, "size": size})
    return SampleDataset(folder.root, layout, sum(name.endswith(".png") for name in files), files)


def contact_sheet(path: str | Path, num_scenes: int = 8, seed: int = 0, size: int = 128) -> None:
    """One picture to look at: a row for each style with its name, a column for each scene."""
    gap, label = size // 32 + 1, size
    scenes = list(_distinct_scenes(num_scenes, seed))
    sheet = Image.new("RGB", (label + num_scenes * (size + gap) + gap, len(STYLES) * (size + gap) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(max(size // 10, 8))
    for row, style in enumerate(STYLES):
        top = gap + row * (size + gap)
        draw.text((label - gap, top + size // 2), _words(style), fill="black", font=font, anchor="rm")
        for index, scene in enumerate(scenes):
            sheet.paste(_draw(scene, style, seed, index, size), (label + gap + index * (size + gap), top))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _write_styles(folder: "_Folder", num_samples: int, seed: int, size: int) -> None:
    targets = {
        style: {kind: _tensor_bytes(tensor) for kind, tensor in hash_text(f"{_words(style)} style").items()}
        for style in STYLES
    }
    truth = []
    for index, scene in enumerate(_distinct_scenes(math.ceil(num_samples / len(STYLES)), seed)):
        stem = f"scene_{index:05d}"
        truth.append(_truth(scene, name=stem))
        for style in STYLES:
            folder.write_image(f"{style}/{stem}_img.png", _draw(scene, style, seed, index, size))
            for kind, data in targets[style].items():
                folder.write(f"{style}/{stem}_{kind}.pt", data)
    folder.write_json("scenes.json", truth)


def _write_captions(folder: "_Folder", num_samples: int, seed: int, size: int) -> None:
    english, chinese = [], []
    for index, (image, scene, style) in enumerate(_draw_scenes(folder, num_samples, seed, size)):
        caption, caption_chinese = scene.caption, scene.caption_chinese
        if index % 2:
            caption += f", in {_words(style)} style"
            caption_chinese += f"{CHINESE_STYLES[style]}风格。"
        folder.write_text(f"captions/{PurePosixPath(image).stem}.txt", caption + "\n")
        english.append({"image_path": image, "caption": caption})
        chinese.append({"image_path": image, "caption": caption_chinese})
    folder.write_json("data.json", english)
    folder.write_json("captions_zh.json", chinese)


def _write_persona(folder: "_Folder", num_samples: int, seed: int, size: int) -> None:
    rows = []
    for index in range(num_samples):
        turn, place = divmod(index, len(GIVEN) * len(FAMILY))  # 12 and 11 share no factor: 132 different names
        name = f"{GIVEN[place % len(GIVEN)]} {FAMILY[place % len(FAMILY)]}" + (f" {turn + 1}" if turn else "")
        portrait = random_portrait(_random(seed, "portrait", index), name)
        image = f"images/portrait_{index:05d}.png"
        folder.write_image(image, _draw(portrait, _style_of(seed, index, PORTRAIT_STYLES), seed, index, size))
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
    folder.write_jsonl("metadata.jsonl", rows)


def _write_vqa(folder: "_Folder", num_samples: int, seed: int, size: int) -> None:
    tables = {"train": [], "val": [], "test": []}
    for index, (image, scene, style) in enumerate(_draw_scenes(folder, num_samples, seed, size)):
        random = _random(seed, "questions", index)
        asked = questions(scene, random)
        chosen = [asked[place] for place in sorted(random.permutation(len(asked))[:3])]
        about_style = (STYLE_QUESTIONS[random.integers(len(STYLE_QUESTIONS))], _words(style))
        table = tables[{6: "val", 7: "test"}.get(index % 8, "train")]
        table += [(image, question, answer, style) for question, answer in [about_style, *chosen]]
    for name, table in tables.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("image", "question", "answer", "style"), *table])
        folder.write_text(f"{name}.csv", text.getvalue())


def _write_conversations(folder: "_Folder", num_samples: int, seed: int, size: int) -> None:
    rows = []
    for index, (image, scene, style) in enumerate(_draw_scenes(folder, num_samples, seed, size)):
        random = _random(seed, "questions", index)
        request = int(random.integers(len(ENGLISH_REQUESTS)))
        if index % 3 == 2:
            turns = [(CHINESE_REQUESTS[request], scene.caption_chinese), *questions_chinese(scene)]
            turns.append(("这幅画是什么风格？", f"{CHINESE_STYLES[style]}风格。"))
        else:
            turns = [(ENGLISH_REQUESTS[request], f"{scene.caption[0].upper()}{scene.caption[1:]}.")]
            turns += [*questions(scene, random), (STYLE_QUESTIONS[1], f"In {_words(style)} style.")]
        turns = [turns[0], *(turns[place] for place in sorted(1 + random.permutation(len(turns) - 1)[:3]))]
        turns[0] = (f"<image>\n{turns[0][0]}", turns[0][1])
        rows.append(
            {
                "id": index,
                "image": PurePosixPath(image).name,
                "width": size,
                "height": size,
                "conversations": [
                    {"from": speaker, "value": text} for turn in turns for speaker, text in zip(("human", "gpt"), turn)
                ],
            }
        )
    folder.write_jsonl("conversations.jsonl", rows)
    folder.write_json(
        "meta.json",
        {
            "sample": {
                "root": "images/",
                "annotation": "conversations.jsonl",
                "data_augment": False,
                "repeat_time": 1,
                "length": len(rows),
                "max_dynamic_patch": 12,
            }
        },
    )


def _write_retrieval(folder: "_Folder", num_samples: int, seed: int, size: int) -> None:
    truth = []
    for index in range(num_samples):
        turn, place = divmod(index, len(KINDS))
        kind = list(KINDS)[place]
        scene, style = single_scene(_random(seed, "single", index), kind), _style_of(seed, index)
        name = f"{'query' if turn % 3 == 1 else 'gallery'}/{kind}/{kind}_{turn:05d}.png"
        folder.write_image(name, _draw(scene, style, seed, index, size))
        truth.append(_truth(scene, name=name, style=style))
    folder.write_json("scenes.json", truth)


LAYOUTS = {
    "styles": _write_styles,
    "captions": _write_captions,
    "persona": _write_persona,
    "vqa": _write_vqa,
    "conversations": _write_conversations,
    "retrieval": _write_retrieval,
}


def _draw_scenes(folder: "_Folder", count: int, seed: int, size: int) -> Iterator[tuple[str, Scene, str]]:
    """Write images/ and scenes.json -> name, scene, style of each."""
    truth = []
    for index, scene in enumerate(_distinct_scenes(count, seed)):
        image, style = f"images/scene_{index:05d}.png", _style_of(seed, index)
        folder.write_image(image, _draw(scene, style, seed, index, size))
        truth.append(_truth(scene, name=image, style=style))
        yield image, scene, style
    folder.write_json("scenes.json", truth)


def _distinct_scenes(count: int, seed: int) -> Iterator[Scene]:
    """Scenes of which no two have the same caption."""
    seen: set[str] = set()
    for index in range(count):
        random = _random(seed, "scene", index)
        scene = random_scene(random)
        while scene.caption in seen:
            scene = random_scene(random)
        seen.add(scene.caption)
        yield scene


def _style_of(seed: int, index: int, styles: tuple[str, ...] = tuple(STYLES)) -> str:
    """All styles in a new random order, again and again: balanced, and independent of what is drawn."""
    turn, place = divmod(index, len(styles))
    return styles[_random(seed, "style", turn).permutation(len(styles))[place]]


def _draw(scene, style: str, seed: int, index: int, size: int) -> Image.Image:
    return STYLES[style](scene, size, _random(seed, f"draw {style}", index))


def _random(seed: int, purpose: str, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(purpose.encode()), index]))


def _words(style: str) -> str:
    return style.replace("_", " ")


def _truth(scene: Scene, **more: str) -> dict:
    return {**more, "caption": scene.caption, "caption_chinese": scene.caption_chinese, **asdict(scene)}


def _tensor_bytes(tensor: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensor, buffer)  # to a path it would write the file's name into the file
    return buffer.getvalue()


class _Folder:
    """Writes files below root and remembers which; never over a file that an earlier call did not write."""

    def __init__(self, root: Path):
        self.root, self.names = root, set()
        manifest = root / MANIFEST
        self.earlier = set(json.loads(manifest.read_text(encoding="utf-8"))["files"]) if manifest.is_file() else set()

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        if path.is_file() and name not in self.earlier and path.read_bytes() != data:
            raise FileExistsError(f"{path}: is there and was not written by create_sample_dataset; give another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.names.add(name)

    def write_image(self, name: str, image: Image.Image) -> None:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        self.write(name, buffer.getvalue())

    def write_text(self, name: str, text: str) -> None:
        self.write(name, text.encode("utf-8"))

    def write_json(self, name: str, value: object) -> None:
        self.write_text(name, json.dumps(value, ensure_ascii=False, indent=1) + "\n")

    def write_jsonl(self, name: str, rows: list[dict]) -> None:
        self.write_text(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def finish(self, settings: dict) -> tuple[str, ...]:
        """Remove what an earlier call wrote and this one did not, write the manifest -> names of all our files."""
        for name in sorted(self.earlier - self.names):
            if ".." not in PurePosixPath(name).parts and not PurePosixPath(name).is_absolute():
                (self.root / name).unlink(missing_ok=True)
        files = tuple(sorted(self.names))
        (self.root / MANIFEST).write_text(json.dumps({**settings, "files": files}, indent=1) + "\n", encoding="utf-8")
        return files
