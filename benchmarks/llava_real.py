"""Scoring of real drawings by a fine-tuned LLaVA: does a text fit, in styles and of contents that training lacks.

    python benchmarks/llava_real.py --data_dir FOLDER --language_model FOLDER --image_weights FILE --bf16

FOLDER of --data_dir is a grid of drawings with names and keywords (benchmarks/emoji_grid.py); --language_model is a
language model of transformers (SmolLM2-135M-Instruct for one); --image_weights are those of the timm model
--image_tower. What an earlier start has done is not done again, so the script can be stopped at any time.

For each seed, which holds out other styles and contents:
  training part -> a LLaVA whose tower predicts words (llava/build_model.py) -> conversations
  (llava/make_scoring_data.py) -> LoRA (llava/train.py)
  each other part: llava/evaluate.py on names, each image with its own, one of the same group, any other
  clip/train.py on the same images and texts: its cosine for the same pairs (CLIPScore, Hessel et al. 2021)
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.emoji_grid import PARTS, Drawing, split_grid
from benchmarks.llava_real_report import CLIP, report, score_rows
from common.text.files import write_json, write_jsonl
from llava import build_model, evaluate, make_scoring_data, merge_lora, train

TURNS = {"yes_no": 4, "score": 1, "describe": 0}  # fitting texts of an image; as many unfitting ones


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--language_model", required=True)
    parser.add_argument("--image_weights", required=True)
    parser.add_argument("--image_tower", default="tf_efficientnet_lite0")
    parser.add_argument("--language", default="en", choices=("en", "zh"), help="of words, questions and captions")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--word_steps", type=int, default=400, help="of the tower, 32 images each")
    parser.add_argument("--steps", type=int, default=160, help="of LoRA, 4 images of up to 8 questions each")
    parser.add_argument("--clip_epochs", type=int, default=8)
    parser.add_argument("--bf16", action="store_true", help="faster on a CPU that has instructions for it")
    parser.add_argument("--limit", type=int, default=80, help="images of each part; 0: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work_dir", type=Path, default=Path(".cache/llava_real"))
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        folder = args.work_dir / f"seed_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        parts = split_grid(args.data_dir.resolve(), seed)
        write_data(folder, parts, args.language, seed)
        timed(folder, "words", build_start, args, folder, seed)
        timed(folder, "LoRA", fine_tune, args, folder, seed)
        for part in PARTS[1:]:
            timed(folder, part, score, args, folder, part, seed)
        timed(folder, "CLIP", train_clip, args, folder, parts["training"], seed)
        rows += score_rows(folder, seed, args.data_dir, args.language)
    report(rows, args.work_dir)


def timed(folder: Path, stage: str, work: Callable[..., Any], *arguments: Any) -> None:
    """Do a stage unless its minutes are known."""
    path = folder / "minutes.json"
    minutes = json.loads(path.read_text()) if path.is_file() else {}
    if stage not in minutes:
        start = sum(os.times()[:4])  # with that of other processes
        work(*arguments)
        write_json(path, minutes | {stage: (sum(os.times()[:4]) - start) / 60})


def flags(**values: Any) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def write_data(folder: Path, parts: dict[str, list[Drawing]], language: str, seed: int) -> None:
    """Conversations of the training part, {part} pairs.jsonl of each other one."""
    for part, drawings in parts.items():
        path = folder / f"{part}.jsonl"
        write_jsonl(path, ({"image": str(drawing.path), **drawing.fields} for drawing in drawings))
        if part == "training":
            words = [*flags(language=language, turns=8, seed=seed, **TURNS), "--groups", "subgroup", "group"]
            make_scoring_data.main([str(path), str(folder / "scoring.jsonl"), *words])
            continue
        words = ["--groups", "group", "--evaluation", *flags(language=language, seed=seed)]
        make_scoring_data.main([str(path), str(folder / f"{part} pairs.jsonl"), *words])


def build_start(args: argparse.Namespace, folder: Path, seed: int) -> None:
    """The language model, and a tower that predicts words in its embeddings."""
    model = flags(language_model=args.language_model, image_tower=args.image_tower, image_weights=args.image_weights)
    training = flags(image_size=args.image_size, steps=args.word_steps, cache_dir=folder / "cache", seed=seed)
    words = flags(language=args.language)
    build_model.main([str(folder / "training.jsonl"), str(folder / "start"), *model, *training, *words])


def fine_tune(args: argparse.Namespace, folder: Path, seed: int) -> None:
    """LoRA on questions about images, merged."""
    train.main(
        flags(
            model_id=folder / "start",
            data=folder / "scoring.jsonl",
            output_dir=folder / "adapter",
            logging_dir=folder / "logs",
            cache_dir=folder / "cache",
            independent_turns="true",
            lora_rank=32,
            lora_alpha=64,
            lora_dropout=0,
            learning_rate=1e-3,
            projector_learning_rate=1e-7,  # next to none: image tokens should stay words
            per_device_train_batch_size=4,
            max_steps=args.steps,
            bf16=args.bf16,
            use_cpu=not torch.cuda.is_available(),
            val_split=0,
            save_strategy="no",
            seed=seed,
        )
    )
    merged = flags(model_id=folder / "start", adapter=folder / "adapter", output_dir=folder / "scoring")
    merge_lora.main([*merged, *flags(precision="fp32")])


def score(args: argparse.Namespace, folder: Path, part: str, seed: int) -> None:
    evaluate.main(
        flags(
            model_id=folder / "scoring",
            data=folder / f"{part} pairs.jsonl",
            output_dir=folder / part,
            language=args.language,
            description_tokens=1,  # of no use here
            analysis_tokens=5,
            score_temperature=0,
            batch_size=32,
            precision="bf16" if args.bf16 else "auto",
            limit=args.limit,
            seed=seed,
        )
    )


def texts_of(drawing: Drawing, language: str) -> list[str]:
    """Name and keywords, as make_scoring_data reads them."""
    keywords = drawing.fields[f"keywords_{language}"].split("; ")
    return [text for text in (drawing.fields[f"name_{language}"], *keywords) if text]


def train_clip(args: argparse.Namespace, folder: Path, drawings: list[Drawing], seed: int) -> None:
    """On copies of the images, which have to be below the folder of their index."""
    data, rows = folder / "clip", []
    (data / "images").mkdir(parents=True, exist_ok=True)
    for drawing in drawings:
        copy = data / "images" / f"{drawing.style}_{drawing.path.name}"
        copy.write_bytes(drawing.path.read_bytes())
        rows.append({"image_path": f"images/{copy.name}", "caption": texts_of(drawing, args.language)})
    write_json(data / "data.json", rows)
    write_json(data / "settings.json", {})  # in place of clip/config.json
    command = [sys.executable, str(Path(__file__).parents[1] / "clip" / "train.py")]
    # In a process of its own: accelerate keeps one number format for a process.
    subprocess.run(
        command
        + flags(
            config=data / "settings.json",
            data_dir=data,
            val_split=0,
            model_name="small",
            pretrained="none",
            image_tower=args.image_tower,
            image_weights=args.image_weights,
            image_size=args.image_size,
            num_epochs=args.clip_epochs,
            batch_size=64,
            learning_rate=5e-4,
            warmup_steps=20,
            seed=seed,
            device="cpu",
            checkpoint_dir=folder / CLIP.parent,
            results_dir=folder / CLIP.parent,
            log_dir=folder / "logs",
            cache_dir=folder / "cache",
            save_steps=100_000,
        ),
        check=True,
    )


if __name__ == "__main__":
    main()
