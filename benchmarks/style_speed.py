"""Share of the possible speed that training of the style encoder reaches.

    python benchmarks/style_speed.py [--data_dir data/sample_styles] [--model_name efficientnet_lite0 --image_size 96]

One process, one model, the same batch size; the ways take turns, and the median over the rounds counts:
  fixed batch      the model steps on one batch that is in memory: the ceiling
  cached           train.py as it is: decoded images from the memory map, augmentation, invented styles, workers
  not cached       the same with CACHE_IMAGES false: every image is decoded every time
  plain loop       what one writes in ten lines: PIL, torchvision transforms, as many workers, no cache

Of the invented styles that a run draws once, only --drawn_styles are drawn: they cost a step the same.
"""

import argparse
import json
import statistics
import sys
import time
from itertools import cycle, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.utils.data import DataLoader
from torchvision import transforms

import config
import train
from common.cli.settings import read_settings
from common.images.io import open_image
from common.samples.layouts import create_sample_dataset
from common.training.device import make_accelerator
from dataset import find_samples
from targets import TargetShapes

SAMPLE_DIR = config.DEMO["DATA_DIR"]


class PlainDataset(torch.utils.data.Dataset):
    """The usual ten lines."""

    def __init__(self, samples, size):
        self.samples = samples
        self.styles = sorted({sample.style for sample in samples})
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, scale=(0.4, 1), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        sample = self.samples[index]
        return {
            "image": self.transform(open_image(sample.image)),
            "style_ids": torch.tensor(self.styles.index(sample.style)),
        }


def images_per_second(trainer: train.Trainer, batches, steps: int) -> float:
    """Optimizer steps over `batches` -> images per second; the first two steps are not counted."""
    trainer.model.train()
    seen, start = 0, 0.0
    for step, batch in enumerate(islice(batches, steps + 2)):
        if step == 2:
            start = time.perf_counter()
        trainer._step([batch])
        seen += len(batch["image"]) if step >= 2 else 0
    if trainer.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return seen / (time.perf_counter() - start)


def forever(loader):
    while True:
        loader.batch_sampler.set_position(0)
        yield from loader


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_dir", default=SAMPLE_DIR)
    parser.add_argument("--samples", type=int, default=720, help="to draw, where there is no --data_dir")
    parser.add_argument("--copies", type=int, default=1, help="links to each drawn sample: a larger data set at once")
    parser.add_argument("--drawn_styles", type=int, default=16)
    parser.add_argument("--model_name", default="efficientnet_lite0")
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--batch_size", type=int, default=48)
    parser.add_argument("--num_workers", type=int, default=-1)
    parser.add_argument("--steps", type=int, default=12, help="steps of each way in a round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    if not Path(args.data_dir).is_dir():
        create_sample_dataset(args.data_dir, num_samples=args.samples)
        for path in list(Path(args.data_dir).glob("*/*_img.png")):
            for number in range(1, args.copies):  # enough for epochs of many batches
                path.with_name(f"{number}_{path.name}").hardlink_to(path)

    def trainer(cache: bool) -> train.Trainer:
        settings = read_settings(
            config,
            [
                "--data_dir",
                args.data_dir,
                "--model_name",
                args.model_name,
                "--image_size",
                str(args.image_size),
                "--batch_size",
                str(args.batch_size),
                "--num_workers",
                str(args.num_workers),
                "--pretrained",
                "false",
                "--frozen_maps",
                "0",
                "--drawn_styles",
                str(args.drawn_styles),
                "--cache_images",
                str(cache).lower(),
                "--ignore_targets",
                "embed",
                "pooled",
                "mask",
            ],
        )
        torch.manual_seed(0)
        samples = find_samples(settings.data_dir, settings.ignore_targets)
        encoder = train.build_encoder(settings, TargetShapes())
        train_set, *_ = train.build_datasets(settings, samples, TargetShapes(), args.image_size, accelerator)
        return train.build_trainer(settings, encoder, train_set, accelerator, None)

    accelerator = make_accelerator("auto", "auto")
    cached, fresh = trainer(True), trainer(False)
    plain_set = PlainDataset(cached.loader.dataset.samples, args.image_size)
    workers = cached.loader.num_workers
    plain = DataLoader(
        plain_set,
        args.batch_size,
        shuffle=True,
        drop_last=len(plain_set) > args.batch_size,
        num_workers=workers,
        pin_memory=accelerator.device.type == "cuda",
        persistent_workers=workers > 0,
    )
    one = list(cached.loader)[0]  # a whole epoch, which also fills the cache
    ways = {
        "fixed batch": lambda: images_per_second(cached, cycle([one]), args.steps),
        "cached": lambda: images_per_second(cached, forever(cached.loader), args.steps),
        "not cached": lambda: images_per_second(cached, forever(fresh.loader), args.steps),
        "plain loop": lambda: images_per_second(cached, cycle_loader(plain), args.steps),
    }
    rates = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, measure in ways.items():
            rates[name].append(measure())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(
        f"{args.model_name} at {args.image_size} px, batch {args.batch_size}, {accelerator.device}, "
        f"{torch.get_num_threads()} threads, {cached.loader.num_workers} workers"
    )
    for name, values in rates.items():
        spread = f"{min(values):.1f} .. {max(values):.1f}"
        print(f"{name:14}{medians[name]:8.1f} img/s  ({spread})  {medians[name] / medians['fixed batch']:.3f} of fixed")
    print(json.dumps(rates))


def cycle_loader(loader):
    while True:
        yield from loader


if __name__ == "__main__":
    main(sys.argv[1:])
