"""Effect of LoRA fine-tuning on real pictures: AUC and ROUGE on held-out pictures before and after.

    python benchmarks/llava_real.py --data_dir FOLDER --language_model FOLDER --image_weights FILE [--epochs 4]

FOLDER of --data_dir holds data.json with captions ([{"image_path", "caption"}]); --language_model is a Llama folder of
transformers (SmolLM2-135M-Instruct for one); --image_weights are those of the timm model --image_tower. The projector
between the two starts at random. A fifth of the pictures, with captions that are not in training, is held out and
chooses nothing. What an earlier start has done is not done again, so the script can be stopped at any time.

captions -> conversations (describe; is this shown?; score) -> LoRA and projector, llava/train.py -> llava/evaluate.py
before and after, each held-out picture with its own caption and another
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.models.backbone import create_backbone
from common.text.files import write_json, write_jsonl
from llava import evaluate, train
from llava.config import PROMPTS
from llava.model import IMAGE_TOKEN, build_llava
from llava.timm_tower import TimmTowerConfig

CHATML_TEMPLATE = (  # of SmolLM2, Qwen and InternVL
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SCORES = ("score", "expected_score", "p_yes")
TEXTS = ("bleu", "rouge1", "rouge2", "rougeL")


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--language_model", required=True)
    parser.add_argument("--image_weights", required=True)
    parser.add_argument("--image_tower", default="tf_efficientnet_lite0")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument(
        "--bf16", action="store_true", help="train in bf16; faster on a CPU that has instructions for it"
    )
    parser.add_argument("--max_steps", default="-1", help="training stops after so many steps; to try it out")
    parser.add_argument("--limit", type=int, default=0, help="only so many held-out pictures; to try it out")
    parser.add_argument("--sentence_encoder", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work_dir", type=Path, default=Path(".cache/llava_real"))
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    start, adapter = args.work_dir / "start", args.work_dir / "adapter"
    if not (start / "config.json").is_file():
        join(args, start)
    if not (args.work_dir / "test.jsonl").is_file():
        write_data(args)
    found = {"before": score(args, start, "")}
    if not (adapter / "results.json").is_file():
        learn(args, start, adapter)
    found["after"] = score(args, start, str(adapter))
    report(found, json.loads((args.work_dir / "minutes.json").read_text())["minutes"])


def join(args: argparse.Namespace, folder: Path) -> None:
    """The language model, the tower, and a projector with random weights between them."""
    tokenizer = AutoTokenizer.from_pretrained(args.language_model, trust_remote_code=False)
    language = AutoModelForCausalLM.from_pretrained(args.language_model, trust_remote_code=False)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    backbone = create_backbone(args.image_tower, args.image_weights)
    config = TimmTowerConfig(
        architecture=args.image_tower,
        image_size=args.image_size,
        patch_size=backbone.feature_info[-1]["reduction"],
        hidden_size=backbone.num_features,
    )
    tokenizer.image_token = IMAGE_TOKEN
    model, processor = build_llava(tokenizer, config, language.config, CHATML_TEMPLATE)
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.tie_weights()
    model.model.vision_tower.backbone.load_state_dict(backbone.state_dict())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def write_data(args: argparse.Namespace) -> None:
    """train.jsonl and test.jsonl; pictures with one caption stay on one side."""
    rows = json.loads((args.data_dir / "data.json").read_text(encoding="utf-8"))
    captions = sorted({row["caption"] for row in rows})
    random = np.random.default_rng(args.seed)
    held = set(random.permutation(captions)[: len(captions) // 5].tolist())
    learnt = [row for row in rows if row["caption"] not in held]
    words = [row["caption"] for row in learnt]
    write_jsonl(
        args.work_dir / "train.jsonl", (one for row in learnt for one in conversations(args, row, words, random))
    )
    write_jsonl(
        args.work_dir / "test.jsonl",
        (
            {
                "image": str((args.data_dir / row["image_path"]).resolve()),
                "text": row["caption"],
                "reference": row["caption"],
            }
            for row in rows
            if row["caption"] in held
        ),
    )


def conversations(args: argparse.Namespace, row: dict, words: list[str], random: np.random.Generator) -> Iterator[dict]:
    """A description, a yes/no question for the caption and for another, a score; each a conversation of its own, for in
    one the description could be copied from a caption that was called fitting."""
    prompts, caption = PROMPTS["en"], row["caption"]
    others = [one for one in words if one != caption]
    other = others[random.integers(len(others))]
    turns = [(prompts["describe"], caption)]
    turns += [(prompts["yes_no"].replace("{text}", said), answer) for said, answer in ((caption, "Yes"), (other, "No"))]
    said, verdict = (
        (caption, "Score: 9\nAnalysis: The picture shows this.")
        if random.random() < 0.5
        else (other, "Score: 2\nAnalysis: The picture shows something else.")
    )
    turns.append((prompts["score"].replace("{text}", said), verdict))
    for question, answer in turns:
        spoken = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        yield {"image": str((args.data_dir / row["image_path"]).resolve()), "conversations": spoken}


def learn(args: argparse.Namespace, start: Path, adapter: Path) -> None:
    clock = time.perf_counter()
    going_on = ["--resume_from_checkpoint", "true"] if list(adapter.glob("checkpoint-*")) else []
    train.main(
        [
            "--model_id",
            str(start),
            "--data",
            str(args.work_dir / "train.jsonl"),
            "--output_dir",
            str(adapter),
            "--logging_dir",
            str(adapter / "logs"),
            "--lora_rank",
            "16",
            "--lora_alpha",
            "32",
            "--learning_rate",
            "5e-4",
            "--projector_learning_rate",
            "1e-3",
            "--per_device_train_batch_size",
            "16",
            "--num_train_epochs",
            str(args.epochs),
            "--max_steps",
            args.max_steps,
            "--bf16",
            str(args.bf16),
            "--use_cpu",
            str(not torch.cuda.is_available()),
            "--val_split",
            "0",
            "--save_steps",
            "20",
            "--save_total_limit",
            "1",
            "--seed",
            str(args.seed),
            *going_on,
        ]
    )
    write_json(
        args.work_dir / "minutes.json", {"minutes": (time.perf_counter() - clock) / 60, "resumed": bool(going_on)}
    )


def score(args: argparse.Namespace, start: Path, adapter: str) -> dict:
    folder = args.work_dir / ("after" if adapter else "before")
    if not (folder / "summary.json").is_file():
        evaluate.main(
            [
                "--model_id",
                str(start),
                "--adapter",
                adapter,
                "--data",
                str(args.work_dir / "test.jsonl"),
                "--output_dir",
                str(folder),
                "--description_tokens",
                "24",
                "--analysis_tokens",
                "24",
                "--max_attempts",
                "1",
                "--batch_size",
                "16",
                "--limit",
                str(args.limit),
                "--sentence_encoder",
                args.sentence_encoder,
            ]
        )
    return json.loads((folder / "summary.json").read_text())


def report(found: dict[str, dict], minutes: float) -> None:
    print(
        f"\n{found['after']['samples']} held-out pictures, {found['after']['pairs']} pairs, "
        f"{minutes:.1f} minutes of training (of the last start)\n"
    )
    print("| | " + " | ".join(f"AUC {name}" for name in SCORES) + " | " + " | ".join(TEXTS) + " | cosine |")
    print("|---|" + "---|" * (len(SCORES) + len(TEXTS) + 1))
    for when, numbers in found.items():
        quality = [numbers[f"{name}_quality"] for name in SCORES]
        cells = [
            f"{one['auc']:.3f} ({one['interval'][0]:.3f} .. {one['interval'][1]:.3f})"
            if one["auc"] is not None
            else "no score"
            for one in quality
        ]
        cells += [f"{numbers[name]:.1f}" for name in TEXTS]
        cells.append(f"{numbers['cosine']['value']:.3f}" if "cosine" in numbers else "")
        print(f"| {when} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
