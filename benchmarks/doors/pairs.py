"""clip.pairs: metadata of every format, with values of any type in any place, and with bytes changed.

Every usable entry comes back with its texts, every other one is skipped and named, and no text appears that is not in
the file.
"""

import csv
import io
import json
import tarfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from benchmarks.doors import mutated, refused
from benchmarks.doors.texts import random_line
from clip.pairs import find_pairs, read_texts

IMAGES = ("a.png", "images/b.png", "images/sub/c.png")
NO_TEXT = (5, 2.5, float("nan"), True, {"a": "b"}, ["a", None], [["a"]], "half \ud83d", "nul \0", 0, False, {})
NO_IMAGE = (
    "none.png",
    "../a.png",
    "/etc/passwd",
    5,
    None,
    ["a.png"],
    {"path": "a.png"},
    "x" * 5000,
    "\0",
    "\udcff.png",
)


def trial(random: Random, folder: Path) -> str:
    _images(folder)
    entries = [_entry(random) for _ in range(random.randint(1, 5))]
    path = folder / random.choice(("data.json", "metadata.jsonl", "pairs.csv", "pairs.tsv", "captions_x.json", "0.tar"))
    write = {".json": _coco if path.stem == "captions_x" else _json, ".jsonl": _json_lines, ".tar": _shard}
    data, entries = write.get(path.suffix, _table)(random, entries, path.suffix)
    is_whole = random.random() < 0.6
    path.write_bytes(data if is_whole else mutated(random, data))
    try:
        pairs, skipped = find_pairs(path)
    except ValueError as error:
        assert not is_whole or not any(texts for _, texts, _ in entries), error
        return refused(error, path)
    assert all(source.startswith(str(path)) and "\n" not in reason for source, reason in skipped.items())
    if is_whole:
        expected: dict[str, list[str]] = {}
        for image, texts, _ in entries:
            if texts:
                expected.setdefault(image, []).extend(text for text in texts if text not in expected.get(image, []))
        found = {pair.key.removeprefix(f"{path}/"): list(pair.texts) for pair in pairs}
        assert found == {key: list(dict.fromkeys(texts)) for key, texts in expected.items()}, (found, expected)
        texts, _, _ = read_texts(path)
        assert set(texts) >= {text for pair in pairs for text in pair.texts}
        assert len(skipped) == sum(not texts for _, texts, _ in entries), skipped
    return "skipped" if skipped else "read"


Entry = tuple[str, list[str], dict[str, Any]]  # name of the image, texts of it ([] = to be skipped), the record


def _entry(random: Random) -> Entry:
    image, texts = random.choice(IMAGES), [_words(random) for _ in range(random.choice((1, 1, 2)))]
    record: dict[str, Any] = {"image_path": image, "caption": texts[0] if len(texts) == 1 else texts}
    if random.random() < 0.3:
        record["image_path"] = random.choice((image.replace("/", "\\"), f"./{image}"))
    if random.random() < 0.2:
        record["caption"], texts = random.choice(NO_TEXT), []
    if random.random() < 0.1:
        record["image_path"], texts = random.choice(NO_IMAGE), []
    return image, texts, record


def _words(random: Random) -> str:
    """A text as a pair holds it: single spaces, none at the ends."""
    return " ".join(f"a{random_line(random)}b".split())


def _json(random: Random, entries: list[Entry], _: str) -> tuple[bytes, list[Entry]]:
    text = json.dumps([record for _, _, record in entries], indent=random.choice((None, 1)))
    return text.encode(random.choice(("utf-8", "utf-8-sig", "utf-16"))), entries


def _json_lines(random: Random, entries: list[Entry], _: str) -> tuple[bytes, list[Entry]]:
    text = "".join(json.dumps(record) + random.choice(("\n", "\r\n", "\r", "\n\n")) for _, _, record in entries)
    return text.encode(random.choice(("utf-8", "utf-8-sig", "utf-16"))), entries


def _table(random: Random, entries: list[Entry], suffix: str) -> tuple[bytes, list[Entry]]:
    """Rows of those entries that a table can hold, under the names of this project or of open_clip."""
    rows = [entry for entry in entries if len(entry[1]) == 1] or [("a.png", ["a b"], _record("a.png", "a b"))]
    names, file = random.choice((("image_path", "caption"), ("filepath", "title"))), io.StringIO()
    writer = csv.writer(file, delimiter=random.choice(",;") if suffix == ".csv" else "\t")
    writer.writerows([names, *([record["image_path"], record["caption"]] for _, _, record in rows)])
    return file.getvalue().encode(random.choice(("utf-8-sig", "utf-16"))), rows


def _coco(random: Random, entries: list[Entry], _: str) -> tuple[bytes, list[Entry]]:
    texts = [(image, text) for image, texts, _ in entries for text in texts] or [("a.png", "a b")]
    images = [{"id": number, "file_name": name, "width": 8} for number, name in enumerate(IMAGES)]
    annotations = [{"id": 1, "image_id": IMAGES.index(image), "caption": text} for image, text in texts]
    content = json.dumps({"info": {}, "images": images, "annotations": annotations})
    return content.encode(), [(image, [text], {}) for image, text in texts]


def _shard(random: Random, entries: list[Entry], _: str) -> tuple[bytes, list[Entry]]:
    """Samples 0.png with 0.txt or 0.json, or with both."""
    file, kept = io.BytesIO(), []
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number, (_, texts, record) in enumerate(entries):
            if not texts and record["image_path"] in NO_IMAGE:
                continue
            lines = "\n".join(texts).encode(random.choice(("utf-8", "utf-8-sig", "utf-16")))
            content = json.dumps({"caption": record["caption"], "key": number, "width": 8}).encode()
            members = {"png": _png(), **random.choice(({"txt": lines}, {"json": content}))}
            for suffix, data in members.items():
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            kept.append((f"{number}.png", texts, record))
    return file.getvalue(), kept


def _record(image: str, text: str) -> dict[str, Any]:
    return {"image_path": image, "caption": text}


def _images(folder: Path) -> None:
    if not (folder / IMAGES[-1]).is_file():
        for name in IMAGES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(_png())


@cache
def _png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()
