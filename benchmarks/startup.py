"""Seconds and memory from the start of a training to its first optimizer step, against the number of images.

    python benchmarks/startup.py [--systems style clip clip_table clip_shards] [--amounts 1000 10000 100000 1000000]
                                 [--work_dir /tmp/startup]

A data set of N images is N hard links to 100 drawn pictures. Each row is a process of its own that starts train.py and
ends after its first step, on one device and without loader processes. Its model is tiny, so that what grows with N is
seen. "caches warm" are the kernel's: the folder has just been written. Memory is the peak of the process (VmHWM).
"""

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PICTURES = 100  # different files; ext4 allows 65,000 links to each
STYLES = 1000
FOLDER = 10_000  # images of one folder, samples of one shard
INDEXED = ("vitp", "llava")  # whose second start finds the index of the first
TINY_TRAINER = "--use_cpu true --dataloader_num_workers 0 --save_strategy no --disable_tqdm true".split()
TINY = "--pretrained false --image_size 32 --device cpu --num_workers 0".split()


def write_pictures(folder: Path) -> list[Path]:
    """Photo-like JPEGs of 640 x 480 pixels."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number}.jpg" for number in range(PICTURES)]
    for number, path in enumerate(paths):
        coarse = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def style(data: Path, pictures: list[Path], amount: int) -> list[str]:
    """<style>/<name>.jpg, 1000 styles or a tenth of the images -> flags of train.py"""
    styles = min(STYLES, amount // 10)
    for number in range(styles):
        (data / f"style_{number:04}").mkdir(parents=True)
    for number in range(amount):
        picture = pictures[(number + number // styles) % PICTURES]  # a style has different ones
        os.link(picture, data / f"style_{number % styles:04}" / f"picture_{number:07}.jpg")
    return ["train.py", "--data_dir", str(data), "--model_name", "test_vit", "--drawn_styles", "0", *TINY]


def clip(data: Path, pictures: list[Path], amount: int, index: str = "metadata.jsonl") -> list[str]:
    """Folders of 10,000 images, each with a caption of its own in an index -> flags of clip/train.py"""
    data.mkdir()
    names = [f"{number // FOLDER:05}/{number:08}.jpg" for number in range(amount)]
    captions = (f"a picture of {number % 997} things on day {number} of a long year" for number in range(amount))
    for folder in {name.partition("/")[0] for name in names}:
        (data / folder).mkdir()
    for number, name in enumerate(names):
        os.link(pictures[number % PICTURES], data / name)
    if index == "metadata.jsonl":
        lines = (json.dumps({"file_name": name, "text": text}) + "\n" for name, text in zip(names, captions))
    else:
        lines = (f"{name},{text}\n" for name, text in [("image_path", "caption"), *zip(names, captions)])
    with (data / index).open("w") as file:
        file.writelines(lines)
    return ["clip/train.py", "--data_dir", str(data), "--model_name", "small", *TINY[2:]]


def clip_table(data: Path, pictures: list[Path], amount: int) -> list[str]:
    return clip(data, pictures, amount, "metadata.csv")


def clip_shards(data: Path, pictures: list[Path], amount: int) -> list[str]:
    """Shards of 10,000 samples. The picture is a small one: a million of them take a gigabyte."""
    data.mkdir()
    image = io.BytesIO()
    Image.open(pictures[0]).resize((32, 24)).save(image, "JPEG", quality=50)
    for start in range(0, amount, FOLDER):
        with tarfile.open(data / f"{start // FOLDER:05}.tar", "w") as shard:
            for number in range(start, min(start + FOLDER, amount)):
                caption = f"a picture of {number % 997} things on day {number} of a long year".encode()
                for suffix, content in (("jpg", image.getvalue()), ("txt", caption)):
                    member = tarfile.TarInfo(f"{number:08}.{suffix}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    return ["clip/train.py", "--data_dir", str(data), "--model_name", "small", *TINY[2:]]


def vitp(data: Path, pictures: list[Path], amount: int) -> list[str]:
    """Conversations of one to three turns about a picture each -> flags of vitp/train.py"""
    from vitp.demo import train_tokenizer, write_parts

    (data / "parts").mkdir(parents=True)
    write_parts(data / "parts", train_tokenizer(write_conversations(data, pictures, amount)), 32, layers=1, size=32)
    (data / "meta.json").write_text(json.dumps({"all": {"root": str(data), "annotation": str(data / "talk.jsonl")}}))
    parts = ["--vision_config", str(data / "parts" / "vision.json"), "--llm", str(data / "parts" / "config.json")]
    return ["vitp/train.py", *parts, "--meta_path", str(data / "meta.json"), "--max_dynamic_patch", "1", *TINY_TRAINER]


def llava(data: Path, pictures: list[Path], amount: int) -> list[str]:
    """The same -> flags of llava/train.py"""
    from llava.model import build_llava, build_tokenizer, small_language, small_vision

    data.mkdir()
    tokenizer = build_tokenizer(["USER: ASSISTANT:", *write_conversations(data, pictures, amount)], 400)
    for part in build_llava(tokenizer, small_vision(32, 8, 32, 1), small_language(tokenizer, 32, 1)):
        part.save_pretrained(data / "model")
    words = ["--model_id", str(data / "model"), "--data", str(data / "talk.jsonl"), "--lora_rank", "0", *TINY_TRAINER]
    return ["llava/train.py", *words]


def blip2(data: Path, pictures: list[Path], amount: int) -> list[str]:
    """A question about each picture; validation of a hundred -> flags of blip2_gated/train.py"""
    for start in range(0, amount, FOLDER):
        (data / f"{start // FOLDER:05}").mkdir(parents=True)
    names = [f"{number // FOLDER:05}/{number:08}.jpg" for number in range(amount)]
    for number, name in enumerate(names):
        os.link(pictures[number % PICTURES], data / name)
    for table, rows in (("train.csv", names), ("val.csv", names[:100])):
        lines = (f"{name},What is on day {row}?,{row % 997} things,oil\n" for row, name in enumerate(rows))
        (data / table).write_text("image,question,answer,style\n" + "".join(lines))
    small = "--model.blip2 small --model.train all --model.efficientnet.name tf_efficientnet_lite0"
    small += " --model.efficientnet.weights false --model.efficientnet.image_size 32 --training.warm_start_steps 0"
    return ["blip2_gated/train.py", "--data.root", str(data), *small.split(), "--training.device", "cpu"]


def write_conversations(data: Path, pictures: list[Path], amount: int) -> list[str]:
    """talk.jsonl and folders of 10,000 pictures -> some of the texts"""
    for start in range(0, amount, FOLDER):
        (data / f"{start // FOLDER:05}").mkdir()
    with (data / "talk.jsonl").open("w") as file:
        for number in range(amount):
            name = f"{number // FOLDER:05}/{number:08}.jpg"
            os.link(pictures[number % PICTURES], data / name)
            turns = [
                (f"What is on day {number}, part {turn}?", f"{number % 997} things") for turn in range(number % 3 + 1)
            ]
            talk = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn)]
            file.write(json.dumps({"image": name, "width": 640, "height": 480, "conversations": talk}) + "\n")
    return [text for turn in turns for text in turn]


SYSTEMS: dict[str, Callable[[Path, list[Path], int], list[str]]] = {
    "style": style,
    "clip": clip,
    "clip_table": clip_table,
    "clip_shards": clip_shards,
    "vitp": vitp,
    "llava": llava,
    "blip2": blip2,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--amounts", nargs="+", type=int, default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--work_dir", type=Path, default=Path("/tmp/startup"))
    args = parser.parse_args()
    print(f"{'system':12}{'images':>10}{'first step, s':>15}{'peak, GiB':>12}   slowest before it, s")
    for system in args.systems:
        for amount in args.amounts:
            shutil.rmtree(args.work_dir, ignore_errors=True)
            words = SYSTEMS[system](args.work_dir / "data", write_pictures(args.work_dir / "pictures"), amount)
            for name in (system, f"{system} again")[: 1 + (system in INDEXED)]:
                seconds, peak, slowest = first_step(words, args.work_dir)
                parts = ", ".join(f"{name} {value:.1f}" for name, value in slowest)
                print(f"{name:12}{amount:10,}{seconds:15.1f}{peak:12.2f}   {parts}", flush=True)
    shutil.rmtree(args.work_dir, ignore_errors=True)


def first_step(words: list[str], work_dir: Path) -> tuple[float, float, list[tuple[str, float]]]:
    """Run train.py until its first step -> seconds, peak memory in GiB, the slowest functions of main()."""
    names = {
        "blip2_gated": ("training.checkpoint_dir", "training.log_dir", "data.cache_dir"),
        **dict.fromkeys(INDEXED, ("output_dir", "logging_dir", "cache_dir")),
    }.get(words[0].partition("/")[0], ("checkpoint_dir", "log_dir", "cache_dir"))
    folders = dict(zip(names, ("checkpoints", "logs", "cache")))
    flags = [word for name, folder in folders.items() for word in (f"--{name}", str(work_dir / folder))]
    command = [sys.executable, __file__, "--run", str(work_dir / "result.json"), str(time.time()), *words, *flags]
    with (work_dir / "output.txt").open("w") as output:
        subprocess.run(command, cwd=ROOT, check=True, stdout=output, stderr=subprocess.STDOUT)
    result = json.loads((work_dir / "result.json").read_text())
    return result["seconds"], result["peak"], result["slowest"]


def run(result: Path, started: float, script: str, *flags: str) -> None:
    """In a process of its own: train, and leave after the first step."""
    import importlib

    from common.training.hf_trainer import FaultTolerantTrainer
    from common.training.trainer import Trainer

    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    seconds: dict[str, float] = {"imports": time.time() - started}
    step = Trainer._step

    def first(trainer: Trainer, batches: list) -> None:
        step(trainer, batches)
        finish()

    def finish(*_: object, **__: object) -> None:
        slowest = sorted(seconds.items(), key=lambda item: -item[1])[:4]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        result.write_text(json.dumps({"seconds": time.time() - started, "peak": peak, "slowest": slowest}))
        os._exit(0)

    def timed(name: str, function: Callable) -> Callable:
        def call(*arguments: object, **options: object) -> object:
            start = time.time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.time() - start

        return call

    Trainer._step = first  # type: ignore[assignment, method-assign]
    FaultTolerantTrainer._maybe_log_save_evaluate = finish  # type: ignore[method-assign] # after each step
    main = getattr(module, "train", module.main)
    for name in set(main.__code__.co_names) & set(vars(module)):
        if callable(function := getattr(module, name)) and not isinstance(function, type):
            setattr(module, name, timed(name, function))
    module.main(list(flags))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(Path(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
    else:
        main()
