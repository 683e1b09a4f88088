"""Conversion of annotation files to the JSONL that train.py reads.

    python vitp/json2jsonl.py llava_v1_5_mix.json [data.jsonl] [--root images --meta meta.json]
    python vitp/json2jsonl.py captions.json data.jsonl --prompt "Describe this image." "What do you see?"

Conversations (common/text/conversations.py) are written one record a line. Each caption becomes one turn: of
[{"image" or "image_path" or "file_name", "caption" or "text"}], {image: caption}, COCO's {"images", "annotations"}, or
JSONL of such. With --root, records with missing or unreadable images are skipped, and the others get their width and
height, so that training does not have to open the files.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from common.cli.errors import run_script
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.text.conversations import IMAGE, parse_conversation
from common.text.files import write_json, write_jsonl
from common.text.tables import check_record, read_records
from common.training.skip_log import SkipLog, report_skipped
from vitp.dataset import image_size

IMAGE_KEYS, CAPTION_KEYS = ("image", "image_path", "file_name", "images"), ("caption", "captions", "text")
TURN_KEYS = ("conversations", "messages")
PROMPTS = ("Describe this image.", "What do you see?", "Write a caption for this image.")


def read_annotations(path: str | Path) -> list[Any]:
    """JSON or JSONL in any of the forms above -> records, not yet checked; the ValueError of a line that is no JSON."""
    records = [record for _, record in read_records(path)]
    if len(records) != 1 or not isinstance(records[0], dict):
        return records
    content = records[0]
    if "images" in content and "annotations" in content:
        try:
            names = {image["id"]: image["file_name"] for image in content["images"]}
            return [
                {"image": names.get(annotation["image_id"]), "caption": annotation.get("caption")}
                for annotation in content["annotations"]
            ]
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: has 'images' and 'annotations', but not in COCO's form ({error})") from None
    if not content.keys() & {*TURN_KEYS, *IMAGE_KEYS, *CAPTION_KEYS}:
        return [{"image": image, "caption": caption} for image, caption in content.items()]
    return records


def to_conversation(record: Any, number: int, prompts: Sequence[str]) -> dict:
    """A record with turns, or with one or several captions -> one in InternVL's form. ValueError if it is neither.

    The prompt is prompts[number % len(prompts)]; of several captions the first is taken.
    """
    check_record(record)
    image = next((record[key] for key in IMAGE_KEYS if record.get(key)), None)
    turns = next((record[key] for key in TURN_KEYS if key in record), None)
    if turns is None:
        caption = next((record[key] for key in CAPTION_KEYS if record.get(key)), None)
        caption = caption[0] if isinstance(caption, list) and caption else caption
        if not image or not isinstance(caption, str) or not caption.strip():
            raise ValueError(f"neither conversations, nor an image ({', '.join(IMAGE_KEYS)}) with a caption")
        turns = [
            {"from": "human", "value": f"{IMAGE}\n{prompts[number % len(prompts)]}"},
            {"from": "gpt", "value": caption.strip()},
        ]
    return {"id": record.get("id", number), **({"image": image} if image else {}), "conversations": turns}


def convert(records: list[Any], prompts: Sequence[str], root: Path | None, skip_log: SkipLog) -> list[dict]:
    """-> usable conversations, with width and height where `root` holds their only image"""
    conversations = []
    for number, record in enumerate(progress_bar(records, "converting")):
        try:
            conversation = to_conversation(record, number, prompts)
            images = parse_conversation(conversation).images  # raises what would be wrong with it in training
            sizes = [image_size(root / image) for image in images] if root else []
            conversations.append(conversation | (dict(zip(("width", "height"), sizes[0])) if len(sizes) == 1 else {}))
        except (ValueError, OSError) as error:
            skip_log.add(f"record {number}", error, len(records))
    return conversations


@tool
def main(
    input: Path,  # JSON or JSONL
    output: Path | None = None,  # the JSONL to write; by default input.jsonl beside the input
    *,
    prompt: list[str] = PROMPTS,  # questions for captions, in turn
    root: Path | None = None,  # folder of the images: check them and note their sizes
    meta: Path | None = None,  # also write this meta file, for --meta_path
    max_dynamic_patch: PositiveInt = 12,  # for the meta file
    allowed_share: ClosedUnitInterval = 0.05,  # of unusable records
) -> dict:
    output = output or input.with_suffix(".jsonl")
    if output.resolve() == input.resolve():
        raise ValueError(f"{output}: is the input; name another file to write")
    if meta and not root:
        raise ValueError("--meta names the folder of the images too; give --root")
    if root and not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder (--root)")
    skip_log = SkipLog(limit=allowed_share)
    records = convert(read_annotations(input), prompt, root, skip_log)
    if not records:
        raise ValueError(f"{input}: no usable record; the first: {next(iter(skip_log.skipped.values()), '')}")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(output, records)
    if meta:
        entry = {
            "root": str(root),
            "annotation": str(output),
            "data_augment": False,
            "repeat_time": 1,
            "length": len(records),
            "max_dynamic_patch": max_dynamic_patch,
        }
        write_json(meta, {output.stem: entry})
    report_skipped(skip_log.skipped)
    print(f"{output}: {len(records)} conversations, {len(skip_log.skipped)} skipped")
    return {"output": str(output), "records": len(records), "skipped": skip_log.skipped}


if __name__ == "__main__":
    run_script(main)
