"""Conversion of annotation files to the JSONL that train.py reads.

    python vitp/json2jsonl.py llava_v1_5_mix.json [data.jsonl] [--root images --meta meta.json]
    python vitp/json2jsonl.py captions.json data.jsonl --prompt "Describe this image." "What do you see?"
    python vitp/json2jsonl.py styles/contents.csv data.jsonl --root styles --meta meta.json

A line of the output is a conversation in InternVL's form. What is read, as JSON, JSONL, CSV or TSV:

conversations   and AniPersonaCaps' metadata.jsonl: common/text/conversations.py
captions        [{"image" or "image_path" or "file_name", "caption" or "text"}], {image: caption}, COCO's {"images",
                "annotations"}: one turn each; of a record with "lang": "zh_CN" the question is Chinese
questions       image, question, answer: those about one image are turns of one conversation, at most --turns
contents.csv    content_id and any of GRID_QUESTIONS, next to drawings STYLE/CONTENT_img.png: a turn for each field and
                for the style

Turns of the last two are shuffled, so that no answer always follows one that gives it away. With --root, records with
missing or unreadable images are skipped, and the others get their width and height, so that training does not have to
open the files. An existing --meta file gets one more entry.
"""

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
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
from common.text.schema import read_checked
from common.text.tables import check_record, read_records
from common.text.values import file_name_of, text_of
from common.training.skip_log import SkipLog, report_skipped, report_trimmed

IMAGE_KEYS, CAPTION_KEYS = ("image", "image_path", "file_name", "images"), ("caption", "captions", "text")
TURN_KEYS = ("conversations", "messages")
PROMPTS = ("Describe this image.", "What do you see?", "Write a caption for this image.")
PROMPTS_ZH = ("请描述这张图片。", "你看到了什么？", "请为这张图片写一句说明。")
GRID_QUESTIONS = {  # column of contents.csv, or the style, which is the folder's name
    "name_en": "What is this?",
    "name_zh": "这是什么？",
    "keywords_en": "Give keywords for this picture.",
    "keywords_zh": "请给出这张图片的关键词。",
    "group": "Which group does it belong to?",
    "style": "In which style is it drawn?",
}
SPEAKERS = ("human", "gpt")


def read_annotations(path: str | Path, turns: int = 8) -> list[tuple[str, Any]]:
    """A file in any of the forms above -> (file and place, record), not yet checked; see read_records.

    turns: at most, of a conversation made of questions.
    """
    records = list(read_records(path))
    columns = next((record.keys() for _, record in records if isinstance(record, dict)), {}.keys())
    if "content_id" in columns and Path(path).suffix.lower() in (".csv", ".tsv"):
        return group_questions(_grid_questions(records, Path(path).parent), turns)
    if {"question", "answer"} <= columns and not {*TURN_KEYS} & columns:
        return group_questions(records, turns)
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


def group_questions(rows: Iterable[tuple[str, Any]], turns: int) -> list[tuple[str, Any]]:
    """Rows with image, question and answer -> conversations about one image each; what is no such row as it is."""
    grouped: dict[str, list[tuple[str, dict]]] = {}
    others = []
    for place, row in rows:
        try:
            check_record(row)
            image = text_of(next((row[key] for key in IMAGE_KEYS if row.get(key)), None), "image")
            if not all(text_of(row.get(name), name).strip() for name in ("question", "answer")):
                raise ValueError("an empty question or answer")
            grouped.setdefault(image, []).append((place, row))
        except ValueError as error:
            others.append((place, error))
    conversations = []
    for image, found in grouped.items():
        random.Random(image).shuffle(found)
        for start in range(0, len(found), turns):
            part = found[start : start + turns]
            texts = [row[name] for _, row in part for name in ("question", "answer")]
            messages = [{"from": SPEAKERS[number % 2], "value": text} for number, text in enumerate(texts)]
            conversations.append((part[0][0], {"image": image, "conversations": messages}))
    return conversations + others


