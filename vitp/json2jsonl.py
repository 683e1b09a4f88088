"""Conversion of annotation files to the JSONL that train.py reads.

    python vitp/json2jsonl.py llava_v1_5_mix.json [data.jsonl] [--root images --meta meta.json]
    python vitp/json2jsonl.py captions.json data.jsonl --prompt "Describe this image." "What do you see?"

Conversations (common/text/conversations.py) are written one record a line, in InternVL's form. Each caption becomes
one turn: of [{"image" or "image_path" or "file_name", "caption" or "text"}], {image: caption}, COCO's {"images",
"annotations"}, or JSONL of such. With --root, records with missing or unreadable images are skipped, and the others
get their width and height, so that training does not have to open the files.
"""

import sys
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from common.cli.errors import run_script
from common.cli.outputs import refuse_overwriting
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.images.io import image_size
from common.text.conversations import IMAGE, Conversation, parse_conversation
from common.text.files import write_json, write_jsonl
from common.text.tables import check_record, read_records
from common.text.values import file_name_of, text_of
from common.training.skip_log import SkipLog, report_skipped, report_trimmed

IMAGE_KEYS, CAPTION_KEYS = ("image", "image_path", "file_name", "images"), ("caption", "captions", "text")
TURN_KEYS = ("conversations", "messages")
PROMPTS = ("Describe this image.", "What do you see?", "Write a caption for this image.")
SPEAKERS = ("human", "gpt")


def read_annotations(path: str | Path) -> list[tuple[str, Any]]:
    """JSON or JSONL in any of the forms above -> (file and place, record), not yet checked; see read_records."""
    records = list(read_records(path))
    content = records[0][1] if len(records) == 1 else None
    if not isinstance(content, dict):
        return records
    images, annotations = content.get("images"), content.get("annotations")
    if isinstance(images, list) and isinstance(annotations, list):
        names: dict[str, Any] = {}
        for image in (image for image in images if isinstance(image, dict) and image.get("id") is not None):
            if image.get("file_name") != names.setdefault(str(image["id"]), image.get("file_name")):
                raise ValueError(f"{path}: two images have the id {str(image['id'])[:40]}")
        return [(f"{path} annotation {number}", _of_coco(entry, names)) for number, entry in enumerate(annotations)]
    if not content.keys() & {*TURN_KEYS, *IMAGE_KEYS, *CAPTION_KEYS}:
        return [(f"{path} {image!r}", {"image": image, "caption": caption}) for image, caption in content.items()]
    return records


def _of_coco(entry: Any, names: dict[str, Any]) -> Any:
    if not isinstance(entry, dict):
        return entry
    name = names.get(str(entry.get("image_id")))
    if name is None:
        return ValueError(f"image_id {str(entry.get('image_id'))[:40]}: not among the images")
    return {"image": name, "caption": entry.get("caption")}


def to_conversation(record: Any, number: int, prompts: Sequence[str]) -> Conversation:
    """A record with turns, or with one or several captions. ValueError if it is neither.

    The prompt is prompts[number % len(prompts)]; of several captions the first is used.
    """
    check_record(record)
    image = next((record[key] for key in IMAGE_KEYS if record.get(key) is not None), None)
    if any(record.get(key) is not None for key in TURN_KEYS):
        has_own = any(record.get(key) is not None for key in ("image", "images"))
        return parse_conversation(record if has_own else record | {"image": image})
    captions = next((record[key] for key in CAPTION_KEYS if record.get(key) is not None), None)
    caption, *others = (captions or [None]) if isinstance(captions, list) else [captions]
    if image is None or caption is None:
        raise ValueError(f"neither conversations, nor an image ({', '.join(IMAGE_KEYS)}) with a caption")
    question, answer = f"{IMAGE}\n{prompts[number % len(prompts)]}", text_of(caption).strip()
    messages = [{"from": speaker, "value": text} for speaker, text in zip(SPEAKERS, (question, answer))]
    conversation = parse_conversation({"image": image, "conversations": messages})
    return conversation.trimmed_by(f"{len(others)} further captions are not used" if others else "")


def to_record(conversation: Conversation, identity: Any) -> dict[str, Any]:
    """In InternVL's form."""
    turns = [] if conversation.system is None else [{"from": "system", "value": conversation.system}]
    for turn, is_trained in zip_longest(conversation.turns, conversation.is_trained, fillvalue=True):
        turns += [{"from": speaker, "value": text} for speaker, text in zip(SPEAKERS, turn)]
        turns[-1] |= {} if is_trained else {"weight": 0}
    images = list(map(str, conversation.images))
    named = {"image": images[0] if len(images) == 1 else images} if images else {}
    return {"id": identity, **named, "conversations": turns}


def convert(
    records: list[tuple[str, Any]],
    prompts: Sequence[str],
    root: Path | None,
    skip_log: SkipLog,
    trimmed: dict[str, str],
) -> list[dict]:
    """-> usable conversations, with width and height where `root` holds their only image. trimmed: gets {place: reason}
    of those that are used in part."""
    converted = []
    for number, (place, record) in enumerate(progress_bar(records, "converting")):
        try:
            conversation = to_conversation(record, number, prompts)
            sizes = [image_size(root / file_name_of(image, root)) for image in conversation.images] if root else []
        except (ValueError, OSError) as error:
            skip_log.add(place, error, len(records))
            continue
        if conversation.trimmed:
            trimmed[place] = conversation.trimmed
        size = dict(zip(("width", "height"), sizes[0])) if len(sizes) == 1 else {}
        converted.append(to_record(conversation, record.get("id", number)) | size)
    return converted


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
    refuse_overwriting({"input": input, "output": output, "meta": meta})
    if meta and not root:
        raise ValueError("--meta names the folder of the images too; give --root")
    if root and not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder (--root)")
    skip_log, trimmed = SkipLog(limit=allowed_share), dict[str, str]()
    records = convert(read_annotations(input), prompt, root, skip_log, trimmed)
    if not records:
        reason = next(iter(skip_log.skipped.values()), "the file is empty")
        raise ValueError(f"{input}: no usable record; {reason}")
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
    report_skipped(skip_log.skipped, listed="")
    report_trimmed(trimmed)
    print(f"{output}: {len(records)} conversations, {len(trimmed)} of them in part, {len(skip_log.skipped)} skipped")
    return {"output": str(output), "records": len(records), "skipped": skip_log.skipped, "trimmed": trimmed}


if __name__ == "__main__":
    run_script(main)
