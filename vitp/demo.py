"""What `train.py --demo` trains, on what, and how well it then answers.

drawings of single things -> questions, tokenizer, two small config.json, flags for train.py -> answers about unseen
drawings against the truth; retrieval/compare_encoders.py then compares the vision encoder before and after
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from transformers import InternVLVisionConfig, LlamaConfig, PreTrainedTokenizerFast

from common.cli.progress_bar import progress_bar
from common.images.io import open_image
from common.models import tokenizer
from common.samples.scenes import BACKGROUNDS, POSITIONS, single_scene
from common.samples.shapes import KINDS
from common.samples.styles import STYLES
from common.text.files import write_json
from vitp.chat_template import INTERNVL_SYSTEM
from vitp.inference import VQAPredictor

FOLDER, OUTPUT = Path("data/vitp_demo"), "checkpoints/vitp_demo"
UNTRAINED = FOLDER / "untrained"  # the model as it begins
DRAWINGS, SIZE = {"train": 10000, "test": 100, "retrieval": 900}, 64
SETTINGS = {
    "max_steps": 2000,
    "per_device_train_batch_size": 32,
    "learning_rate": "1e-3",
    "adam_beta2": 0.98,
    "warmup_steps": 100,
    "max_dynamic_patch": 1,
    "max_seq_length": 512,
    "dataloader_num_workers": 1,
    "save_steps": 500,
    "save_total_limit": 1,
    "logging_steps": 50,
    "drop_path_rate": 0,
    "weight_decay": 0.05,
}
QUESTIONS = {  # kind of question -> its words
    "description": "Describe this picture.",
    "kind": "What is drawn here?",
    "colour": "What colour is it?",
    "position": "Where is it?",
}


def prepare() -> list[str]:
    """Write data and the parts of a model -> flags for train.py."""
    for seed, (name, count) in enumerate(DRAWINGS.items()):
        if not (FOLDER / name / "scenes.json").is_file():
            print(f"drawing {count} pictures into {FOLDER / name}")
            draw(FOLDER / name, count, seed)
    # Each question is a conversation by itself: in one, later answers could be read off the description, and most of
    # what is learnt would be reading.
    lines = [
        json.dumps(
            {
                "image": drawing["name"],
                "conversations": [
                    {"from": "human", "value": f"<image>\n{QUESTIONS[kind]}"},
                    {"from": "gpt", "value": _truth(kind, drawing)},
                ],
            }
        )
        for drawing in _drawings("train")
        for kind in QUESTIONS
    ]
    (FOLDER / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(FOLDER / "train.json", {"drawings": {"root": "train", "annotation": "train.jsonl"}})
    write_parts(FOLDER / "parts", train_tokenizer(_texts()), width=128)
    flags = {
        "vision_config": FOLDER / "parts" / "vision.json",
        "llm": FOLDER / "parts" / "config.json",
        "meta_path": FOLDER / "train.json",
        "output_dir": OUTPUT,
        **SETTINGS,
    }
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def draw(folder: Path, count: int, seed: int) -> None:
    """Single things, query/<kind>/*.png (a third) and gallery/<kind>/*.png, and scenes.json: what is true of each."""
    random, kinds, truth = np.random.default_rng(seed), list(KINDS), []
    for number in range(count):
        turn, place = divmod(number, len(kinds))
        scene = single_scene(random, kinds[place])
        name = f"{'query' if turn % 3 == 1 else 'gallery'}/{kinds[place]}/{turn:05d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        STYLES["flat"](scene, SIZE, random).save(folder / name)
        thing = scene.objects[0]
        facts = [thing.size, thing.colour, thing.kind, POSITIONS[scene.position], BACKGROUNDS[scene.background][0]]
        truth.append(
            {
                "name": name,
                "caption": scene.caption,
                "kind": thing.kind,
                "colour": thing.colour,
                "position": scene.position,
                "facts": facts,
            }
        )
    write_json(folder / "scenes.json", truth)


def examine(folder: str, batch_size: int = 50) -> dict:
    """Ask the model of `folder` about unseen drawings -> {"accuracy", "blind", "questions": {kind of question: ...}}.

    Right is an answer that is the truth word for word; of a description, the share of its facts that are true: size,
    colour, kind, position, background. blind: the best that can be had without looking, by what is most frequent.
    """
    drawings = _drawings("test")
    asked = [(kind, drawing) for drawing in drawings for kind in QUESTIONS]
    usual = _usual(_drawings("train"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    answerer = VQAPredictor(folder, device)
    right, shown = {kind: [] for kind in QUESTIONS}, []
    for start in progress_bar(range(0, len(asked), batch_size), desc="asking about unseen drawings"):
        batch = asked[start : start + batch_size]
        images = [([open_image(FOLDER / "test" / drawing["name"])], QUESTIONS[kind]) for kind, drawing in batch]
        for (kind, drawing), answer in zip(batch, answerer(images, max_new_tokens=40)):
            right[kind].append((_share_right(kind, drawing, answer), _share_right(kind, drawing, _truth(kind, usual))))
            shown.append(
                {
                    "image": drawing["name"],
                    "question": QUESTIONS[kind],
                    "truth": _truth(kind, drawing),
                    "answer": answer,
                }
            )
    every = [pair for pairs in right.values() for pair in pairs]
    result = _means(every) | {"questions": {kind: _means(pairs) for kind, pairs in right.items()}}
    write_json(Path(folder) / "answers.json", {**result, "answers": shown})
    print(f"right about unseen drawings: {result['accuracy']:.0%} (without looking {result['blind']:.0%})")
    for kind, means in result["questions"].items():
        print(f"  {kind:12} {means['accuracy']:4.0%} (without looking {means['blind']:4.0%}) of {means['count']}")
    for one in shown[: len(QUESTIONS)]:
        print(f"  {one['image']}: {one['question']} -> {one['answer']} (truth: {one['truth']})")
    return result


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    return tokenizer.train_tokenizer(texts, vocab_size, pad_token="<|endoftext|>", eos_token="<|endoftext|>")


def write_parts(
    folder: Path, tokenizer: PreTrainedTokenizerFast, width: int, layers: int = 3, size: int = SIZE
) -> None:
    """vision.json, config.json and the tokenizer of a model `width` wide for images of `size` pixels, patches of 8:
    what --vision_config and --llm take.

    Weights begin with a deviation of 1 / sqrt(width). The usual 0.02 is right for widths of thousands; here each layer
    would say a quarter of what it hears, and for a thousand steps nothing of an image would reach the answers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    vision = InternVLVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        image_size=size,
        patch_size=8,
        attention_bias=True,
        layer_scale_init_value=1.0,  # from scratch, a smaller one only slows the beginning
        initializer_range=width**-0.5,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=width**-0.5,
    )
    write_json(folder / "vision.json", vision.to_dict())
    write_json(folder / "config.json", text.to_dict())


def _drawings(name: str) -> list[dict]:
    return json.loads((FOLDER / name / "scenes.json").read_text(encoding="utf-8"))


def _truth(kind: str, drawing: dict) -> str:
    return f"{drawing['caption'][0].upper()}{drawing['caption'][1:]}." if kind == "description" else drawing[kind]


def _share_right(kind: str, drawing: dict, answer: str) -> float:
    if kind != "description":
        return float(answer == drawing[kind])
    return sum(bool(re.search(rf"\b{fact}\b", answer)) for fact in drawing["facts"]) / len(drawing["facts"])


def _usual(drawings: list[dict]) -> dict:
    """A drawing of which all is true that is true of most."""
    most = {
        name: Counter(one[name] for one in drawings).most_common(1)[0][0] for name in ("kind", "colour", "position")
    }
    facts = [Counter(column).most_common(1)[0][0] for column in zip(*(one["facts"] for one in drawings))]
    return {**most, "caption": " ".join(facts)}


def _texts() -> list[str]:
    truths = [_truth(kind, drawing) for drawing in _drawings("train") for kind in QUESTIONS]
    return [*QUESTIONS.values(), *truths, *[f"system\n{INTERNVL_SYSTEM}\nuser\nassistant\n"] * 100]


def _means(pairs: list[tuple[float, float]]) -> dict:
    right, blind = (sum(column) / len(pairs) for column in zip(*pairs))
    return {"accuracy": right, "blind": blind, "count": len(pairs)}