def _grid_questions(records: Sequence[tuple[str, Any]], folder: Path) -> Iterator[tuple[str, Any]]:
    """Rows of contents.csv -> a row with image, question and answer for each drawing and field."""
    drawings: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*/*_img.png")):
        drawings.setdefault(path.name.removesuffix("_img.png"), []).append(path)
    for place, record in records:
        if isinstance(record, ValueError):
            yield place, record
            continue
        found = drawings.get(record["content_id"], [])
        if not found:
            yield place, ValueError(f"no drawing {folder}/*/{record['content_id']}_img.png")
        for path in found:
            fields = record | {"style": path.parent.name.replace("_", " ")}
            for name, question in GRID_QUESTIONS.items():
                if answer := fields.get(name):
                    image = path.relative_to(folder).as_posix()
                    yield place, {"image": image, "question": question, "answer": answer}


def _of_coco(entry: Any, names: dict[str, Any]) -> Any:
    if not isinstance(entry, dict):
        return entry
    name = names.get(str(entry.get("image_id")))
    if name is None:
        return ValueError(f"image_id {str(entry.get('image_id'))[:40]}: not among the images")
    return {"image": name, "caption": entry.get("caption")}


def to_conversation(record: Any, number: int, prompts: Sequence[str] = ()) -> Conversation:
    """A record with turns, with one or several captions, or of AniPersonaCaps. ValueError if it is none of them.

    The prompt is prompts[number % len(prompts)], by default in the record's language; of several captions the first is
    used.
    """
    check_record(record)
    image = next((record[key] for key in IMAGE_KEYS if record.get(key) is not None), None)
    if any(record.get(key) is not None for key in TURN_KEYS):
        has_own = any(record.get(key) is not None for key in ("image", "images"))
        return parse_conversation(record if has_own else record | {"image": image})
    captions = next((record[key] for key in CAPTION_KEYS if record.get(key) is not None), None)
    caption, *others = (captions or [None]) if isinstance(captions, list) else [captions]
    if caption is None and "file_name" in record:
        return parse_conversation(record)
    if image is None or caption is None:
        raise ValueError(f"neither conversations, nor an image ({', '.join(IMAGE_KEYS)}) with a caption")
    prompts = prompts or (PROMPTS_ZH if str(record.get("lang", "")).startswith("zh") else PROMPTS)
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
    input: Path,  # JSON, JSONL, CSV or TSV
    output: Path | None = None,  # the JSONL to write; by default input.jsonl next to the input
    *,
    prompt: list[str] | None = None,  # questions for captions, in turn; otherwise PROMPTS, or PROMPTS_ZH
    turns: PositiveInt = 8,  # at most, of a conversation made of a table's questions
    root: Path | None = None,  # folder of the images: check them and note their sizes
    meta: Path | None = None,  # also write an entry of this meta file, for --meta_path
    max_dynamic_patch: PositiveInt = 12,  # for the meta file
    allowed_share: ClosedUnitInterval = 0.05,  # of unusable records
) -> dict:
    output = output or input.with_suffix(".jsonl")
    refuse_overwriting({"input": input, "output": output, "meta": meta})
    if meta and not root:
        raise ValueError("--meta names the folder of the images too; give --root")
    if root and not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder (--root)")
    entries = read_checked(meta, dict[str, dict[str, Any]]) if meta and meta.exists() else {}
    skip_log, trimmed = SkipLog(limit=allowed_share), dict[str, str]()
    records = convert(read_annotations(input, turns), prompt or (), root, skip_log, trimmed)
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
        write_json(meta, {**entries, output.stem: entry})
    report_skipped(skip_log.skipped, listed="")
    report_trimmed(trimmed)
    print(f"{output}: {len(records)} conversations, {len(trimmed)} of them in part, {len(skip_log.skipped)} skipped")
    return {"output": str(output), "records": len(records), "skipped": skip_log.skipped, "trimmed": trimmed}


if __name__ == "__main__":
    run_script(main)
