"""Retrieval after training with this repository and with open_clip, from the same weights, data and number of epochs.

    python benchmarks/clip_real.py --data_dir FOLDER --image_weights FILE [--text_tower FOLDER] [--epochs 30]

FOLDER holds image-text pairs (clip/pairs.py); a fifth of its images, whose captions are not in training, is held out
and chooses nothing: both models are those of the last epoch. The image tower is a timm model with the weights in FILE.
The peer is `open_clip_train.main` as it is, with its own augmentation, given the same settings; both begin with equal
tensors. Also shown: the start untrained, and chance. The peer's script needs more than open_clip itself:
`pip install open_clip_torch[training]`.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from safetensors.torch import load_file

from clip import config, train
from clip.architectures import load_weights
from clip.checkpoint import load_clip, save_clip
from clip.dataset import Pair, PairDataset, find_pairs, split_pairs
from clip.embed import embed_pairs
from clip.model import CLIPModel
from common.cli.settings import read_settings
from common.images.cache import CACHE_SCALE, ImageCache
from common.metrics.retrieval import chance_recall, rank_both_ways, retrieval_scores, same_words
from common.text.files import write_json

SHOWN = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "rsum", "i2t_median_rank", "t2i_median_rank")
PEER = """
import sys, open_clip
open_clip.add_model_config(sys.argv[1])
from open_clip_train.main import main
main(sys.argv[2:])
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--image_tower", default="tf_efficientnet_lite0")
    parser.add_argument("--image_weights", required=True)
    parser.add_argument(
        "--text_tower", default="", help="a Hugging Face text encoder; default: a small one from scratch"
    )
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work_dir", default="./.cache/clip_real")
    parser.add_argument("--json")
    args = parser.parse_args()
    if subprocess.run([sys.executable, "-c", "import open_clip_train.main"], capture_output=True).returncode:
        raise SystemExit("open_clip's training script does not start here; pip install open_clip_torch[training]")
    folder = Path(args.work_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(args.seed)
    start = CLIPModel(
        "small",
        image_size=args.image_size,
        image_tower=args.image_tower,
        image_weights=args.image_weights,
        text_tower=args.text_tower or None,
    )
    save_clip(folder / "start.pth", start)
    torch.save(start.network.state_dict(), folder / "start.pt")
    fields = read_settings(config, ["--demo"]).text_fields
    pairs, _ = find_pairs(args.data_dir, fields)
    training_pairs, held = split_pairs(pairs, 0.2, args.seed)
    found = {"untrained": (evaluate(start, args, held), 0.0)}
    found["ours"] = train_ours(args, folder, held)
    found["open_clip"] = train_peer(args, folder, start, training_pairs, held)
    report(args, found, len(training_pairs), len(held))


def train_ours(args: argparse.Namespace, folder: Path, held: list[Pair]) -> tuple[dict, float]:
    clock = time.perf_counter()
    train.main(
        [
            "--config",
            str(empty_file(folder)),
            "--model_name",
            str(folder / "start.pth"),
            "--data_dir",
            args.data_dir,
            "--val_split",
            "0.2",
            "--num_epochs",
            str(args.epochs),
            "--batch_size",
            str(args.batch_size),
            "--learning_rate",
            str(args.learning_rate),
            "--warmup_steps",
            "20",
            "--seed",
            str(args.seed),
            "--device",
            "cpu",
            "--checkpoint_dir",
            str(folder / "ours"),
            "--results_dir",
            str(folder / "ours" / "results"),
            "--log_dir",
            str(folder / "logs"),
            "--cache_dir",
            str(folder / "cache"),
            "--save_steps",
            "100000",
        ]
    )
    minutes = (time.perf_counter() - clock) / 60
    model, _ = load_clip(folder / "start.pth")
    weights = load_file(folder / "ours" / "last" / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    return evaluate(model, args, held), minutes


def train_peer(
    args: argparse.Namespace, folder: Path, start: CLIPModel, training_pairs: list[Pair], held: list[Pair]
) -> tuple[dict, float]:
    rows = ["filepath\ttitle", *(f"{pair.image}\t{text}" for pair in training_pairs for text in pair.texts)]
    (folder / "train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    architecture = json.loads(json.dumps(start.config["architecture"]))
    if args.text_tower:
        text = {"hf_model_name": args.text_tower, "hf_tokenizer_name": args.text_tower, "hf_pooler_type": "mean_pooler"}
        architecture["text_cfg"] = {**text, "hf_proj_type": "mlp", "context_length": 77}
    (folder / "peer.json").write_text(json.dumps(architecture))
    clock = time.perf_counter()
    subprocess.run(
        [
            sys.executable,
            "-c",
            PEER,
            str(folder / "peer.json"),
            "--model",
            "peer",
            "--pretrained",
            str(folder / "start.pt"),
            "--train-data",
            str(folder / "train.csv"),
            "--dataset-type",
            "csv",
            "--epochs",
            str(args.epochs),
            "--batch-size",
            str(args.batch_size),
            "--lr",
            str(args.learning_rate),
            "--wd",
            "0.05",
            "--warmup",
            "20",
            "--grad-clip-norm",
            "1",
            "--seed",
            str(args.seed),
            "--device",
            "cpu",
            "--precision",
            "fp32",
            "--workers",
            "0",
            "--image-mean",
            *map(str, start.config["mean"]),
            "--image-std",
            *map(str, start.config["std"]),
            "--logs",
            str(folder / "peer_logs"),
            "--name",
            f"{time.time():.0f}",
            "--save-frequency",
            "100000",
            "--save-most-recent",
        ],
        check=True,
    )
    minutes = (time.perf_counter() - clock) / 60
    newest = max(folder.glob("peer_logs/*/checkpoints/epoch_*.pt"), key=lambda path: path.stat().st_mtime)
    model, _ = load_clip(folder / "start.pth")
    load_weights(model.network, newest)
    return evaluate(model, args, held), minutes


def evaluate(model: CLIPModel, args: argparse.Namespace, held: list[Pair]) -> dict:
    store = ImageCache(round(CACHE_SCALE * model.image_size))
    vectors = embed_pairs(model, PairDataset(held, store, model.preprocess, model.tokenizer), "cpu", quiet=True)
    words = same_words(vectors.texts)
    given = (vectors.image_vectors, vectors.text_vectors, vectors.image_of_text, words)
    rankings = rank_both_ways(*given)
    chance = {
        f"{way}_r{k}": chance_recall(ranking.true_count, ranking.gallery, k)
        for way, ranking in zip(("i2t", "t2i"), rankings)
        for k in (1, 5, 10)
    }
    return {**retrieval_scores(*given), "chance": {**chance, "rsum": sum(chance.values())}}


def empty_file(folder: Path) -> Path:
    """In place of clip/config.json: all settings are those of this command line."""
    path = folder / "settings.json"
    path.write_text("{}")
    return path


def report(args: argparse.Namespace, found: dict, images: int, held: int) -> None:
    chance = found["untrained"][0]["chance"]
    print(f"\n{images} images to train on, {held} held out, {args.epochs} epochs of batches of {args.batch_size}\n")
    print("| | " + " | ".join(name.replace("_", " ") for name in SHOWN) + " | minutes |")
    print("|---|" + "---|" * (len(SHOWN) + 1))
    print("| chance | " + " | ".join(f"{chance[name]:.1f}" if name in chance else "" for name in SHOWN) + " | |")
    for name, (scores, minutes) in found.items():
        print(f"| {name} | " + " | ".join(f"{scores[key]:.1f}" for key in SHOWN) + f" | {minutes:.1f} |")
    if args.json:
        write_json(args.json, {name: {**scores, "minutes": minutes} for name, (scores, minutes) in found.items()})


if __name__ == "__main__":
    main()
