"""Scoring of real drawings by a fine-tuned LLaVA: does a text fit, in styles and of contents that training lacks.

    python benchmarks/llava_real.py --data_dir FOLDER --language_model FOLDER --image_weights FILE --bf16

FOLDER of --data_dir is a grid of drawings with names and keywords (benchmarks/emoji_grid.py); --language_model is a
Llama folder of transformers (SmolLM2-135M-Instruct for one); --image_weights are those of the timm model --image_tower,
or, with --tower_weights FOLDER, those of FOLDER/seed_N.pth. The projector between the two starts at random. What an
earlier start has done is not done again, so the script can be stopped at any time.

For each seed, which holds out other styles and contents:
  training part -> tower and projector predict words (llava/word_alignment.py) -> conversations
  (llava/make_scoring_data.py) -> LoRA (llava/train.py), first with words in place of images, then with both
  each other part: llava/evaluate.py on names, each image with its own, one of the same group, any other
  clip/train.py on the same images and texts: its cosine for the same pairs (CLIPScore, Hessel et al. 2021)
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torchvision.transforms import v2
from transformers import AutoModelForCausalLM, AutoTokenizer, ProcessorMixin

from benchmarks.emoji_grid import PARTS, Drawing, split_grid
from benchmarks.llava_real_report import CLIP, report, score_rows
from common.images.io import open_image
from common.models.backbone import create_backbone
from common.text.files import write_json, write_jsonl
from llava import evaluate, make_scoring_data, merge_lora, train
from llava.model import IMAGE_TOKEN, build_llava
from llava.timm_tower import TimmTowerConfig
from llava.word_alignment import align_with_words, project_onto_words

CHATML_TEMPLATE = (  # of SmolLM2, Qwen and InternVL
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LANGUAGES = ("en", "zh")  # of the words that tower and projector predict, and of CLIP's captions
ASKED = "en"  # patches lie among English words, and SmolLM2 was hardly trained on others
TURNS = {"yes_no": 4, "score": 1, "describe": 0}  # fitting texts of an image; as many unfitting ones
FROZEN_BLOCKS = 2  # of a convolutional tower, with its stem, while it predicts words: the slowest, and the most general


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--language_model", required=True)
    parser.add_argument("--image_weights", required=True)
    parser.add_argument("--image_tower", default="tf_efficientnet_lite0")
    parser.add_argument("--tower_weights", type=Path, help="folder of seed_N.pth, in place of --image_weights")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--word_steps", type=int, default=300, help="of tower and projector, 32 images each")
    parser.add_argument("--compare_steps", type=int, default=32, help="of LoRA on words, 4 conversations of 8 turns")
    parser.add_argument("--steps", type=int, default=60, help="of LoRA on images and words, as large")
    parser.add_argument("--clip_epochs", type=int, default=8)
    parser.add_argument("--bf16", action="store_true", help="faster on a CPU that has instructions for it")
    parser.add_argument("--limit", type=int, default=60, help="images of each part; 0: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work_dir", type=Path, default=Path(".cache/llava_real"))
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        folder = args.work_dir / f"seed_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        parts = split_grid(args.data_dir.resolve(), seed)
        write_data(folder, parts, seed)
        timed(folder, "words", build_start, args, folder, parts["training"], seed)
        timed(folder, "LoRA, words", fine_tune, args, folder, seed, "start", "in words", args.compare_steps)
        timed(folder, "LoRA, images", fine_tune, args, folder, seed, "in words", "scoring", args.steps)
        timed(folder, "CLIP", train_clip, args, folder, parts["training"], seed)
        for part in PARTS[1:]:
            timed(folder, part, score, args, folder, part, seed)
        rows += score_rows(folder, seed, args.data_dir)
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


def write_data(folder: Path, parts: dict[str, list[Drawing]], seed: int) -> None:
    """Conversations of the training part, {part} pairs.jsonl of each other one."""
    for part, drawings in parts.items():
        path = folder / f"{part}.jsonl"
        write_jsonl(path, ({"image": str(drawing.path), **drawing.fields} for drawing in drawings))
        if part == "training":
            words = [*flags(language=ASKED, turns=8, seed=seed, **TURNS), "--groups", "subgroup", "group"]
            make_scoring_data.main([str(path), str(folder / "in words.jsonl"), *words, "--in_words"])
            make_scoring_data.main([str(path), str(folder / "on images.jsonl"), *words])
            both = [(folder / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("in words", "on images")]
            (folder / "scoring.jsonl").write_text("".join(both), encoding="utf-8")
            continue
        words = ["--groups", "group", "--evaluation", *flags(language=ASKED, seed=seed)]
        make_scoring_data.main([str(path), str(folder / f"{part} pairs.jsonl"), *words])


def build_start(args: argparse.Namespace, folder: Path, drawings: list[Drawing], seed: int) -> None:
    """The language model, and a tower and a projector that predict words in its embeddings."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(args.language_model, trust_remote_code=False)
    language = AutoModelForCausalLM.from_pretrained(args.language_model, trust_remote_code=False)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    weights = args.tower_weights / f"seed_{seed}.pth" if args.tower_weights else args.image_weights
    backbone = create_backbone(args.image_tower, str(weights))
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
    pretrain(model, processor, drawings, args.word_steps)
    model.save_pretrained(folder / "start")
    processor.save_pretrained(folder / "start")


