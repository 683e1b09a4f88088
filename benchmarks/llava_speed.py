"""Speed of a batched two-stage analysis that encodes each image once, compared with one sample after the other.

    python benchmarks/llava_speed.py [--images 32 --batch_size 16 --texts 1] [--shape small | 7b | FOLDER]

Random weights: speed does not depend on them, and no answer ends early, so every way writes the same number of tokens.
  one by one     as usually written: for each pair the file is opened, processed and encoded for the description and
                 again for the score, each by transformers' own `generate`, batch 1; neither expected score nor P(Yes)
  generate       the same at --batch_size, padded on the left
  batch 1        LlavaAnalyzer at batch 1: an image is encoded once and its keys and values are shared; with both extras
  batched        LlavaAnalyzer at --batch_size; with both extras
Every way runs in a process of its own, so that peak memory is its own; ways take turns, the median of rounds counts.
"""

import argparse
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig

from benchmarks.turns import median_of, peak_memory, run_in_turns
from common.images.io import open_image
from common.training.device import choose_device, disable_malloc_trim
from llava.analyzer import LlavaAnalyzer
from llava.checkpoint import LoadedModel, choose_attention, choose_dtype, load_image_text_model
from llava.config import PROMPTS
from llava.model import build_llava, build_tokenizer, small_language, small_vision
from llava.scoring_config import ScoringConfig
from llava.tokens import ChatFormatter

WAYS = ("one by one", "generate", "batch 1", "batched")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape", default="small", help="small (7 M), 7b (LLaVA 1.5's, for a GPU), or a model's folder"
    )
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--texts", type=int, default=1, help="texts scored against each image")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--description_tokens", type=int, default=48)
    parser.add_argument("--analysis_tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS, help="these ways")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--work_dir", type=Path, default=Path(".cache/llava_speed"))
    args = parser.parse_args(argv)
    write_images(args.work_dir, args.images)
    found = run_in_turns(measure, args.only, args.rounds, args)
    print(
        f"{args.shape}, {args.images} images, {args.texts} texts each, batch {args.batch_size}, {args.device}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    slowest, _ = median_of(found[args.only[0]], "pairs")
    for way, runs in found.items():
        (rate, spread), (tokens, _), (peak, _) = (median_of(runs, name) for name in ("pairs", "tokens", "peak"))
        print(
            f"{way:12}{rate:8.2f} pairs/s {spread} {rate / slowest:6.1f} x  {tokens:8.0f} new tokens/s  "
            f"peak {peak:7.0f} MiB"
        )


def write_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number}.jpg"
        if not path.is_file():
            noise = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)


def build(shape: str, device: torch.device) -> LoadedModel:
    dtype = choose_dtype("auto", device)
    if shape not in ("small", "7b"):
        return load_image_text_model(shape, device=str(device))
    tokenizer = build_tokenizer([*PROMPTS["en"].values(), "USER: ASSISTANT: Score: 10"], 600)
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with device:  # the weights are made where they are used
        if shape == "7b":
            vision = CLIPVisionConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=24,
                num_attention_heads=16,
                image_size=336,
                patch_size=14,
            )
            language = LlamaConfig(vocab_size=32064, bos_token_id=1, eos_token_id=2, pad_token_id=0)
        else:
            vision, language = small_vision(224, 14, 192, 6), small_language(tokenizer, 256, 6)
        model, processor = build_llava(tokenizer, vision, language)
    torch.set_default_dtype(torch.float32)
    model = model.to(dtype).eval()
    model.set_attn_implementation(choose_attention("auto", device, dtype))
    return LoadedModel(model, processor)


def measure(way: str, args: argparse.Namespace) -> dict[str, float]:
    disable_malloc_trim()
    device = choose_device(args.device)
    loaded = build(args.shape, device)
    loaded.model.generation_config.eos_token_id = None  # nobody stops early
    paths = [args.work_dir / f"{number}.jpg" for number in range(args.images)]
    pairs = [(path, f"a sheet of coloured noise, number {at}") for path in paths for at in range(args.texts)]
    scoring = ScoringConfig(
        description_tokens=args.description_tokens, analysis_tokens=args.analysis_tokens, max_attempts=1
    )
    batch_size = args.batch_size if way in ("batched", "generate") else 1
    analyzer = LlavaAnalyzer(loaded=loaded, scoring=scoring, batch_size=batch_size)

    def run(some: list) -> int:
        if way in ("one by one", "generate"):
            batches = [some[start : start + batch_size] for start in range(0, len(some), batch_size)]
            return sum(by_generate(loaded, analyzer.formatter, scoring, batch) for batch in batches)
        results = [result for _, result in analyzer.analyze_many(some, quiet=True)]
        return sum(result["tokens"]["description"] / args.texts + result["tokens"]["analysis"] for result in results)

    run(pairs[:batch_size])  # warm
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter()
    tokens = run(pairs)
    seconds = time.perf_counter() - clock
    return {"pairs": len(pairs) / seconds, "tokens": tokens / seconds, "peak": peak_memory()}


@torch.inference_mode()
def by_generate(
    loaded: LoadedModel, formatter: ChatFormatter, scoring: ScoringConfig, pairs: list[tuple[Path, str]]
) -> int:
    """-> new tokens"""
    model, processor = loaded
    processor.tokenizer.padding_side = "left"

    def ask(questions: list[str], most: int, **sampling) -> list[list[int]]:
        images = [open_image(path) for path, _ in pairs]
        prompts = [formatter.prompt(question) for question in questions]
        inputs = processor(images=images, text=prompts, padding=True, return_tensors="pt").to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        written = model.generate(**inputs, max_new_tokens=most, pad_token_id=0, **sampling)
        return written[:, inputs["input_ids"].shape[1] :].tolist()

    described = ask([scoring.prompts["describe"]] * len(pairs), scoring.description_tokens, do_sample=False)
    descriptions = processor.tokenizer.batch_decode(described, skip_special_tokens=True)
    scored = ask(
        [scoring.score_question(text, words) for (_, text), words in zip(pairs, descriptions)],
        scoring.analysis_tokens,
        do_sample=True,
        temperature=0.3,
        top_p=0.9,
    )
    return sum(map(len, described)) + sum(map(len, scored))


if __name__ == "__main__":
    main(sys.argv[1:])
