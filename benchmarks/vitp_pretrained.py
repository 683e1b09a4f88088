"""Further training of a pretrained vision encoder by instructions, compared with labels and with texts.

    python benchmarks/vitp_pretrained.py --data_dir FOLDER --image_weights FILE [--seeds 0 1 2]

--data_dir holds styles/ (the emoji grid of emoji_grid.py), vqa/, captions/ and persona/. A timm tower with the weights
in FILE is trained on the grid's training part, for equal steps of equal size:

    before          as it begins, frozen, while a projector and a small language model are trained from scratch
    off             from there by instructions (vitp/train.py), without token masking
    guide, paper    the same with --TMAug_mode
    supervised      by cross-entropy on content and style
    clip            by the instructions' answers as captions (clip/train.py)

Then it is judged alone, on drawings of three kinds that no arm has seen. Content: the drawings of the same content
among all drawings in seen styles by other publishers. Style: the drawings of the same style among all drawings of
seen contents, without those of the query's own content. --validate splits the training part once more in place of all
this, to choose recipes by. Finished trainings in --work_dir are kept.
"""

import argparse
import itertools
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from emoji_grid import PARTS, Drawing, split_grid
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from timm.data import resolve_model_data_config
from transformers import get_cosine_schedule_with_warmup

from clip import train as clip_train
from common.images.transforms import Augmentation, SampleKey
from common.models.backbone import VisionTower, create_backbone
from common.models.tokenizer import train_tokenizer
from common.text.files import read_json, write_json, write_jsonl
from common.vectors.extractor import Extractor
from retrieval.encoders import BackboneEncoder
from vitp import demo, extract_vit, json2jsonl
from vitp import train as vitp_train

GRID_SOURCES = ("styles/contents.csv", "vqa/train.csv", "vqa/val.csv", "vqa/test.csv")  # of training drawings alone
OTHER_SOURCES = ("captions/data.json", "persona/metadata.jsonl")
MASKING = dict.fromkeys(("before", "off"), "--TMAug_prob 0")
MASKING |= {arm: f"--TMAug_mode {arm}" for arm in ("guide", "paper")}
ARMS = (*MASKING, "supervised", "clip")
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MEASURES = ("Top-1", "mAP")


def main() -> None:
    args = read_arguments()
    rows: dict[str, list[dict]] = {arm: [] for arm in args.arms}
    for seed in args.seeds:
        parts = split_grid(args.data_dir / "styles", seed)
        parts = split_again(parts["training"], seed) if args.validate else parts
        data = args.work_dir / f"data_{seed}"
        if not (data / "meta.json").is_file():
            write_data(args, parts["training"], data)
        for arm in args.arms:
            folder = args.work_dir / f"{arm}_{seed}"
            if not (folder / "scores.json").is_file():
                folder.mkdir(parents=True, exist_ok=True)
                clock = time.process_time()
                train(args, arm, seed, parts["training"], data, folder)
                minutes = (time.process_time() - clock) / 60
                write_json(folder / "scores.json", {"minutes": minutes, **score(args, folder / "tower.pth", parts)})
            rows[arm].append(read_json(folder / "scores.json"))
    report(rows)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--image_weights", type=Path, required=True)
    parser.add_argument("--image_tower", default="tf_efficientnet_lite0")
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=170)
    parser.add_argument("--align_steps", type=int, default=500, help="with the tower frozen")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=2e-3, help="of language model and projector")
    parser.add_argument("--vision_learning_rate", type=float, default=6e-4, help="of the tower beside them")
    parser.add_argument("--supervised_learning_rate", type=float, default=3e-4, help="of the tower below its labels")
    parser.add_argument("--clip_learning_rate", type=float, default=5e-4)
    parser.add_argument("--clip_layer_decay", type=float, default=0.6)
    parser.add_argument("--grid_only", action="store_true", help="without captions/ and persona/")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--work_dir", type=Path, default=Path(".cache/vitp_pretrained"))
    return parser.parse_args()


def publisher(style: str) -> str:
    """Whose drawings share their shapes."""
    return style.partition("_")[0]


