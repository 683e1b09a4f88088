"""Data and model of the demo: drawn scenes, captions, texts that match and texts that do not.

sample scenes -> train.jsonl (conversations: describe, score a text, yes or no), test.jsonl (unseen scenes)
              -> a tokenizer and a vision tower pretrained on their words, a small LLaVA around them
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.cli.text_table import format_examples
from common.images.io import open_image
from common.samples.scenes import Scene, single_scene
from common.samples.shapes import KINDS
from common.samples.styles import STYLES
from common.text.files import write_jsonl
from common.text.tables import read_records
from llava.config import DEMO, DEMO_TRAINING, PROMPTS
from llava.metrics import recall_at, score_quality
from llava.model import build_llava, build_tokenizer, small_language, small_vision
from llava.request_io import Request
from llava.word_alignment import align_with_words, word_targets

TEST_SHARE = 0.04  # of the scenes
SHOWN_TESTS = 48  # unseen scenes of inference --demo
SIDE, PATCH = 60, 10  # pixels
WIDTH, LAYERS = 96, 3  # of the tower and of the language model


def prepare_demo(num_scenes: int = 3000) -> None:
    """Draw the scenes and build the initial model, unless they exist."""
    data, initial = Path(DEMO_TRAINING["data"]), Path(DEMO_TRAINING["model_id"])
    if not data.is_file() or not Path(DEMO["DATA"]).is_file():
        print(f"drawing {num_scenes} scenes in {data.parent}")
        write_demo_data(data.parent, num_scenes)
    if not (initial / "config.json").is_file():
        build_demo_model(data, initial)


def write_demo_data(folder: Path, num_scenes: int, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    scenes = draw_scenes(folder, num_scenes, random)
    num_tests = max(2, round(TEST_SHARE * len(scenes)))
    train, test = scenes[num_tests:], scenes[:num_tests]
    write_jsonl(folder / "train.jsonl", (row for scene in train for row in conversations(scene, train, random)))
    write_jsonl(folder / "test.jsonl", ({**scene, "reference": scene["text"]} for scene in test))


def draw_scenes(folder: Path, count: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """One object each, no two with the same caption: {"image", "text", "keywords": its colour and kind}."""
    scenes: dict[str, Scene] = {}
    while len(scenes) < count:
        scene = single_scene(random, str(random.choice(list(KINDS))))
        scenes.setdefault(scene.caption, scene)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (caption, scene) in enumerate(scenes.items()):
        name = f"images/{number:05d}.png"
        STYLES["flat"](scene, SIDE, random).save(folder / name)
        rows.append({"image": name, "text": caption, "keywords": [scene.objects[0].colour, scene.objects[0].kind]})
    return rows


def conversations(
    scene: dict[str, Any], others: list[dict[str, Any]], random: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """A description, two yes/no questions and a score, each in a conversation of its own, as in inference: in a single
    one the description could be copied from a text that was called matching, without using the image."""
    prompts, caption = PROMPTS["en"], scene["text"]
    other = caption
    while other == caption:
        other = others[random.integers(len(others))]["text"]
    scored = caption if random.random() < 0.5 else other
    turns = [
        (prompts["describe"], sentence(caption)),
        (prompts["yes_no"].replace("{text}", caption), "Yes"),
        (prompts["yes_no"].replace("{text}", other), "No"),
        (prompts["score"].replace("{text}", scored), score_answer(scored, caption)),
    ]
    for question, answer in turns:
        messages = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        yield {"image": scene["image"], "conversations": messages}


def score_answer(text: str, caption: str) -> str:
    """The share of a text's words that are true of the scene, as a score from 1 to 10, and why."""
    words, true = set(text.replace(",", "").split()), set(caption.replace(",", "").split())
    score = 10 if text == caption else 1 + min(8, round(9 * len(words & true) / len(words)))
    return f"Score: {score}\nAnalysis: {'It fits.' if score == 10 else 'It does not fit.'} {sentence(caption)}"


def sentence(caption: str) -> str:
    return f"{caption[0].upper()}{caption[1:]}."


