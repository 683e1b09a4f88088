"""What --style_encoder adds to a small LLaVA on real drawings: their styles by name, of contents that training lacks.

    python benchmarks/llava_style.py --emoji DIR --pretrained WEIGHTS [--seeds 0 1 2]

Data, style encoder and questions are those of style_vlm.py for the emoji. Tower (ImageNet's), projector and language
model (from scratch) are the same in both arms of llava/train.py, whose answers are generated as in llava/inference.py.
Finished trainings in --work_dir are kept.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.style_vlm import MODEL, add_result, print_table, read_flags, train_encoder
from common.images.io import open_image
from common.models.backbone import create_backbone
from common.text.files import write_jsonl
from dataset import find_samples
from examples.style_vlm import make_turns
from llava import train
from llava.checkpoint import load_image_text_model
from llava.model import build_llava, build_tokenizer, small_language
from llava.prefix_cache import cache_images
from llava.timm_tower import TimmTowerConfig
from llava.tokens import ChatFormatter

ARMS = ("patches and style vector", "patches alone")
BATCH = 32


def main() -> None:
    args = read_flags(__doc__, ["emoji"], ".cache/llava_style")
    for seed in args.seeds:
        folder, weights = train_encoder(args, "emoji", seed)
        samples = [find_samples(folder / part) for part in ("train", "test")]
        turns = [make_turns(some, sorted({sample.style for sample in samples[0]}), seed) for some in samples]
        build_start(args, folder / "start", turns[0], seed)
        write_jsonl(folder / "train.jsonl", (conversation(samples[0], turn) for turn in turns[0]))
        for arm, style_encoder in zip(ARMS, (weights, "")):
            run = partial(fine_tune, args, folder, arm, style_encoder, seed, samples[1], turns[1])
            results = add_result(args.work_dir, f"emoji/{arm}/{seed}", run)
    print_table(results)


def conversation(samples: list, turn: tuple[int, str, str, str]) -> dict:
    number, _, question, answer = turn
    words = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"image": str(samples[number].image.resolve()), "conversations": words}


def build_start(args: argparse.Namespace, folder: Path, turns: list, seed: int) -> None:
    torch.manual_seed(seed)
    backbone = create_backbone(MODEL, args.pretrained)
    tower = TimmTowerConfig(
        architecture=MODEL,
        image_size=args.size,
        patch_size=backbone.feature_info[-1]["reduction"],
        hidden_size=backbone.num_features,
    )
    tokenizer = build_tokenizer((" ".join(turn[2:]) for turn in turns), 1000)
    model, processor = build_llava(tokenizer, tower, small_language(tokenizer, width=192, layers=3))
    model.model.vision_tower.backbone.load_state_dict(backbone.state_dict())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def fine_tune(
    args: argparse.Namespace, folder: Path, arm: str, style_encoder: Path | str, seed: int, samples: list, turns: list
) -> dict[str, float]:
    """-> score of the fine-tuned model on these samples and turns."""
    settings = {"model_id": folder / "start", "data": folder / "train.jsonl", "output_dir": folder / arm}
    settings |= {"logging_dir": folder / "logs", "cache_dir": folder / "cache", "style_encoder": style_encoder}
    settings |= {"system_prompt": "", "lora_rank": 0, "learning_rate": 1e-3, "projector_learning_rate": 0}
    settings |= {"per_device_train_batch_size": BATCH, "max_steps": args.steps, "seed": seed, "val_split": 0}
    settings |= {"save_strategy": "no", "use_cpu": not torch.cuda.is_available()}
    train.main([word for name, value in settings.items() for word in (f"--{name}", str(value))])
    return score(folder / arm, samples, turns)


def score(folder: Path, samples: list, turns: list[tuple[int, str, str, str]]) -> dict[str, float]:
    """-> share of right answers to each kind of question."""
    model, processor = load_image_text_model(str(folder))
    formatter = ChatFormatter(processor, "")
    right: dict[str, list[bool]] = {}
    for start in range(0, len(turns), BATCH):
        batch = turns[start : start + BATCH]
        cache = cache_images(model, formatter, [open_image(samples[number].image) for number, *_ in batch])
        rests = [cache.rest(formatter.prompt(question)) for _, _, question, _ in batch]
        for (_, kind, _, expected), ids in zip(batch, cache.generate(list(range(len(batch))), rests, 16)):
            answer = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
            right.setdefault(kind, []).append(answer == expected)
    return {kind: sum(values) / len(values) for kind, values in right.items()}


if __name__ == "__main__":
    main()