def pretrain(model: Any, processor: ProcessorMixin, drawings: list[Drawing], steps: int) -> None:
    """By the words of both languages; patches then lie among the English ones, as tokens of Chinese are pieces of
    characters, which say little."""
    pixels = processor.image_processor([open_image(drawing.path) for drawing in drawings], return_tensors="pt")
    pixels = pixels["pixel_values"]  # (N, 3, S, S), normalised
    move = v2.RandomAffine(0, translate=(0.1, 0.1), scale=(0.8, 1.15), fill=float(pixels.max()))  # white
    augment = v2.Compose([v2.RandomHorizontalFlip(), move])

    def tokens(languages: Sequence[str]) -> list[list[int]]:
        """As at the beginning of a text, and behind a space."""
        texts = [[f"{space}{text}" for text in texts_of(one, languages) for space in ("", " ")] for one in drawings]
        return [[token for text in some for token in processor.tokenizer(text)["input_ids"]] for some in texts]

    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    tower.requires_grad_(False)
    for part in (*tower.backbone.blocks[FROZEN_BLOCKS:], tower.backbone.conv_head):
        part.requires_grad_(True)
    trained = [one for one in (*tower.parameters(), *projector.parameters()) if one.requires_grad]

    def views(rows: Iterable[int]) -> torch.Tensor:
        return torch.stack([augment(pixels[row]) for row in rows])

    align_with_words(model, views, tokens(LANGUAGES), trained, steps, learning_rate=1e-3)
    english = {token for some in tokens(["en"]) for token in some}
    project_onto_words(model, pixels[::10], english)


def texts_of(drawing: Drawing, languages: Sequence[str]) -> list[str]:
    """Names and keywords, as make_scoring_data reads them."""
    names = [drawing.fields[f"name_{language}"] for language in languages]
    keywords = [text for language in languages for text in drawing.fields[f"keywords_{language}"].split("; ") if text]
    return list(dict.fromkeys(names + keywords))


def fine_tune(args: argparse.Namespace, folder: Path, seed: int, model: str, data: str, steps: int) -> None:
    """LoRA of a model in `folder` on its {data}.jsonl, merged to a model {data}."""
    train.main(
        flags(
            model_id=folder / model,
            data=folder / f"{data}.jsonl",
            output_dir=folder / f"{data} adapter",
            logging_dir=folder / "logs",
            cache_dir=folder / "cache",
            independent_turns="true",
            lora_rank=32,
            lora_alpha=64,
            lora_dropout=0,
            learning_rate=1e-3,
            projector_learning_rate=1e-7,  # next to none: the words that patches stand for should stay
            per_device_train_batch_size=4,
            max_steps=steps,
            bf16=args.bf16,
            use_cpu=not torch.cuda.is_available(),
            val_split=0,
            save_strategy="no",
            seed=seed,
        )
    )
    merged = flags(model_id=folder / model, adapter=folder / f"{data} adapter", output_dir=folder / data)
    merge_lora.main([*merged, *flags(precision="fp32")])


def score(args: argparse.Namespace, folder: Path, part: str, seed: int) -> None:
    evaluate.main(
        flags(
            model_id=folder / "scoring",
            data=folder / f"{part} pairs.jsonl",
            output_dir=folder / part,
            language=ASKED,
            description_tokens=1,  # of no use here
            analysis_tokens=5,
            score_temperature=0,
            batch_size=32,
            precision="bf16" if args.bf16 else "auto",
            limit=args.limit,
            seed=seed,
        )
    )


def train_clip(args: argparse.Namespace, folder: Path, drawings: list[Drawing], seed: int) -> None:
    """On copies of the images, which have to be below the folder of their index."""
    data, rows = folder / "clip", []
    (data / "images").mkdir(parents=True, exist_ok=True)
    for drawing in drawings:
        copy = data / "images" / f"{drawing.style}_{drawing.path.name}"
        copy.write_bytes(drawing.path.read_bytes())
        rows.append({"image_path": f"images/{copy.name}", "caption": texts_of(drawing, LANGUAGES)})
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
