"""Training speed and memory of CLIP compared with open_clip's step; the loader alone; the gradient cache.

    python benchmarks/clip_speed.py [--model_name small --image_size 64 --batch_size 64] [--only step loader cache]

Every way runs in a process of its own, so that peak memory is its own; the ways take turns and the median over the
rounds counts. Both sides keep freed memory (common/training/device.py).
  step     one optimizer step on a batch in memory, images and captions of the drawn samples, same start.
           ours: clip/train.py's own trainer. open_clip: its network, ClipLoss, tokenizer and optimizer as
           open_clip_train puts them together; images normalised floats, texts 77 tokens, as its loader gives them.
           no guard: ours without the check for non-finite losses and gradients.
  compiled the same, with the image tower (ours, --compile) or the whole network (open_clip's) compiled
  loader   images/s of one pass without a model: decoded images from the cache; JPEGs decoded each time, with Pillow's
           draft mode and without; open_clip's transform on the same files.
  cache    one step on --large_batch pairs: at once, and as slices of --batch_size (--accum_batches).
"""

import argparse
import platform
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import open_clip
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.turns import median_of, on_host, peak_memory, run_in_turns
from clip import config, train
from clip.dataset import PairDataset, create_sample_dataset, find_pairs
from clip.model import CLIPModel
from common.cli.settings import read_settings
from common.images.cache import CACHE_SCALE, ImageCache, fit_shorter_side
from common.images.io import list_images, open_image
from common.images.transforms import Augmentation, SampleKey
from common.samples.layouts import MANIFEST
from common.training.device import disable_malloc_trim, make_accelerator
from common.training.loader import make_loader
from common.training.samplers import DeterministicBatchSampler

LARGE_JPEG = 1024  # pixels of a side, about what a camera or a download gives


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_name", default="small")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=256, help="pictures to draw; a larger batch repeats them")
    parser.add_argument("--large_batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--only", nargs="+", default=["step", "loader", "cache"], choices=list(COMPARED))
    parser.add_argument("--work_dir", default="./.cache/clip_speed")
    args = parser.parse_args(argv)
    write_samples(Path(args.work_dir), args.samples, "loader" in args.only)
    print(
        f"{args.model_name} at {args.image_size} px, batch {args.batch_size}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"
    )
    for part in args.only:
        ways, unit = COMPARED[part]
        compare(args, ways, 1 if part == "cache" else args.rounds, unit)


def measure(way: str, args: argparse.Namespace) -> dict:
    return WAYS[way](argparse.Namespace(**vars(args), way=way))


def compare(args: argparse.Namespace, ways: list[str], rounds: int, unit: str) -> None:
    """Run each way `rounds` times in turn; print medians, spread and the ratio to the last way, the peer."""
    found = run_in_turns(measure, ways, rounds, args)
    rates = {way: median_of(runs, "rate")[0] for way, runs in found.items()}
    for way, runs in found.items():
        if not rates[way]:
            print(f"{way:18}does not fit into the {runs[0]['peak']:.0f} MiB that are free")
            continue
        (rate, spread), (peak, _) = median_of(runs, "rate", 1), median_of(runs, "peak")
        extra = f"  loss {runs[0]['loss']:.6f}" if "loss" in runs[0] else ""
        print(
            f"{way:18}{rate:9.1f} {unit} {spread}  {rate / (rates[ways[-1]] or rate):6.2f} x  "
            f"peak {peak:6.0f} MiB{extra}"
        )


def write_samples(folder: Path, count: int, large: bool) -> None:
    """large: the pictures as JPEGs of LARGE_JPEG pixels, too."""
    if not (folder / "pairs" / MANIFEST).is_file():
        create_sample_dataset(folder / "pairs", num_samples=count)
    jpegs = folder / "jpegs"
    if large and not jpegs.is_dir():
        jpegs.mkdir()
        for pair in find_pairs(folder / "pairs")[0][:128]:
            image = open_image(pair.image).resize((LARGE_JPEG, LARGE_JPEG), Image.Resampling.BICUBIC)
            image.save(jpegs / f"{Path(pair.image).stem}.jpg", quality=90)


def trainer_of(args: argparse.Namespace, slices: int = 1) -> tuple[train.Trainer, dict]:
    """clip/train.py's trainer, and one batch of the drawn samples, repeated where the batch is larger than they are."""
    settings = read_settings(
        config,
        [
            "--demo",
            "--model_name",
            args.model_name,
            "--pretrained",
            "none",
            "--image_size",
            str(args.image_size),
            "--warmup_steps",
            "0",
            "--batch_size",
            "1",
            "--accum_batches",
            str(slices),
            "--patch_dropout",
            "0",
            "--compile",
            str(args.way.endswith("compiled")).lower(),
        ],
    )
    disable_malloc_trim()
    torch.manual_seed(0)
    model = train.build_model(settings)
    pairs, _ = find_pairs(Path(args.work_dir) / "pairs")
    store = ImageCache(round(CACHE_SCALE * args.image_size))
    data = PairDataset(pairs, store, model.preprocess, model.tokenizer)
    accelerator = make_accelerator("auto", args.precision)
    batches = DeterministicBatchSampler(len(data), settings.batch_size * settings.accum_batches)
    loader = make_loader(data, batches, accelerator.device, 0, data.collate)
    trainer = train.build_trainer(settings, model, loader, accelerator, None)
    count = args.large_batch if args.way.startswith("cache") else args.batch_size
    samples = [data[index] for index in range(min(count, len(data)))]
    batch = data.collate([samples[index % len(samples)] for index in range(count)])
    batch["text_ids"] = torch.arange(count)  # the textbook loss, as the peer's
    return trainer, {name: on_host(value) for name, value in batch.items()}


