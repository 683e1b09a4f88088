"""Training of a vision encoder by questions about real pictures, with and without token masking.

    python benchmarks/vitp_real.py --data_dir FOLDER --retrieval_dir FOLDER --language_model FOLDER_OR_GGUF

--data_dir holds the meta.json of conversations about pictures (root, annotation); one in seven of the answers to a
first question is held out, with all texts about its pictures. --retrieval_dir holds by_content/ and by_style/, each
with query and gallery as .txt (paths) and .tsv (path, class): pictures of another source. A small InternViT and a
projector are trained from scratch below a frozen chat model, once for each mode of masking, from equal weights, for
equal steps:

    untrained   as it begins          off     no masking          guide, paper     --TMAug_mode

Finished trainings in --work_dir are kept, so the script can be stopped and started.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from transformers import InternVLVisionConfig

from common.images.io import open_image
from common.metrics.text import text_metrics
from common.text.conversations import parse_conversation
from common.text.files import write_json
from retrieval.compare_encoders import retrieve
from vitp import train
from vitp.compose import build_model
from vitp.inference import VQAPredictor
from vitp.processing import read_tokenizer

HELD_OUT = 7  # one first answer in so many
ARMS = {
    "untrained": ["--TMAug_prob", "0", "--learning_rate", "0", "--max_steps", "1"],
    "off": ["--TMAug_prob", "0"],
    "guide": ["--TMAug_mode", "guide"],
    "paper": ["--TMAug_mode", "paper"],
}
LISTS = ("by_content", "by_style")
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""  # ChatML without a system prompt, which would be a third of these short sequences
SHIFT = 17  # places by which answers are exchanged to see what they owe to their picture


def main() -> None:
    args = read_arguments()
    start = args.work_dir / f"start_{args.seed}"
    write_data(args.data_dir, args.work_dir, args.sources)
    (args.work_dir / "chat.jinja").write_text(TEMPLATE)
    if not (start / "config.json").is_file():
        write_start(args, start)
    for arm in args.arms:
        folder = args.work_dir / f"{arm}_{args.seed}"
        if not (folder / "scores.json").is_file():
            learn_and_measure(args, start, arm, folder)
    report(args)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--retrieval_dir", type=Path, required=True)
    parser.add_argument("--language_model", required=True)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sources", nargs="+", help="entries of meta.json, the first to be tested on; otherwise all")
    parser.add_argument("--limit", type=int, default=0, help="only so many held-out questions; to try it out")
    parser.add_argument("--work_dir", type=Path, default=Path(".cache/vitp_real"))
    return parser.parse_args()


def write_data(data: Path, folder: Path, names: list[str] | None) -> None:
    """train.json, test.json (meta) and their annotations; a picture that is held out is in no training file."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = json.loads((data / "meta.json").read_text(encoding="utf-8"))
    records = {
        name: [json.loads(line) for line in (data / meta[name]["annotation"]).open(encoding="utf-8")]
        for name in names or meta
    }
    first, *_ = records
    answers = sorted({parse_conversation(record).turns[0][1] for record in records[first]})
    chosen = set(np.random.default_rng(0).permutation(answers)[::HELD_OUT].tolist())
    test = [
        one | {"conversations": one["conversations"][:2]}
        for one in records[first]
        if parse_conversation(one).turns[0][1] in chosen
    ]
    held = {(meta[first]["root"], one["image"]) for one in test}
    write_source(folder, "test", {first: (meta[first], test)}, data)
    write_source(
        folder,
        "train",
        {
            name: (meta[name], [one for one in rows if (meta[name]["root"], one["image"]) not in held])
            for name, rows in records.items()
        },
        data,
    )


def write_source(folder: Path, split: str, sources: dict[str, tuple[dict, list[dict]]], data: Path) -> None:
    entries = {}
    for name, (entry, rows) in sources.items():
        file = folder / f"{split}_{name}.jsonl"
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        entries[name] = {
            **entry,
            "root": str((data / entry["root"]).resolve()),
            "annotation": file.name,
            "length": len(rows),
            "max_dynamic_patch": 1,
        }
    write_json(folder / f"{split}.json", entries)


def write_start(args: argparse.Namespace, folder: Path) -> None:
    """The model that all arms begin with."""
    vision = InternVLVisionConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=112,
        patch_size=14,
        attention_bias=True,
        layer_scale_init_value=1.0,
        initializer_range=256**-0.5,
    )
    write_json(args.work_dir / "vision.json", vision.to_dict())
    torch.manual_seed(args.seed)
    model, _ = build_model(str(args.work_dir / "vision.json"), args.language_model)
    model.save_pretrained(folder)
    read_tokenizer(args.language_model).save_pretrained(folder)


