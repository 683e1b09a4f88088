"""The demo's world: drawn scenes, what can be said of them, texts that fit and texts that do not.

sample scenes -> train.jsonl (conversations: describe, score a text, is this shown?), test.jsonl (unseen scenes)
              -> a tokenizer and a vision tower that know their words, a small LLaVA around them
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.images.io import open_image
from common.samples.scenes import Scene, single_scene
from common.samples.shapes import KINDS
from common.samples.styles import STYLES
from common.text.files import write_jsonl
from llava.config import DEMO, DEMO_TRAINING, PROMPTS
from llava.demo_tower import teach_tower
from llava.metrics import recall_at, score_quality
from llava.model import build_llava, build_tokenizer, small_language, small_vision
from llava.request_io import Request, read_rows

TEST_SHARE = 0.04  # of the scenes
SHOWN_TESTS = 48  # unseen scenes that inference --demo looks at
SIDE, PATCH = 60, 10  # pixels
WIDTH, LAYERS = 96, 3  # of the tower and of the language model


def prepare_demo(num_scenes: int = 3000) -> None:
    """Draw the scenes and build the model to start from, where they are not there already."""
    data, start = Path(DEMO_TRAINING["data"]), Path(DEMO_TRAINING["model_id"])
    if not data.is_file() or not Path(DEMO["DATA"]).is_file():
        print(f"drawing {num_scenes} scenes in {data.parent}")
        write_demo_data(data.parent, num_scenes)
    if not (start / "config.json").is_file():
        build_demo_model(data, start)


def write_demo_data(folder: Path, num_scenes: int, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    scenes = draw_scenes(folder, num_scenes, random)
    held = max(2, round(TEST_SHARE * len(scenes)))
    train, test = scenes[held:], scenes[:held]
    write_jsonl(folder / "train.jsonl", (one for scene in train for one in conversations(scene, train, random)))
    write_jsonl(folder / "test.jsonl", ({**scene, "reference": scene["text"]} for scene in test))


def draw_scenes(folder: Path, count: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """One object each, no two with the same caption: {"image", "text", "keywords": its colour and kind}."""
    drawn: dict[str, Scene] = {}
    while len(drawn) < count:
        scene = single_scene(random, str(random.choice(list(KINDS))))
        drawn.setdefault(scene.caption, scene)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (caption, scene) in enumerate(drawn.items()):
        name = f"images/{number:05d}.png"
        STYLES["flat"](scene, SIDE, random).save(folder / name)
        thing = scene.objects[0]
        rows.append({"image": name, "text": caption, "keywords": [thing.colour, thing.kind]})
    return rows


def conversations(
    scene: dict[str, Any], others: list[dict[str, Any]], random: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """A description, two yes/no questions and a score. Each is a conversation of its own, as it is asked later: in one,
    the description could be copied from a text that was called fitting, and the picture would not be looked at."""
    prompts, caption = PROMPTS["en"], scene["text"]
    other = caption
    while other == caption:
        other = others[random.integers(len(others))]["text"]
    turns = [(prompts["describe"], sentence(caption))]
    for said, answer in ((caption, "Yes"), (other, "No")):
        turns.append((prompts["yes_no"].replace("{text}", said), answer))
    said = caption if random.random() < 0.5 else other
    turns.append((prompts["score"].replace("{text}", said), scored(said, caption)))
    for question, answer in turns:
        spoken = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        yield {"image": scene["image"], "conversations": spoken}


def scored(text: str, caption: str) -> str:
    """The share of a text's words that are true of the scene, as a score from 1 to 10, and why."""
    said, true = set(text.replace(",", "").split()), set(caption.replace(",", "").split())
    score = 10 if text == caption else 1 + min(8, round(9 * len(said & true) / len(said)))
    return f"Score: {score}\nAnalysis: {'It fits.' if score == 10 else 'It does not fit.'} {sentence(caption)}"


def sentence(caption: str) -> str:
    return f"{caption[0].upper()}{caption[1:]}."


def build_demo_model(data: Path, folder: Path, seed: int = 0) -> None:
    """A LLaVA whose tokenizer and tower have learnt the words of `data`, with a language model that knows nothing."""
    rows = read_rows(data)
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(turn["value"] for row in rows for turn in row["conversations"])
    vision, language = small_vision(SIDE, PATCH, WIDTH, LAYERS), small_language(tokenizer, WIDTH, LAYERS)
    language.tie_word_embeddings = True  # so that what was seen as a word can be said as a word
    model, processor = build_llava(tokenizer, vision, language)
    described = [row for row in rows if row["conversations"][0]["value"].endswith(PROMPTS["en"]["describe"])]
    images = [open_image(data.parent / row["image"]) for row in described]
    pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    captions = [tokenizer(f" {row['conversations'][1]['value']}")["input_ids"][1:] for row in described]
    teach_tower(model, pixels, captions)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def demo_requests(settings: Namespace) -> list[Request]:
    """Each unseen scene with the words that fit it, and with those of the next."""
    if not Path(settings.data).is_file() or not Path(settings.model_id).is_dir():
        raise FileNotFoundError(f"{settings.model_id}: not there yet; run `python llava/train.py --demo` first")
    rows = read_rows(settings.data)[:SHOWN_TESTS]
    folder = Path(settings.data).parent
    return [
        Request(f"{number} {kind}", str(folder / row["image"]), rows[(number + step) % len(rows)]["text"])
        for number, row in enumerate(rows)
        for step, kind in enumerate(("matching", "other"))
    ]


def report_demo(answered: list[dict[str, Any]], data: str) -> None:
    answered = [line for line in answered if "error" not in line]
    matching = [line["key"].endswith("matching") for line in answered]
    for name in ("score", "expected_score", "p_yes"):
        found = score_quality([line[name] for line in answered], matching, [line["image"] for line in answered])
        if found["auc"] is None:
            print(f"{name:15} not measured: {found['without_score']} of {len(answered)} answers hold none")
            continue
        low, high = found["interval"]
        print(f"{name:15} of matching above other texts: AUC {found['auc']:.3f} (95 % {low:.3f} .. {high:.3f})")
    described = {line["text"]: line["description"] for line, matches in zip(answered, matching) if matches}
    scenes = [row for row in read_rows(data) if row["text"] in described]
    if scenes:
        right = share_named(scenes, [described[scene["text"]] for scene in scenes])
        usual = max(share_named(scenes, [one["text"]] * len(scenes)) for one in scenes)
        print(f"descriptions name {right:.0%} of the kinds and colours drawn; the best one for all scenes, {usual:.0%}")


def share_named(scenes: list[dict[str, Any]], descriptions: list[str]) -> float:
    """Of the kinds and colours of each scene, the mean share that its description names."""
    return float(np.mean([recall_at(said, scene["keywords"], 10) for scene, said in zip(scenes, descriptions)]))
