"""Other people's annotation files -> the JSONL that train.py reads.

    python vitp/json2jsonl.py llava_v1_5_mix.json data.jsonl [--root images --meta meta.json]
    python vitp/json2jsonl.py captions.json data.jsonl --prompt "Describe this image." "What do you see?"

LLaVA's [{"image", "conversations"}] stays as it is, one record a line. Of captions ([{"image" or "image_path" or
"file_name", "caption" or "text"}], {image: caption}, COCO's {"images", "annotations"}, or JSONL of such) each becomes
one turn. With --root, images that are not there or cannot be read leave their record out, and the others get their
width and height, which spares training from asking the files.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])


from common.cli.errors import run_script
from common.cli.progress_bar import progress_bar
from common.text.conversations import IMAGE, parse_conversation
from common.text.files import write_atomically, write_json
from common.text.json_text import parse_json
from common.training.skip_log import SkipLog
from vitp.dataset import image_size

IMAGE_KEYS, CAPTION_KEYS = ("image", "image_path", "file_name", "images"), ("caption", "captions", "text")
PROMPTS = ("Describe this image.", "What do you see?", "Write a caption for this image.")


def read_records(path: str | Path) -> list[dict]:
    """JSON or JSONL, in any of the forms above -> records, not yet checked."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    text = path.read_bytes()
    try:
        content = parse_json(text)
    except ValueError as error:
        try:
            content = [parse_json(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise ValueError(f"{path}: neither JSON nor JSONL ({error})") from None
    if isinstance(content, dict) and "images" in content and "annotations" in content:
        try:
            names = {image["id"]: image["file_name"] for image in content["images"]}
            annotations = content["annotations"]
            return [{"image": names.get(one["image_id"]), "caption": one.get("caption")} for one in annotations]
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: has 'images' and 'annotations', but not as COCO has ({error})") from None
    if isinstance(content, dict) and "conversations" not in content and "caption" not in content:
        return [{"image": image, "caption": caption} for image, caption in content.items()]
    return content if isinstance(content, list) else [content]


def to_conversation(record: dict, number: int, prompts: Sequence[str]) -> dict:
    """A record of a conversation, or of one caption or several -> one of InternVL's form. ValueError if it is neither.

    The prompt is prompts[number % len(prompts)]; of several captions the first is taken.
    """
    if not isinstance(record, dict):
        raise ValueError("not an object")
    image = next((record[key] for key in IMAGE_KEYS if record.get(key)), None)
    about = {"id": record.get("id", number)} | ({"image": image} if image else {})
    if "conversations" in record:
        made = {**about, "conversations": record["conversations"]}
    else:
        caption = next((record[key] for key in CAPTION_KEYS if record.get(key)), None)
        caption = caption[0] if isinstance(caption, list) and caption else caption
        if not image or not isinstance(caption, str) or not caption.strip():
            raise ValueError(f"neither conversations, nor an image ({', '.join(IMAGE_KEYS)}) with a caption")
        question = f"{IMAGE}\n{prompts[number % len(prompts)]}"
        said = [{"from": "human", "value": question}, {"from": "gpt", "value": caption.strip()}]
        made = {**about, "conversations": said}
    parse_conversation(made)  # raises what would be wrong with it in training
    return made


def convert(records: list[dict], prompts: Sequence[str], root: Path | None, skipped: SkipLog) -> Iterator[dict]:
    for number, record in enumerate(progress_bar(records, desc="converting")):
        try:
            made = to_conversation(record, number, prompts)
            images = parse_conversation(made).images
            sizes = [image_size(root / image) for image in images] if root else []
        except (ValueError, OSError) as error:
            skipped.add(f"record {number}", error, len(records))
            continue
        if len(sizes) == 1:
            made |= dict(zip(("width", "height"), sizes[0]))
        yield made


def main(argv: list[str]) -> dict:
    parser = argparse.ArgumentParser(prog="json2jsonl.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("input", help="JSON or JSONL")
    parser.add_argument("output", help="the JSONL to write")
    parser.add_argument("--prompt", nargs="+", default=PROMPTS, help="questions for captions, in turn")
    parser.add_argument("--root", type=Path, help="folder of the images: check them and note their sizes")
    parser.add_argument("--meta", help="also write this meta file, for --meta_path")
    parser.add_argument("--max_dynamic_patch", type=int, default=12, help="for the meta file")
    parser.add_argument("--allowed_share", type=float, default=0.05, help="of records that cannot be used, 0 to 1")
    args = parser.parse_args(argv)
    if args.meta and not args.root:
        raise ValueError("--meta names the folder of the images too; give --root")
    if args.root and not args.root.is_dir():
        raise FileNotFoundError(f"{args.root}: no such folder (--root)")
    skipped = SkipLog(limit=args.allowed_share)
    records = list(convert(read_records(args.input), args.prompt, args.root, skipped))
    if not records:
        raise ValueError(
            f"{args.input}: no record that can be used; the first: {next(iter(skipped.skipped.values()), '')}"
        )
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(args.output) as file:
        file.writelines((json.dumps(record, ensure_ascii=False) + "\n").encode() for record in records)
    if args.meta:
        entry = {
            "root": str(args.root),
            "annotation": args.output,
            "data_augment": False,
            "repeat_time": 1,
            "length": len(records),
            "max_dynamic_patch": args.max_dynamic_patch,
        }
        write_json(args.meta, {Path(args.output).stem: entry})
    for where, reason in skipped.skipped.items():
        print(f"left out: {where}: {reason}", file=sys.stderr)
    print(
        f"{args.output}: {len(records)} conversations"
        + (f", {len(skipped.skipped)} left out" if skipped.skipped else "")
    )
    return {"output": args.output, "records": len(records), "skipped": skipped.skipped}


if __name__ == "__main__":
    run_script(main)
