"""Cost of the gates, and gain from cached features.

    python benchmarks/blip2_speed.py                         counts at the full opt-2.7b shape, times at a small one
    python benchmarks/blip2_speed.py --shape opt-2.7b        on a GPU: times and memory of the full shape
    python benchmarks/blip2_speed.py --shape opt-2.7b --layers 0.1     real widths, a tenth of the layers

operations   of one training step, part by part, counted on tensors without memory at the published shape
step         a gated training step over the same step of plain BLIP-2 (whose Q-Former is trained)
epoch        a step on cached features over the same step on pixels; batches of both are in memory

Random weights: neither speed nor memory depends on them. Each way runs in a process of its own, in turn.
"""

import argparse
import copy
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.turns import median_of, on_host, peak_memory, run_in_turns
from blip2_gated.backbone import CONFIGS, build_blip2, fit_config, make_tokenizer
from blip2_gated.checkpoint import store_frozen
from blip2_gated.dataset import VqaDataset, VqaSample
from blip2_gated.feature_cache import cache_features
from blip2_gated.model import Blip2OPTGated
from blip2_gated.style_vocabulary import StyleVocabulary
from blip2_gated.training_model import GatedTrainingModel
from common.training.device import disable_malloc_trim

OPT_2_7B: dict[str, Any] = {  # the library's defaults are the published vision tower and Q-Former
    "vision_config": {},
    "qformer_config": {},
    "text_config": {
        "model_type": "opt",
        "vocab_size": 50304,
        "hidden_size": 2560,
        "word_embed_proj_dim": 2560,
        "ffn_dim": 10240,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
}
QUESTION, ANSWER = "In which style is this picture drawn, and by whom?", "Noto"
WEIGHTS = {"main": 1.0, "style_hit": 0.1, "consistency": 0.05, "style_head": 0.1}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="small", choices=("small", "opt-2.7b"))
    parser.add_argument("--layers", type=float, default=1.0, help="share of both towers' layers, for small machines")
    parser.add_argument("--efficientnet", help="default: tf_efficientnet_lite0 for small, else efficientnet_b3")
    parser.add_argument("--gating", default="film", choices=("film", "gate", "kv"))
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", default=["operations", "step", "epoch"], choices=("operations", "step", "epoch")
    )
    args = parser.parse_args(argv)
    args.efficientnet = args.efficientnet or ("tf_efficientnet_lite0" if args.shape == "small" else "efficientnet_b3")
    if "operations" in args.only:
        count_operations(args.gating)
    print(
        f"\n{args.shape}, {args.layers:g} of the layers, {args.efficientnet}, batch {args.batch_size}, "
        f"{torch.get_num_threads()} threads"
    )
    ways = [way for part, way in (("epoch", "kept features"), ("step", "plain")) if part in args.only]
    if ways:
        compare(args, ["gated", *ways])


def count_operations(gating: str) -> None:
    """Multiplications and additions of one sample's step at the published shape; a backward pass costs what is
    counted, which is less where only inputs need a gradient."""
    model = build(OPT_2_7B, 1.0, "efficientnet_b3", gating, "gates", "meta")
    blip2, size = model.blip2, model.image_size
    encoded = model.prompts.encode(QUESTION, ANSWER)
    tokens, words = len(encoded.prompt + encoded.answer), len(encoded.question)

    def on_meta(*shape: int, learns: bool = False) -> torch.Tensor:
        return torch.empty(*shape, device="meta", requires_grad=learns)

    pixels, patches = on_meta(1, 3, size, size), on_meta(1, 257, 1408)
    mask = torch.empty(1, words, dtype=torch.int64, device="meta")

    def gated_qformer() -> None:
        control = model.mapper(model.efficientnet(on_meta(1, 1536)), on_meta(1, words, 2560), mask)
        model.image_tokens(patches, control).sum().backward()

    def language_model() -> None:
        blip2.language_model(inputs_embeds=on_meta(1, tokens, 2560, learns=True)).logits.sum().backward()

    plain = build_blip2_on_meta()

    def plain_qformer() -> None:
        queries = plain.query_tokens
        read = plain.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state
        plain.language_projection(read).sum().backward()

    with torch.no_grad():
        vision = operations(lambda: blip2.vision_model(pixel_values=pixels))
        style = operations(lambda: model.efficientnet.pooled(pixels))
    found = {
        "vision tower": vision,
        "EfficientNet-B3": style,
        "gated Q-Former, mapper": operations(gated_qformer),
        "plain Q-Former, learning": operations(plain_qformer),
        f"OPT, {tokens} tokens": operations(language_model),
    }
    total = sum(parameter.numel() for parameter in model.parameters())
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(
        f"opt-2.7b shape: {total / 1e9:.2f} billion parameters, {learning / 1e6:.1f} million learn "
        f"({learning * 4 / 2**20:.0f} MiB in fp32)"
    )
    print("\n| part of a step | 10^9 operations a sample |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value / 1e9:.1f} |")
    _, _, gated, plain_cost, language = found.values()
    print(
        f"\ngated over plain {(vision + style + gated + language) / (vision + plain_cost + language):.3f}; "
        f"kept features over pixels {(gated + language) / (vision + style + gated + language):.3f}"
    )


