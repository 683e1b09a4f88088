"""The demo of train.py: a small model trained on drawings, and its answers about unseen ones.

drawings of single things -> conversations, tokenizer, two small config.json, settings of train.py -> scores of answers;
retrieval/compare_encoders.py then compares the vision encoder before and after
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from transformers import InternVLVisionConfig, LlamaConfig, PreTrainedTokenizerFast

from common.cli.text_table import format_examples
from common.models import tokenizer as tokenizers
from common.samples.scenes import BACKGROUNDS, POSITIONS, single_scene
from common.samples.shapes import KINDS
from common.samples.styles import STYLES
from common.text.files import read_json, write_json, write_jsonl
from vitp.chat_template import INTERNVL_SYSTEM
from vitp.evaluate import main as evaluate_answers

FOLDER, OUTPUT = Path("data/vitp_demo"), "checkpoints/vitp_demo"
CONVERSATIONS = "conversations.jsonl"  # in the folder of the drawings that they are about
UNTRAINED = FOLDER / "untrained"  # the model as it is initialised
DRAWINGS, SIZE = {"train": 10000, "test": 100, "retrieval": 900}, 64
SETTINGS = {
    "max_steps": 2000,
    "per_device_train_batch_size": 32,
    "learning_rate": 1e-3,
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
QUESTIONS = {  # kind of question -> its text
    "description": "Describe this picture.",
    "kind": "What is drawn here?",
    "colour": "What colour is it?",
    "position": "Where is it?",
}


def prepare() -> dict:
    """Write data and the parts of a model -> settings of train.py."""
    for seed, (name, count) in enumerate(DRAWINGS.items()):
        if not (FOLDER / name / "scenes.json").is_file():
            print(f"drawing {count} pictures into {FOLDER / name}")
            draw(FOLDER / name, count, seed)
    for name in ("test", "train"):
        drawings = read_json(FOLDER / name / "scenes.json")
        records = [record for drawing in drawings for record in _conversations(drawing)]
        write_jsonl(FOLDER / name / CONVERSATIONS, records)
    write_json(FOLDER / "train.json", {"drawings": {"root": "train", "annotation": f"train/{CONVERSATIONS}"}})
    answers = [record["conversations"][1]["value"] for record in records]  # of the training set, the last
    template = f"system\n{INTERNVL_SYSTEM}\nuser\nassistant\n"
    tokenizer = train_tokenizer([*QUESTIONS.values(), *answers, *[template] * 100])
    write_parts(FOLDER / "parts", tokenizer, width=128)
    return {
        "vision_config": str(FOLDER / "parts" / "vision.json"),
        "llm": str(FOLDER / "parts" / "config.json"),
        "meta_path": str(FOLDER / "train.json"),
        "output_dir": OUTPUT,
        **SETTINGS,
    }


def draw(folder: Path, count: int, seed: int) -> None:
    """Single things, query/<kind>/*.png (a third) and gallery/<kind>/*.png, and scenes.json: what each shows."""
    random, kinds, scenes = np.random.default_rng(seed), list(KINDS), []
    for number in range(count):
        turn, kind = divmod(number, len(kinds))
        scene = single_scene(random, kinds[kind])
        name = f"{'query' if turn % 3 == 1 else 'gallery'}/{kinds[kind]}/{turn:05d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        STYLES["flat"](scene, SIZE, random).save(folder / name)
        thing, background = scene.objects[0], BACKGROUNDS[scene.background][0]
        scenes.append(
            {
                "name": name,
                "description": f"{scene.caption[0].upper()}{scene.caption[1:]}.",
                "kind": thing.kind,
                "colour": thing.colour,
                "position": scene.position,
                "facts": [thing.size, thing.colour, thing.kind, POSITIONS[scene.position], background],
            }
        )
    write_json(folder / "scenes.json", scenes)


def evaluate(folder: str) -> dict:
    """Ask the model of `folder` about unseen drawings -> the report of evaluate.py, also in answers.json."""
    print("answers about unseen drawings:")
    train, test = (f"{FOLDER / name / CONVERSATIONS}" for name in ("train", "test"))
    output = f"{folder}/answers.json"
    words = ["--model_name_or_path", folder, "--data", test, "--train_data", train, "--output", output]
    report = evaluate_answers([*words, "--batch_size", "50", "--max_new_tokens", "40"])
    answers = read_json(output)["answers"]
    cells = [
        (str(Path(row["images"][0]).relative_to(FOLDER / "test")), row["question"], row["reference"], row["answer"])
        for row in answers
    ]
    print(format_examples(("image", "question", "truth", "answer"), cells, [row["score"] == 1 for row in answers]))
    print(f"all answers are in {output}")
    return report


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1000) -> PreTrainedTokenizerFast:
    return tokenizers.train_tokenizer(texts, vocab_size, pad_token="<|endoftext|>", eos_token="<|endoftext|>")


def write_parts(
    folder: Path, tokenizer: PreTrainedTokenizerFast, width: int, layers: int = 3, size: int = SIZE
) -> None:
    """vision.json, config.json and the tokenizer, for --vision_config and --llm: a model `width` wide for images of
    `size` pixels, patches of 8.

    Weights are initialised with a deviation of 1 / sqrt(width). The usual 0.02 suits widths of thousands; here each
    layer would pass on a quarter of its input, and for a thousand steps nothing of an image would reach the answers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    shape = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "initializer_range": width**-0.5,
    }
    vision = InternVLVisionConfig(
        **shape,
        intermediate_size=4 * width,
        image_size=size,
        patch_size=8,
        attention_bias=True,
        layer_scale_init_value=1.0,  # from scratch, a smaller one only slows the beginning
    )
    text = LlamaConfig(
        **shape,
        vocab_size=len(tokenizer),
        intermediate_size=3 * width,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    write_json(folder / "vision.json", vision.to_dict())
    write_json(folder / "config.json", text.to_dict())


def _conversations(drawing: dict) -> list[dict]:
    """One for each question: in a single one, later answers could be read off the description, and most of what is
    learned would be reading."""
    return [
        {
            "image": drawing["name"],
            "kind": kind,
            **({"facts": drawing["facts"]} if kind == "description" else {}),
            "conversations": [
                {"from": "human", "value": f"<image>\n{question}"},
                {"from": "gpt", "value": drawing[kind]},
            ],
        }
        for kind, question in QUESTIONS.items()
    ]