def step_ours(args: argparse.Namespace) -> dict:
    trainer, batch = trainer_of(args)
    trainer.model.train()
    if args.way == "no guard":
        passed, guard = torch.zeros((), dtype=torch.bool, device=trainer.accelerator.device), trainer.nonfinite_guard
        guard.check, guard.save_buffers = lambda *_: passed, lambda: None
    return timed(lambda: trainer._step([batch])[0]["loss"], args, len(batch["image"]))


def step_open_clip(args: argparse.Namespace) -> dict:
    trainer, batch = trainer_of(args)
    ours: CLIPModel = trainer.unwrapped_model.model
    settings = trainer.schedule
    network = ours.network
    network.output_dict = True
    network.train()
    pairs, _ = find_pairs(Path(args.work_dir) / "pairs")
    texts = open_clip.get_tokenizer("ViT-B-32")([pairs[i % len(pairs)].texts[0] for i in range(args.batch_size)])
    device = trainer.accelerator.device
    image, texts = on_host(((batch["image"] / 255 - ours.mean.cpu()) / ours.std.cpu()).contiguous()), on_host(texts)
    if args.way.endswith("compiled"):
        network.compile()
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    spared = [
        p for name, p in named if p.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name
    ]
    chosen = {id(parameter) for parameter in spared}
    optimizer = torch.optim.AdamW(
        [
            {"params": spared, "weight_decay": 0.0},
            {"params": [p for _, p in named if id(p) not in chosen], "weight_decay": 0.05},
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    loss_of = open_clip.ClipLoss()

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        with trainer.accelerator.autocast():
            loss = loss_of(**network(image.to(device, non_blocking=True), texts.to(device, non_blocking=True)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0, norm_type=2.0)
        optimizer.step()
        with torch.no_grad():
            network.logit_scale.clamp_(0, 4.6052)
        return loss.detach()

    return timed(step, args, args.batch_size)


def timed(step, args: argparse.Namespace, samples: int) -> dict:
    """Three steps to warm up, then --steps; the first step's loss shows that all ways compute the same.

    operations: multiplications and additions of one sample's step, counted before anything is compiled.
    """
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        loss = step().item()
    step().item()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    step().item()
    start = time.perf_counter()
    for _ in range(args.steps):
        last = step()
    last.item()  # waits for a GPU
    rate = samples * args.steps / (time.perf_counter() - start)
    operations = counter.get_total_flops() / samples
    return {"rate": rate, "loss": loss, "peak": peak_memory(), "operations": operations}


def cached_step(slices: bool):
    def way(args: argparse.Namespace) -> dict:
        trainer, batch = trainer_of(args, args.large_batch // args.batch_size if slices else 1)
        trainer.model.train()
        room = limit_memory()
        start = time.perf_counter()
        try:
            loss = trainer._step([batch])[0]["loss"].item()
        except RuntimeError as error:  # torch.OutOfMemoryError of a GPU is one too
            if "memory" not in str(error):
                raise
            return {"rate": 0.0, "peak": room}
        return {"rate": len(batch["image"]) / (time.perf_counter() - start), "loss": loss, "peak": peak_memory()}

    return way


def loader_way(kind: str):
    def way(args: argparse.Namespace) -> dict:
        jpegs, size = list_images(Path(args.work_dir) / "jpegs"), args.image_size
        scaled, augmentation = round(CACHE_SCALE * size), Augmentation()
        transform = open_clip.image_transform(size, is_train=True)
        store = ImageCache(scaled, Path(args.work_dir) / "cache", quiet=True) if kind == "map" else None
        at_least = scaled if kind == "draft" else 0

        def read(index: int) -> torch.Tensor:
            if kind == "open_clip":
                return transform(Image.open(jpegs[index]))
            if store:
                pixels = store[jpegs[index]]
            else:
                pixels = np.asarray(fit_shorter_side(open_image(jpegs[index], at_least=at_least), scaled))
            return torch.tensor(augmentation(pixels, size, SampleKey(0, index))).permute(2, 0, 1)

        for path in jpegs if store else ():
            store[path]
        loader = DataLoader(Calls(read, 4 * len(jpegs), len(jpegs)), args.batch_size)
        start = time.perf_counter()
        for _ in loader:
            pass
        return {"rate": 4 * len(jpegs) / (time.perf_counter() - start), "peak": peak_memory()}

    return way


class Calls(torch.utils.data.Dataset):
    """read(index) as a data set, so that all loaders are the same but for what one sample costs."""

    def __init__(self, read, length: int, files: int):
        self.read, self.length, self.files = read, length, files

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.read(index % self.files)


def limit_memory() -> float:
    """Let this process fail rather than the machine -> MiB that are free; a GPU needs no such care."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] / 2**20
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024 - 2**30
    resource.setrlimit(resource.RLIMIT_DATA, (free, free))
    return free / 2**20


COMPARED = {  # part -> its ways, of which the last is the peer; what the numbers count
    "step": (["step ours", "no guard", "step open_clip"], "samples/s"),
    "compiled": (["ours compiled", "open_clip compiled"], "samples/s"),
    "loader": (["loader kept", "loader draft", "loader no draft", "loader open_clip"], "images/s"),
    "cache": (["cache slices", "cache at once"], "samples/s"),
}
WAYS = {
    "step ours": step_ours,
    "step open_clip": step_open_clip,
    "ours compiled": step_ours,
    "open_clip compiled": step_open_clip,
    "no guard": step_ours,
    "cache slices": cached_step(True),
    "cache at once": cached_step(False),
    "loader kept": loader_way("kept"),
    "loader draft": loader_way("draft"),
    "loader no draft": loader_way("no draft"),
    "loader open_clip": loader_way("open_clip"),
}


if __name__ == "__main__":
    main(sys.argv[1:])