def operations(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def build_blip2_on_meta() -> torch.nn.Module:
    with torch.device("meta"):
        plain = build_blip2({**OPT_2_7B, "image_token_index": 50265})
    plain.vision_model.requires_grad_(False)
    plain.language_model.requires_grad_(False)
    return plain


def build(
    config: dict[str, Any], layers: float, efficientnet: str, gating: str | None, trained: str, device: str = "cpu"
) -> Blip2OPTGated:
    """Random weights at a shape; gating None: plain BLIP-2."""
    config = copy.deepcopy(config)
    for part, whole in (("vision_config", 39), ("text_config", 32)):
        count = config[part].get("num_hidden_layers", whole)
        config[part]["num_hidden_layers"] = max(1, round(count * layers))
    vocabulary = config["text_config"]["vocab_size"]
    tokenizer = make_tokenizer([f"Question: {QUESTION} Answer: {ANSWER}\n"] * 3, vocabulary)
    config = fit_config(config, tokenizer)
    config["text_config"]["vocab_size"] = vocabulary  # the published size, whatever this tokenizer uses of it
    styles = StyleVocabulary(tokenizer, ["noto"], [ANSWER])
    style = {"name": efficientnet, "pretrained": False} if gating else None
    gates = {"kind": gating, "per_head": False, "init_scale": 1.0}
    mapper = {"num_tokens": 8, "hidden": 512, "dropout": 0.1}
    with torch.device(device):
        return Blip2OPTGated(build_blip2(config), tokenizer, styles, style, gates, mapper, trained=trained)


class Pictures:
    """Noise in place of an ImageCache: only sizes matter."""

    def __init__(self, count: int, size: int, folder: Path):
        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        self.pixels = {folder / str(index): pixels[index] for index in range(count)}
        for path, noise in self.pixels.items():
            path.write_bytes(noise.tobytes())

    def __getitem__(self, path: Path) -> np.ndarray:
        return self.pixels[path]


def timed(way: str, args: argparse.Namespace) -> dict[str, float]:
    """Seconds a step of training on batches in memory, and the peak of memory in MiB."""
    disable_malloc_trim()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = CONFIGS["small"] if args.shape == "small" else OPT_2_7B
    gating, trained = (None, "qformer") if way == "plain" else (args.gating, "gates")
    model = build(shape, args.layers, args.efficientnet, gating, trained, device.type)
    store_frozen(model, "auto", device)
    model.to(device).train()
    with tempfile.TemporaryDirectory() as folder:
        samples = [
            VqaSample(index, f"{index}", QUESTION, ANSWER, "noto", "style", path=Path(folder, f"{index}"))
            for index in range(2 * args.batch_size)
        ]
        pictures: Any = Pictures(len(samples), model.image_size, Path(folder))
        dataset = VqaDataset(samples, pictures, model.image_size, model.prompts, model.styles)
        if way == "kept features":
            dataset.features = cache_features(
                model, pictures, list(pictures.pixels), folder, device, args.batch_size, quiet=True
            )
        learner = GatedTrainingModel(model, WEIGHTS).to(device)
        optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], 1e-4, fused=True)

        batches = [  # pinned, as loader processes give them; for kept features, the file is read here
            {name: on_host(value) for name, value in dataset.collate([dataset[at] for at in half]).items()}
            for half in (range(args.batch_size), range(args.batch_size, len(samples)))
        ]

        def step(number: int) -> None:
            batch = {name: value.to(device, non_blocking=True) for name, value in batches[number % 2].items()}
            with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
                loss, _ = learner(**batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # waits for a GPU

        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for number in range(2):
            step(number)
        clock = time.perf_counter()
        for number in range(args.steps):
            step(number)
        seconds = (time.perf_counter() - clock) / args.steps
    return {"seconds": seconds, "peak": peak_memory()}


def compare(args: argparse.Namespace, ways: list[str]) -> None:
    """Each way `rounds` times in turn; medians, spread and the ratio to the first way."""
    found = run_in_turns(timed, ways, args.rounds, args)
    gated, _ = median_of(found["gated"], "seconds")
    for way, runs in found.items():
        (seconds, spread), (peak, _) = median_of(runs, "seconds", 3), median_of(runs, "peak")
        print(f"{way:14}{seconds:9.3f} s a step {spread}{seconds / gated:8.3f} x   peak {peak:7.0f} MiB")


if __name__ == "__main__":
    main(sys.argv[1:])