def learn_and_measure(args: argparse.Namespace, start: Path, arm: str, folder: Path) -> None:
    clock = time.perf_counter()
    done = train.main(
        [
            "--model_name_or_path",
            str(start),
            "--meta_path",
            str(args.work_dir / "train.json"),
            "--eval_meta_path",
            str(args.work_dir / "test.json"),
            "--output_dir",
            str(folder),
            "--logging_dir",
            str(folder / "logs"),
            "--freeze_llm",
            "--conv_style",
            str(args.work_dir / "chat.jinja"),
            "--max_seq_length",
            "256",
            "--max_dynamic_patch",
            "1",
            "--dataloader_num_workers",
            "1",
            "--seed",
            str(args.seed),
            "--max_steps",
            str(args.steps),
            "--per_device_train_batch_size",
            str(args.batch_size),
            "--per_device_eval_batch_size",
            "16",
            "--learning_rate",
            "1e-3",
            "--warmup_steps",
            "30",
            "--drop_path_rate",
            "0.05",
            "--save_strategy",
            "no",
            "--logging_steps",
            "5",
            *ARMS[arm],
        ]
    )
    logged = [json.loads(line) for path in sorted(folder.glob("logs/*/log.jsonl")) for line in path.open()]
    losses = [entry["train/loss"] for entry in logged if "train/loss" in entry]
    found = {name: retrieval(args, name, folder) for name in LISTS}
    write_json(
        folder / "scores.json",
        {
            "first_loss": float(np.mean(losses[:4])),
            "last_loss": float(np.mean(losses[-4:])),
            "eval_loss": done["eval_loss"],
            "steps": done["steps"],
            **answers(args, folder),
            **found,
            "minutes": (time.perf_counter() - clock) / 60,
        },
    )
    (folder / "model.safetensors").unlink()  # half a gigabyte, most of it the language model as it was


def retrieval(args: argparse.Namespace, name: str, folder: Path) -> dict:
    lists = args.retrieval_dir / name
    sides = [
        ("--image_dir", str(args.retrieval_dir), "--image_list", str(lists / f"{side}.txt"))
        for side in ("query", "gallery")
    ]
    labels = ["--query_labels", str(lists / "query.tsv"), "--gallery_labels", str(lists / "gallery.tsv")]
    return retrieve(folder, *sides, folder / "vit" / name, labels)


def answers(args: argparse.Namespace, folder: Path) -> dict:
    """ROUGE-L of answers about held-out pictures with their references, and with those of other pictures."""
    meta = json.loads((args.work_dir / "test.json").read_text(encoding="utf-8"))
    (source,) = meta.values()
    rows = [json.loads(line) for line in (args.work_dir / source["annotation"]).open(encoding="utf-8")]
    rows = rows[: args.limit or None]
    answerer, said = (
        VQAPredictor(str(folder), torch.device("cpu"), max_tiles=1, conv_style=str(args.work_dir / "chat.jinja")),
        [],
    )
    for first in range(0, len(rows), 16):
        asked = []
        for row in rows[first : first + 16]:
            (question, _), *_ = parse_conversation(row).turns
            asked.append(([open_image(Path(source["root"]) / row["image"])], question))
        said += answerer(asked, max_new_tokens=24)
    truth = [parse_conversation(row).turns[0][1] for row in rows]
    write_json(
        folder / "answers.json",
        [{"image": row["image"], "truth": right, "answer": answer} for row, right, answer in zip(rows, truth, said)],
    )
    others = truth[SHIFT:] + truth[:SHIFT]
    return {
        "questions": len(rows),
        "rougeL": text_metrics(said, [[one] for one in truth])["rougeL"],
        "rougeL_of_others": text_metrics(said, [[one] for one in others])["rougeL"],
    }


def report(args: argparse.Namespace) -> None:
    rows = {arm: json.loads((args.work_dir / f"{arm}_{args.seed}" / "scores.json").read_text()) for arm in args.arms}
    one = next(iter(rows.values()))
    print(
        f"\n{one['questions']} held-out pictures; queries {one['by_content']['queries']} by content, "
        f"{one['by_style']['queries']} by style\n"
    )
    print(
        "| | training loss, first and last steps | held-out loss | ROUGE-L | with others' references | "
        "content: Top-1 | mAP | style: Top-1 | mAP |"
    )
    print("|---|" + "---|" * 8)
    for arm, found in rows.items():
        cells = [
            "" if arm == "untrained" else f"{found['first_loss']:.2f}, {found['last_loss']:.2f}",
            f"{found['eval_loss']:.3f}",
            f"{found['rougeL']:.1f}",
            f"{found['rougeL_of_others']:.1f}",
            *(f"{found[name][measure]:.3f}" for name in LISTS for measure in ("Top-1", "mAP")),
        ]
        print(f"| {arm} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
