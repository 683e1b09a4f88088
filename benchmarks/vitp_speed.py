"""Speed of ViTP's training step: packing, token masking, and the share of the machine's limit.

    python benchmarks/vitp_speed.py packing [--meta_path META --tokenizer FOLDER]   lengths of your data, or made up
    python benchmarks/vitp_speed.py masking [--tiles 7]
    python benchmarks/vitp_speed.py step --shape 1b --device cuda --bf16 --peak_tflops 989

packing   one pass over the same samples in padded batches of random order, in padded batches of like length
          (--group_by_length), and in packed sequences (--packing): tokens of samples per second, padding not counted
masking   the same batch with no masking, zeroed tokens (guide), dropped ones (paper, repo)
step      samples per second, compared with transformers' own forward, operations as torch counts them, peak memory;
          --peak_tflops shows the share of the limit

A step is forward, backward and AdamW, at random weights. The ways take turns in each round; the median counts.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import InternVLForConditionalGeneration, InternVLVisionConfig, LlamaConfig, Qwen2Config
from transformers.models.internvl.modeling_internvl import InternVLConfig
from transformers.utils import logging

from benchmarks.turns import median_of, peak_memory, run_in_turns, time_in_turns
from common.cli.errors import run_script
from common.images.tiling import IMAGENET_MEAN, IMAGENET_STD, Tiling
from common.text.files import write_json, write_jsonl
from common.training.device import choose_device, disable_malloc_trim
from common.training.length_sampler import LengthGroupedSampler
from vitp.chat_template import ChatTemplate, prepare_tokenizer
from vitp.checkpoint import fit_to_tokenizer
from vitp.dataset import Collator, InstructionDataset
from vitp.demo import train_tokenizer
from vitp.meta_file import read_meta
from vitp.model import VisualInstructionModel
from vitp.packing import PackedDataset
from vitp.processing import read_tokenizer
from vitp.token_masking import build_masking

SHAPES = {
    "toy": (
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
        LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=1024),
    ),
    "small": (
        {
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 224,
            "patch_size": 14,
        },
        LlamaConfig(
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=8,
            num_attention_heads=8,
            vocab_size=8192,
            max_position_embeddings=8192,
        ),
    ),
    "1b": (  # InternViT-300M and Qwen2-0.5B: InternVL2.5-1B
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 448,
            "patch_size": 14,
            "attention_bias": True,
        },
        Qwen2Config(
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            vocab_size=151_674,
            max_position_embeddings=32_768,
            tie_word_embeddings=True,
        ),
    ),
}
TEXT_TOKENS, IMAGE_TOKEN = 96, 7


def main(argv: list[str]) -> None:
    args = read_arguments(argv)
    print(f"{torch.get_num_threads()} threads, {vars(args)}")
    {"packing": packing, "masking": masking, "step": steps}[args.part](args)


def packing(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if not args.meta_path:
            args.meta_path, args.tokenizer = write_conversations(Path(folder), args.samples), folder
        compare_packing(args)


def write_conversations(folder: Path, count: int) -> str:
    """Conversations of one to eight turns about images of one to nine squares -> meta file; and a tokenizer."""
    random, words = np.random.default_rng(0), " ".join(map(str, range(100)))
    records = []
    for number in range(count):
        sides = [int(side) * 224 for side in random.integers(1, 4, 2)]
        Image.new("RGB", sides, (number % 256, 128, 64)).save(folder / f"{number}.png")
        turns = [
            {"from": speaker, "value": words[: 3 * int(random.integers(8, 96))]}
            for _ in range(random.integers(1, 9))
            for speaker in ("human", "gpt")
        ]
        turns[0]["value"] = f"<image>\n{turns[0]['value']}"
        records.append({"id": number, "image": f"{number}.png", "conversations": turns})
    write_jsonl(folder / "conversations.jsonl", records)
    source = {"root": str(folder), "annotation": str(folder / "conversations.jsonl")}
    write_json(folder / "meta.json", {"drawn": source})
    train_tokenizer([words] * 3).save_pretrained(folder)
    return str(folder / "meta.json")


def compare_packing(args: argparse.Namespace) -> None:
    """tokens and samples per second of each way, and the share of places that are filled, as JSON"""
    prepare_device(args)
    tokenizer = read_tokenizer(args.tokenizer)
    prepare_tokenizer(tokenizer, "internvl2_5")
    template = ChatTemplate(tokenizer, "internvl2_5")
    model, optimizer = build(args, tokenizer, template.end_token_id)
    size = model.config.vision_config.image_size[0]
    tiling = Tiling(size, image_tokens(model), max_tiles=args.max_dynamic_patch, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    dataset = InstructionDataset(
        read_meta(args.meta_path), template, tiling, args.max_seq_length, ".cache/conversations"
    )
    dataset.table = dataset.table[torch.randperm(len(dataset))[: args.samples].numpy()]
    lengths, collate = dataset.lengths(), Collator(tokenizer.pad_token_id)
    packed = PackedDataset(dataset)
    # As many sequences in a packed batch as make the places of an average padded one.
    places = args.batch_size * statistics.mean(
        max(lengths[start : start + args.batch_size]) for start in range(0, len(lengths), args.batch_size)
    )
    together = max(1, round(places / args.max_seq_length))
    ways = {  # numbers of samples or packs of each batch, their lengths, and where they are read
        "padded": (cut(range(len(lengths)), args.batch_size), lengths, dataset),
        "like length": (
            cut(list(LengthGroupedSampler(lengths, args.batch_size, 0)), args.batch_size),
            lengths,
            dataset,
        ),
        "packed": (cut(range(len(packed)), together), packed.lengths(), packed),
    }
    tokens = sum(lengths)
    print(
        f"{len(lengths)} samples of {min(lengths)} to {max(lengths)} tokens, {statistics.mean(lengths):.0f} on "
        f"average; batches of {args.batch_size}, packed of {together} x {args.max_seq_length}"
    )
    result = {}
    for name, (batches, sizes, _) in ways.items():
        filled = tokens / sum(len(batch) * max(sizes[one] for one in batch) for batch in batches)
        result[name] = {"filled": filled, "steps": len(batches)}
        print(f"{name:12}{len(batches):5} steps  {filled:6.1%} of places filled")
    if args.rounds:
        read = {
            name: [collate([source[one] for one in batch]) for batch in batches]
            for name, (batches, _, source) in ways.items()
        }
        taken = time_in_turns(
            {name: lambda few=few: run(model, optimizer, few, args) for name, few in read.items()}, args.rounds
        )
        for name, seconds in taken.items():
            result[name] |= {"tokens_per_second": tokens / seconds, "samples_per_second": len(lengths) / seconds}
            print(f"{name:12}{tokens / seconds:8.0f} tokens/s  {taken['padded'] / seconds:5.2f}x")
    print(json.dumps(result))


def masking(args: argparse.Namespace) -> None:
    prepare_device(args)
    model, optimizer = build(args)
    batch = random_batch(args, model)
    names = ("off", "guide", "paper", "repo")

    def once(name: str) -> None:
        model.masking = build_masking(name, None, None, 0) if name != "off" else None
        run(model, optimizer, [batch] * args.steps, args)

    taken = time_in_turns({name: lambda name=name: once(name) for name in names}, args.rounds)
    shown = batch["input_ids"].shape
    print(f"batch of {shown[0]} x {shown[1]} tokens, {args.tiles * image_tokens(model)} of each an image's")
    for name in names:
        print(f"{name:8}{taken[name] / args.steps:8.3f} s per step  {taken['off'] / taken[name]:5.2f}x")
    print(json.dumps({name: taken[name] / args.steps for name in names}))


def step(way: str, args: argparse.Namespace) -> dict[str, float]:
    """ours: as vitp/train.py computes a batch. transformers: by its own forward, with logits of all tokens."""
    prepare_device(args)
    model, optimizer = build(args)
    forward = model if way == "ours" else partial(InternVLForConditionalGeneration.forward, model)
    batch = random_batch(args, model)
    with FlopCounterMode(display=False) as counter:
        run(forward, optimizer, [batch], args)
    run(forward, optimizer, [batch], args)  # the first made the optimizer's state
    start = time.perf_counter()
    run(forward, optimizer, [batch] * args.steps, args)
    seconds = (time.perf_counter() - start) / args.steps
    operations = counter.get_total_flops() / args.batch_size
    return {"rate": args.batch_size / seconds, "operations": operations, "peak": peak_memory()}


def steps(args: argparse.Namespace) -> None:
    found = run_in_turns(step, ("ours", "transformers"), args.rounds, args)
    for way, runs in found.items():
        (rate, spread), (peak, _) = median_of(runs, "rate"), median_of(runs, "peak")
        tera = rate * runs[0]["operations"] / 1e12
        print(
            f"{way:13}{rate:8.2f} samples/s {spread}, {tera:.2f} TFLOP/s, {peak / 1024:.1f} GiB at most"
            + (f", {tera / args.peak_tflops:.1%} of {args.peak_tflops} TFLOP/s" if args.peak_tflops else "")
        )


def prepare_device(args: argparse.Namespace) -> None:
    args.device = choose_device(args.device)
    if args.device.type == "cpu":
        disable_malloc_trim()
    logging.set_verbosity_error()
    torch.manual_seed(0)


def build(args: argparse.Namespace, tokenizer=None, end_token_id: int | None = None):
    """-> model with random weights in training mode, AdamW over all of them"""
    vision, text = SHAPES[args.shape]
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**vision).to_dict(),
        text_config=text.to_dict(),
        downsample_ratio=0.5,
        image_token_id=IMAGE_TOKEN,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    with args.device:  # weights are made where they are used
        model = VisualInstructionModel._from_config(config, attn_implementation="sdpa")
    if tokenizer is not None:
        fit_to_tokenizer(model, tokenizer, end_token_id)
    model.to(args.device).train()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)


def image_tokens(model: VisualInstructionModel) -> int:
    vision = model.config.vision_config
    return (vision.image_size[0] // vision.patch_size[0] // 2) ** 2


def random_batch(args: argparse.Namespace, model: VisualInstructionModel) -> dict[str, torch.Tensor]:
    """Samples of one image of --tiles tiles and TEXT_TOKENS of text, half of them labelled."""
    count, text = args.tiles * image_tokens(model), model.config.text_config
    ids = torch.randint(IMAGE_TOKEN + 1, text.vocab_size, (args.batch_size, count + TEXT_TOKENS))
    ids[:, 8 : 8 + count] = IMAGE_TOKEN
    labels = ids.clone()
    labels[:, : count + TEXT_TOKENS // 2] = -100
    size = model.config.vision_config.image_size[0]
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(args.batch_size * args.tiles, 3, size, size),
    }


def run(forward, optimizer, batches: Iterable[dict[str, torch.Tensor]], args: argparse.Namespace) -> None:
    for batch in batches:
        batch = {name: value.to(args.device) for name, value in batch.items()}
        with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
            loss = forward(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if args.device.type == "cuda":
        torch.cuda.synchronize()


def cut(values: Sequence[int], size: int) -> list[Sequence[int]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("packing", "masking", "step"))
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--meta_path", help="packing: JSON of training data, as train.py takes it")
    parser.add_argument("--tokenizer", help="packing: folder of a tokenizer")
    parser.add_argument("--samples", type=int, default=128, help="packing: drawn from the data")
    parser.add_argument("--max_seq_length", type=int, default=1024, help="packing: tokens of a packed sequence")
    parser.add_argument("--max_dynamic_patch", type=int, default=6, help="packing: most tiles of an image")
    parser.add_argument("--tiles", type=int, default=4, help="masking, step: tiles of each sample's image")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="masking, step: of each round")
    parser.add_argument("--rounds", type=int, default=3, help="0, packing: only count places, nothing is trained")
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    parser.add_argument("--peak_tflops", type=float, help="step: what the device can do at most in this precision")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    if bool(args.meta_path) != bool(args.tokenizer):
        raise ValueError("packing needs both --meta_path and --tokenizer, or neither")
    return args


if __name__ == "__main__":
    run_script(main)