def build_demo_model(data: Path, folder: Path, seed: int = 0) -> None:
    """A LLaVA whose tokenizer and tower are pretrained on the words of `data`, with an untrained language model."""
    rows = [record for _, record in read_records(data)]
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(turn["value"] for row in rows for turn in row["conversations"])
    vision, language = small_vision(SIDE, PATCH, WIDTH, LAYERS), small_language(tokenizer, WIDTH, LAYERS)
    language.tie_word_embeddings = True  # words that the tower was trained to predict are words of the output
    model, processor = build_llava(tokenizer, vision, language)
    described = [row for row in rows if row["conversations"][0]["value"].endswith(PROMPTS["en"]["describe"])]
    images = [open_image(data.parent / row["image"]) for row in described]
    pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    captions = [tokenizer(f" {row['conversations'][1]['value']}")["input_ids"][1:] for row in described]
    vocabulary, words = sorted({token for caption in captions for token in caption}), model.get_input_embeddings()
    trained = (model.model.vision_tower, model.model.multi_modal_projector, words)
    parameters = [parameter for part in trained for parameter in part.parameters()]

    def patch_logits(rows: torch.Tensor) -> torch.Tensor:
        patches = torch.stack(list(model.model.get_image_features(pixels[rows]).pooler_output))  # (B, N, D)
        return patches @ words.weight[vocabulary].T

    model.train()
    align_with_words(patch_logits, word_targets(captions, vocabulary), parameters, steps=1200)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def demo_requests(settings: Namespace) -> list[Request]:
    """Each unseen scene with its own text and with that of the next scene."""
    if not Path(settings.data).is_file() or not Path(settings.model_id).is_dir():
        raise FileNotFoundError(f"{settings.model_id}: does not exist yet; run `python llava/train.py --demo` first")
    rows = [record for _, record in read_records(settings.data)][:SHOWN_TESTS]
    return [
        Request(f"{number} {kind}", str(Path(settings.data).parent / row["image"]), text)
        for number, (row, following) in enumerate(zip(rows, [*rows[1:], rows[0]]))
        for kind, text in (("matching", row["text"]), ("other", following["text"]))
    ]


def report_demo(rows: list[dict[str, Any]], data: str) -> None:
    rows = [row for row in rows if "error" not in row]
    matching = [row["key"].endswith("matching") for row in rows]
    print(format_judgements(rows, matching))
    for name in ("score", "expected_score", "p_yes"):
        quality = score_quality([row[name] for row in rows], matching, [row["image"] for row in rows])
        if quality["auc"] is None:
            print(f"{name:15} not measured: {quality['without_score']} of {len(rows)} answers state none")
            continue
        low, high = quality["interval"]
        print(f"{name:15} of matching above other texts: AUC {quality['auc']:.3f} (95 % {low:.3f} .. {high:.3f})")
    descriptions = {row["text"]: row["description"] for row, matches in zip(rows, matching) if matches}
    scenes = [scene for _, scene in read_records(data) if scene["text"] in descriptions]
    if scenes:
        right = mean_recall(scenes, [descriptions[scene["text"]] for scene in scenes])
        constant = max(mean_recall(scenes, [scene["text"]] * len(scenes)) for scene in scenes)
        print(
            f"descriptions name {right:.0%} of the kinds and colours drawn; the best single one for all scenes, "
            f"{constant:.0%}"
        )


def format_judgements(rows: list[dict[str, Any]], matching: list[bool]) -> str:
    """Right and wrong ones: a text fits where P(Yes) is above a half; it is the finest of the scores."""
    titles = ("image", "text", "truth", "P(Yes)")
    known = [(row, fits) for row, fits in zip(rows, matching) if row["p_yes"] is not None]
    cells = [
        (Path(row["image"]).name, row["text"], "fits" if fits else "does not fit", f"{row['p_yes']:.2f}")
        for row, fits in known
    ]
    return format_examples(titles, cells, [(row["p_yes"] > 0.5) == fits for row, fits in known])


def mean_recall(scenes: list[dict[str, Any]], descriptions: list[str]) -> float:
    """Mean share of each scene's kinds and colours that its description names."""
    return float(np.mean([recall_at(text, scene["keywords"], 10) for scene, text in zip(scenes, descriptions)]))
