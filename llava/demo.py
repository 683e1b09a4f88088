"""The demo's world: drawn scenes, what can be said of them, texts that fit and texts that do not.

sample scenes -> train.jsonl (conversations: describe, score a text, is this shown?), test.jsonl (unseen scenes)
              -> a tokenizer of their words, a small LLaVA with random weights
"""

import json
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.sample_data import create_sample_dataset
from common.sample_scenes import plural
from llava.build import build_llava, build_tokenizer, small_language, small_vision
from llava.config import DEMO, DEMO_TRAINING, PROMPTS
from llava.measures import recall_at, score_quality
from llava.tables import Request, read_rows, write_lines

TEST_SHARE = 0.05  # of the scenes
SHOWN_TESTS = 48  # unseen scenes that inference --demo looks at
SIDE = 64  # pixels
ROUNDS = 2  # over the scenes, with other texts


def prepare_demo(num_samples: int = 2400) -> None:
    """Draw the scenes and build the untrained model, where they are not there already."""
    data, start = Path(DEMO_TRAINING["data"]), Path(DEMO_TRAINING["model_id"])
    if not data.is_file() or not Path(DEMO["DATA"]).is_file():
        print(f"drawing {num_samples} sample scenes in {data.parent}")
        write_demo_data(data.parent, num_samples)
    if not (start / "config.json").is_file():
        build_demo_model(data, start)


def write_demo_data(folder: Path, num_samples: int, seed: int = 0) -> None:
    create_sample_dataset(folder, num_samples, seed, layout="captions", size=SIDE)
    scenes = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
    held = max(2, round(TEST_SHARE * len(scenes)))
    train, test = scenes[held:], scenes[:held]
    random = np.random.default_rng(seed)
    write_lines(folder / "train.jsonl", (
        one for _ in range(ROUNDS) for scene in train for one in conversations(scene, train, random)
    ))  # fmt: skip
    write_lines(folder / "test.jsonl", (
        {"image": scene["name"], "text": scene["caption"], "reference": scene["caption"], "keywords": keywords(scene)}
        for scene in test
    ))  # fmt: skip


def conversations(
    scene: dict[str, Any], others: list[dict[str, Any]], random: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """A description, two yes/no questions and a score. Each is a conversation of its own, as it is asked later: in one,
    the description could be copied from a text that was called fitting, and the picture would not be looked at."""
    prompts, caption = PROMPTS["en"], scene["caption"]

    def text() -> str:
        return caption if random.random() < 0.5 else others[random.integers(len(others))]["caption"]

    turns = [(prompts["describe"], sentence(caption))]
    for said in (text(), text()):
        turns.append((prompts["yes_no"].replace("{text}", said), "Yes" if said == caption else "No"))
    said, question = text(), prompts["score_with_description"].replace("{description}", sentence(caption))
    turns.append((question.replace("{text}", said), scored(said, scene)))
    for question, answer in turns:
        spoken = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        yield {"image": scene["name"], "conversations": spoken}


def scored(text: str, scene: dict[str, Any]) -> str:
    """The share of a text's words that are true of the scene, as a score from 1 to 10, and why."""
    said, true = set(text.replace(",", "").split()), set(scene["caption"].replace(",", "").split())
    score = 10 if text == scene["caption"] else 1 + min(8, round(9 * len(said & true) / len(said)))
    verdict = "It fits." if score == 10 else "It does not fit."
    return f"Score: {score}\nAnalysis: {verdict} {sentence(scene['caption'])}"


def sentence(caption: str) -> str:
    return f"{caption[0].upper()}{caption[1:]}."


def keywords(scene: dict[str, Any]) -> list[str]:
    """Kinds and colours that are drawn, as the caption says them: 'cats' where there are several."""
    drawn = {word for thing in scene["objects"] for word in (thing["kind"], plural(thing["kind"]), thing["colour"])}
    return [word for word in dict.fromkeys(re.findall(r"\w+", scene["caption"])) if word in drawn]


def build_demo_model(data: Path, folder: Path, seed: int = 0) -> None:
    """An untrained LLaVA whose tokenizer has learnt the words of `data`."""
    words = [turn["value"] for row in read_rows(data) for turn in row["conversations"]]
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(words)
    model, processor = build_llava(tokenizer, small_vision(SIDE, 16, 96, 3), small_language(tokenizer, 96, 3))
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
        for number, row in enumerate(rows) for step, kind in enumerate(("matching", "other"))
    ]  # fmt: skip


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
