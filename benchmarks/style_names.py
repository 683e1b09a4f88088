"""Are styles that training has not seen found by their descriptions?

    python benchmarks/style_names.py --pretrained WEIGHTS [--described FILE.json] [--seeds 0 1 2]

Invented styles (common/samples/invented.py) are drawn into a folder, each with its description in words
(invented_words.py) as style.txt; prepare_targets.py encodes the words, train.py trains on them. Other invented styles,
of makers that training has not seen, are then ranked by their descriptions: for each image, the right one among all.
--described names folders of real images and a description of each; they are ranked among themselves. Finished runs in
--work_dir are not trained again.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import prepare_targets
import train
from common.samples.invented import draw_bank, invented_style, style_seed
from common.samples.invented_words import describe
from common.text.files import read_json, write_json
from style_encoder import encode_folder, load_encoder
from style_names import encode_names, name_similarity

CPU = torch.device("cpu")
HELD_OUT_BANK = 77  # another seed than that of training: other makers


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained", required=True, help="weights of tf_efficientnet_lite0, ImageNet's")
    parser.add_argument("--text_encoder", default="hash", help="as in prepare_targets.py")
    parser.add_argument("--described", type=Path, help="JSON: {folder of images: description of its style}")
    parser.add_argument("--styles", type=int, default=256)
    parser.add_argument("--held_out", type=int, default=64)
    parser.add_argument("--images", type=int, default=16, help="of each style")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work_dir", type=Path, default=Path(".cache/style_names"))
    args = parser.parse_args()
    data, held_out = args.work_dir / "train", args.work_dir / "held_out"
    write_styles(data, args.styles, args, 0)
    write_styles(held_out, args.held_out, args, HELD_OUT_BANK)
    prepare_targets.main(["--data_dir", str(data), "--text_encoder", args.text_encoder, "--max_length", "32"])
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in args.seeds:
        encoder, content = load_encoder(train_encoder(args, data, seed), CPU)
        groups = {"invented styles": {folder: read(folder) for folder in sorted(held_out.iterdir())}}
        if args.described:
            groups["real styles"] = {Path(folder): text for folder, text in read_json(args.described).items()}
        for name, texts in groups.items():
            rows.setdefault(name, []).append(scores(texts, encoder, content))
    for name, results in rows.items():
        print(f"\n{name}, mean and standard deviation of {len(results)} seeds")
        for measure in results[0]:
            values = np.array([result[measure] for result in results])
            print(f"| {measure} | {values.mean():.3f} | {values.std(ddof=len(values) > 1):.3f} |")
    write_json(args.work_dir / "scores.json", rows)


def write_styles(folder: Path, styles: int, args: argparse.Namespace, seed: int) -> None:
    if folder.exists():
        return
    bank = draw_bank(styles, args.images, args.size, seed)
    for number, pictures in enumerate(bank):
        place = folder / f"style_{number:03}"
        place.mkdir(parents=True)
        (place / "style.txt").write_text(describe(invented_style(style_seed(seed, number))) + "\n")
        for content, picture in enumerate(pictures):
            Image.fromarray(picture).save(place / f"{number:03}_{content:02}_img.png")


def read(folder: Path) -> str:
    return (folder / "style.txt").read_text().strip()


def train_encoder(args: argparse.Namespace, data: Path, seed: int) -> Path:
    folder = args.work_dir / f"seed_{seed}"
    weights = folder / "checkpoints" / f"model_epoch_{args.epochs}.pth"
    if not weights.exists():
        settings = {"data_dir": data, "checkpoint_dir": folder / "checkpoints", "log_dir": folder / "logs"}
        settings |= {"cache_dir": args.work_dir / "cache", "pretrained": args.pretrained, "seed": seed}
        settings |= {"model_name": "tf_efficientnet_lite0", "image_size": args.size, "epochs": args.epochs}
        settings |= {"batch_size": 48, "learning_rate": 1e-3, "backbone_lr_scale": 0.3, "drawn_styles": 0}
        started = time.time()
        train.main([f"--{name}={value}" for name, value in settings.items()])
        print(f"seed {seed}: trained in {(time.time() - started) / 60:.1f} minutes")
    return weights


def scores(texts: dict[Path, str], encoder, content: dict) -> dict[str, float]:
    """Share of images whose description is the first, or among the first five, of all different ones; and for each word
    that some of the descriptions hold, the AUC of its own similarity between images with and without it, as a mean."""
    names = list(dict.fromkeys(texts.values()))
    vectors, truth = [], []
    for folder, text in texts.items():
        pooled = encode_folder(folder, encoder, CPU, "pooled")[1]
        vectors.append(pooled)
        truth += [names.index(text)] * len(pooled)
    images, answers = torch.cat(vectors), torch.tensor(truth)
    knowledge = content["texts"]
    cosines = name_similarity(images, encode_names(names, knowledge, CPU), knowledge)
    ranks = (cosines > cosines.gather(1, answers[:, None])).sum(1)
    words = sorted({word for name in names for word in name.split(", ")})
    holds = np.array([[word in names[answer].split(", ") for word in words] for answer in truth])
    single = name_similarity(images, encode_names(words, knowledge, CPU), knowledge).numpy()
    told_apart = [index for index in range(len(words)) if 0 < holds[:, index].sum() < len(truth)]
    return {
        "descriptions": len(names),
        "first of all": float((ranks == 0).float().mean()),
        "chance of it": 1 / len(names),
        "among five": float((ranks < 5).float().mean()),
        "AUC of a word": float(np.mean([roc_auc_score(holds[:, i], single[:, i]) for i in told_apart])),
    }


if __name__ == "__main__":
    main()