def split_again(training: list[Drawing], seed: int) -> dict[str, list[Drawing]]:
    """The parts of a training part: the styles of one publisher, and a fifth of the contents, are unseen."""
    held_out = sorted({publisher(drawing.style) for drawing in training})[-1]
    contents = sorted({drawing.content for drawing in training})
    unseen = set(random.Random(seed).sample(contents, len(contents) // 5))
    parts: dict[str, list[Drawing]] = {part: [] for part in PARTS}
    for drawing in training:
        parts[PARTS[(publisher(drawing.style) == held_out) + 2 * (drawing.content in unseen)]].append(drawing)
    return parts


def write_data(args: argparse.Namespace, training: list[Drawing], folder: Path) -> None:
    """Conversations and meta.json, data.json of their answers as captions, a tokenizer and a language model."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {drawing.path.resolve() for drawing in training}
    entries, texts, captions = {}, [], {}
    for source in GRID_SOURCES + OTHER_SOURCES * (not args.grid_only):
        path = args.data_dir / source
        records = []
        for number, (_, annotation) in enumerate(json2jsonl.read_annotations(path)):
            if path.name == "contents.csv":  # a second language would take most of these few steps
                turns = annotation["conversations"]
                pairs = zip(turns[::2], turns[1::2])
                turns[:] = [turn for pair in pairs if pair[0]["value"].isascii() for turn in pair]
            record = json2jsonl.to_record(json2jsonl.to_conversation(annotation, number), number)
            image = (path.parent / record["image"]).resolve()
            if source in GRID_SOURCES and image not in drawings:
                continue
            records.append(record)
            said = [turn["value"] for turn in record["conversations"]]
            texts += said
            answers = [answer for answer in said[1::2] if answer not in ("yes", "no")]
            captions.setdefault(image.relative_to(args.data_dir.resolve()).as_posix(), []).extend(answers)
        name = source.replace("/", "_").partition(".")[0]
        write_jsonl(folder / f"{name}.jsonl", records)
        entries[name] = {"root": str(path.parent.resolve()), "annotation": f"{name}.jsonl", "max_dynamic_patch": 1}
    tokenizer = train_tokenizer(
        texts, 3000, "<|endoftext|>", "<|endoftext|>", extra_special_tokens=["<|user|>", "<|assistant|>", "<|end|>"]
    )
    demo.write_parts(folder / "llm", tokenizer, width=128, layers=2)
    (folder / "chat.jinja").write_text(TEMPLATE)
    (folder / "clip").mkdir(exist_ok=True)
    for name in ("styles", "captions", "persona"):  # images lie below the file that names them
        (folder / "clip" / name).symlink_to((args.data_dir / name).resolve())
    pairs = [{"image_path": image, "caption": list(dict.fromkeys(found))} for image, found in captions.items()]
    write_json(folder / "clip" / "data.json", pairs)
    write_json(folder / "meta.json", entries)


@contextmanager
def frozen_batch_norm() -> Iterator[None]:
    """As --freeze_batch_norm of vitp/train.py, where a script has no such flag."""
    with patch.object(torch.nn.BatchNorm2d, "train", lambda module, mode=True: torch.nn.Module.train(module, False)):
        yield


def train(args: argparse.Namespace, arm: str, seed: int, training: list[Drawing], data: Path, folder: Path) -> None:
    """Write tower.pth, the state of a timm model."""
    with frozen_batch_norm():
        if arm == "supervised":
            train_supervised(args, seed, training, folder)
        elif arm == "clip":
            train_clip(args, seed, data, folder)
        else:
            train_vitp(args, arm, seed, data, folder)


def train_vitp(args: argparse.Namespace, arm: str, seed: int, data: Path, folder: Path) -> None:
    if arm == "before":
        start = f"--vision_config {args.image_tower}:{args.image_weights} --llm {data}/llm/config.json"
        start += f" --down_sample_ratio 1 --freeze_backbone --max_steps {args.align_steps}"
    else:
        start = f"--model_name_or_path {args.work_dir}/before_{seed}/model --max_steps {args.steps}"
    settings = f"""
        {start} {MASKING[arm]} --seed {seed} --meta_path {data}/meta.json --conv_style {data}/chat.jinja
        --output_dir {folder}/model --logging_dir {folder}/logs --cache_dir {args.work_dir}/conversations
        --force_image_size {args.image_size} --max_dynamic_patch 1 --max_seq_length 256 --dataloader_num_workers 0
        --freeze_batch_norm --drop_path_rate 0 --vision_learning_rate {args.vision_learning_rate}
        --learning_rate {args.learning_rate} --weight_decay 0.05 --warmup_steps 0.1
        --per_device_train_batch_size {args.batch_size} --save_strategy no --logging_steps 10
    """
    vitp_train.main(settings.split())
    extract_vit.main([str(folder / "model"), str(folder / "tower.pth"), "--format", "timm"])


def train_clip(args: argparse.Namespace, seed: int, data: Path, folder: Path) -> None:
    images = len(read_json(data / "clip" / "data.json"))
    (folder / "settings.json").write_text("{}")  # in place of clip/config.json
    settings = f"""
        --config {folder}/settings.json --seed {seed} --data_dir {data}/clip --val_split 0 --model_name small
        --pretrained none --image_tower {args.image_tower} --image_weights {args.image_weights}
        --image_size {args.image_size} --num_epochs {round(args.steps * args.batch_size / images)}
        --batch_size {args.batch_size} --learning_rate {args.clip_learning_rate} --layer_decay {args.clip_layer_decay}
        --warmup_steps {args.steps // 10} --device cpu --checkpoint_dir {folder}/model --results_dir {folder}/results
        --log_dir {folder}/logs --cache_dir {args.work_dir}/images --save_steps 100000
    """
    clip_train.main(settings.split())
    prefix = "model.network.visual.trunk."
    weights = load_file(folder / "model" / "last" / "model.safetensors")
    tower = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    torch.save(tower, folder / "tower.pth")


def train_supervised(args: argparse.Namespace, seed: int, training: list[Drawing], folder: Path) -> None:
    """Cross-entropy on content and style, by a linear layer each; views as in CLIP's training."""
    torch.manual_seed(seed)
    tower = VisionTower(args.image_tower, str(args.image_weights), args.image_size)
    kinds = [sorted({getattr(drawing, kind) for drawing in training}) for kind in ("content", "style")]
    labels = torch.tensor([[names.index(name) for names, name in zip(kinds, (d.content, d.style))] for d in training])
    heads = torch.nn.ModuleList([torch.nn.Linear(tower.pooled_width, len(names)) for names in kinds])
    optimizer = torch.optim.AdamW(
        [
            {"params": tower.parameters(), "lr": args.supervised_learning_rate},
            {"params": heads.parameters(), "lr": 1e-3},
        ],
        weight_decay=0.05,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, args.steps // 10, args.steps)
    pixels = [np.asarray(Image.open(drawing.path).convert("RGB")) for drawing in training]
    augment, order = Augmentation(seed=seed), np.random.default_rng(seed)
    queue: list[int] = []
    for step in range(args.steps):
        while len(queue) < args.batch_size:
            queue += order.permutation(len(training)).tolist()
        batch, queue = queue[: args.batch_size], queue[args.batch_size :]
        views = [augment(pixels[index], args.image_size, SampleKey(step, index)) for index in batch]
        image = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)
        pooled = tower(image).pooled
        loss = sum(F.cross_entropy(head(pooled), labels[batch, kind]) for kind, head in enumerate(heads))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.save(tower.backbone.state_dict(), folder / "tower.pth")


def score(args: argparse.Namespace, weights: Path, parts: dict[str, list[Drawing]]) -> dict:
    """-> {"content, unseen styles": {"Top-1": ..., "mAP": ...}, ...}: vectors as vitp/'s encoders are extracted."""
    backbone = create_backbone(args.image_tower, str(weights))
    statistics = resolve_model_data_config(backbone)
    encoder = BackboneEncoder(backbone.eval(), args.image_size, statistics["mean"], statistics["std"])
    paths = [drawing.path for part in PARTS for drawing in parts[part]]
    vectors = dict(zip(paths, Extractor(encoder, str(weights)).encode(paths)))
    galleries = {
        "content": parts["training"] + parts["unseen contents"],  # in seen styles
        "style": parts["training"] + parts["unseen styles"],  # of seen contents
    }
    result = {}
    for kind, gallery in galleries.items():
        found = np.stack([vectors[drawing.path] for drawing in gallery])
        for part in PARTS[1:]:
            rows = [answer(kind, query, gallery, found @ vectors[query.path]) for query in parts[part]]
            result[f"{kind}, {part}"] = dict(zip(MEASURES, np.mean(rows, 0).tolist())) | {"queries": len(rows)}
    return result


def answer(kind: str, query: Drawing, gallery: list[Drawing], cosines: np.ndarray) -> tuple[float, float]:
    """-> Top-1, average precision"""
    if kind == "content":
        allowed = np.array([publisher(drawing.style) != publisher(query.style) for drawing in gallery])
    else:
        allowed = np.array([drawing.content != query.content for drawing in gallery])
    is_right = np.array([getattr(drawing, kind) == getattr(query, kind) for drawing in gallery])[allowed]
    return float(is_right[cosines[allowed].argmax()]), average_precision_score(is_right, cosines[allowed])


def report(rows: dict[str, list[dict]]) -> None:
    """Percent, means over the seeds; in brackets mean and deviation of the difference from 'before' of each seed."""
    questions = [name for name in next(iter(rows.values()))[0] if name != "minutes"]
    for kind in ("content", "style"):
        names = [name for name in questions if name.startswith(kind)]
        titles = [f"{name.partition(', ')[2]}: Top-1 | mAP" for name in names]
        print(f"\n| {kind} | " + " | ".join(titles) + " | minutes |")
        print("|---|" + "---|" * (2 * len(names) + 1))
        for arm, seeds in rows.items():
            cells = []
            for name, measure in itertools.product(names, MEASURES):
                values = np.array([100 * row[name][measure] for row in seeds])
                gain = values - [100 * row[name][measure] for row in rows.get("before", seeds)]
                spread = f" ({gain.mean():+.1f} ± {gain.std(ddof=len(gain) > 1):.1f})" if gain.any() else ""
                cells.append(f"{values.mean():.1f}{spread}")
            print(f"| {arm} | " + " | ".join(cells) + f" | {np.mean([row['minutes'] for row in seeds]):.1f} |")


if __name__ == "__main__":
    main()
