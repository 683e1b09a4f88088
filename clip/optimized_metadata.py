"""What of a character's wiki text can be matched with a picture?

    python clip/optimized_metadata.py [--metadata metadata.jsonl] [--output optimized_metadata.jsonl]

metadata.jsonl: file_name, title, character, appearance, personality, url  (AniPersonaCaps; texts with wiki markup)
    -> persona/text.py      markup and reference marks out; words, by the lists of persona/words.py
    -> persona/denial.py    what is denied, or said of somebody else, is marked
    -> persona/looks.py     hair, eyes, clothes, ... by which word describes which noun (persona/rows.py)
       persona/person.py    age, sex, build, and the temper
    -> persona/sentence.py  one sentence that fits the text encoder
    -> optimized_metadata.jsonl, one JSON a line:

    id           the name of the file without folder and suffix; where two lines share that stem, the whole file_name;
                 where they share the file too, with "#<line number>" behind it
    file_name    as it was; character, title: without markup
    hair         {"colour": [...], "length": [...], "style": [...]}
    eyes         {"colour": [...], "style": [...]}
    appearance   {"sex", "age", "build", "skin", "clothing", "accessories", "features", "weapons", "expression": [...]}
    personality  [trait, ...], from the field of that name; all else comes from the field `appearance`
    text         a sentence of these within --max_tokens; where nothing was found, the beginning of `appearance`

Every key is always there and every list may be empty. Values are words of the text, lower case, in the text's order:
of a character that changes, the first-named look comes first. Three forms are made: "waist-length" of hair that
reaches the waist, "kind" of "her kindness", and "white dress" of "her dress is white". Nothing is guessed, such as a
sex from "she". Limits: only words on the lists are found, and only what grammar denies ("no", "unlike", "her sister
has") is left out; a sword that the text merely speaks of is a sword.

The file is read line by line, twice: once for broken lines and names (24 bytes of memory a line), once to write.
"""

import argparse
import json
import sys
from array import array
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path, PurePosixPath

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from tqdm import tqdm

from clip.persona.appearance import find_looks
from clip.persona.person import find_traits
from clip.persona.sentence import count_tokens, write_sentence
from clip.persona.text import clean_name, clean_text
from common.cli.errors import run_script
from common.text.files import LFS_HINT, LFS_START, write_atomically

NAMED_LINES = 100  # broken lines that the report names; more are counted


def optimise_record(record: dict, max_tokens: int = 77) -> dict:
    """A line of metadata.jsonl -> a line of optimized_metadata.jsonl; ValueError without file_name.

    Other missing fields count as empty. The id is the file's stem: only who sees all lines can know that two share it.
    """
    return _optimise(record, max_tokens)[0]


def _optimise(record: dict, max_tokens: int) -> tuple[dict, bool]:
    """-> line, had its sentence to be cut?"""
    if not isinstance(record.get("file_name"), str) or not record["file_name"].strip():
        raise ValueError("no file_name")
    character, title = clean_name(_as_text(record.get("character"))), clean_name(_as_text(record.get("title")))
    appearance, personality = (
        clean_text(_as_text(record.get("appearance"))),
        clean_text(_as_text(record.get("personality"))),
    )
    line = {
        "id": _stem(record["file_name"]),
        "file_name": record["file_name"],
        "character": character,
        "title": title,
        **find_looks(appearance, character),
        "personality": find_traits(personality, character),
    }
    text, cut = write_sentence(line, appearance, max_tokens)
    return {**line, "text": text}, cut


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_as_text(one) for one in value if one)
    return (
        value if isinstance(value, str) else str(value) if isinstance(value, int | float) and value is not True else ""
    )


def _stem(file_name: str) -> str:
    return PurePosixPath(file_name.replace("\\", "/")).stem


def read_records(path: Path) -> Iterator[tuple[int, dict | None, str]]:
    """-> line number from 1, record or None, why it is None. Blank lines are passed over."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip(b"\xef\xbb\xbf\r\n\t "):
                continue
            try:
                record = json.loads(raw.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                yield number, None, f"not UTF-8 (byte {error.start + 1} of the line)"
                continue
            except (ValueError, RecursionError) as error:
                yield number, None, f"not JSON ({str(error).splitlines()[0]})"
                continue
            reason = _why_unusable(record)
            yield number, None if reason else record, reason


def _why_unusable(record: object) -> str:
    if not isinstance(record, dict):
        return f"not an object but {type(record).__name__}"
    name = record.get("file_name")
    if not isinstance(name, str) or not name.strip():
        return "no file_name"
    return "" if name.isprintable() or name.encode("utf-8", "ignore").decode() == name else "file_name is not Unicode"


def survey(path: Path) -> tuple[dict, set[int], set[int]]:
    """-> counts and the first broken lines; hashes of stems, and of file names, that several lines have."""
    stems, names, broken, lines = array("Q"), array("Q"), [], 0
    skipped = 0
    for number, record, reason in read_records(path):
        lines += 1
        if record is None:
            skipped += 1
            if len(broken) < NAMED_LINES:
                broken.append({"line": number, "reason": reason})
            continue
        name, stem = record["file_name"], _stem(record["file_name"])
        names.append(_hash(name))
        stems.append(_hash(stem))
        if stem != name:
            stems.append(_hash(name))  # nor may the stem of one line be the file_name of another
    return {"lines": lines, "skipped": skipped, "broken": broken}, _repeated(stems), _repeated(names)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def _repeated(hashes: array) -> set[int]:
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.uint64), return_counts=True)
    return set(values[counts > 1].tolist())


def optimise_file(metadata: Path, output: Path, max_tokens: int = 77, max_broken: float = 0.05) -> dict:
    """Read `metadata`, write `output` -> the coverage report. max_broken: share of broken lines that is no error."""
    _check_paths(metadata, output)
    report, shared_stems, shared_names = survey(metadata)
    if not report["lines"]:
        raise ValueError(f"{metadata}: holds no line; expected one JSON object a line")
    if report["skipped"] > max_broken * report["lines"] or report["skipped"] == report["lines"]:
        first = report["broken"][0]
        raise ValueError(
            f"{metadata}: {report['skipped']} of {report['lines']} lines are broken, the first is line "
            f"{first['line']}: {first['reason']}; --max_broken {max_broken:g} allows fewer"
        )
    written = cut = tokens = 0
    with_key = dict.fromkeys(("hair", "eyes", "traits", "appearance"), 0)
    with write_atomically(output) as file:
        records = read_records(metadata)
        for number, record, _ in tqdm(records, total=report["lines"], leave=False, disable=report["lines"] < 5000):
            if record is None:
                continue
            line, was_cut = _optimise(record, max_tokens)
            name = line["file_name"]
            if _hash(name) in shared_names:
                line["id"] = f"{name}#{number}"
            elif _hash(line["id"]) in shared_stems:
                line["id"] = name
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8"))
            written, cut, tokens = written + 1, cut + was_cut, tokens + count_tokens(line["text"])
            with_key["traits"] += bool(line["personality"])
            for key in ("hair", "eyes", "appearance"):
                with_key[key] += any(line[key].values())
    return {
        "metadata": str(metadata),
        "output": str(output),
        "written": written,
        **report,
        "share": {**{f"with {key}": count / written for key, count in with_key.items()}, "sentence cut": cut / written},
        "mean_tokens": tokens / written,
        "max_tokens": max_tokens,
    }


def _check_paths(metadata: Path, output: Path) -> None:
    if not metadata.is_file():
        what = "is a folder" if metadata.is_dir() else "no such file"
        raise FileNotFoundError(f"{metadata}: {what}; give the metadata.jsonl of the data set with --metadata")
    if output.exists() and output.samefile(metadata):
        raise ValueError(f"{output}: --output is the file that --metadata reads; give another name")
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise ValueError(f"{output}: {'is a folder' if output.is_dir() else 'its folder is not there'} (--output)")
    start = metadata.open("rb").read(64)
    if start.startswith(LFS_START):
        raise ValueError(f"{metadata}: {LFS_HINT}")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{metadata}: is UTF-16; save it as UTF-8")


def describe_report(report: dict) -> str:
    """The coverage report for people."""
    lines = [f"{report['metadata']}: {report['lines']} lines, {report['skipped']} skipped -> {report['output']}"]
    lines += [f"  line {one['line']}: {one['reason']}" for one in report["broken"][:10]]
    if report["skipped"] > 10:
        lines.append(f"  and {report['skipped'] - 10} more; --json names the first {NAMED_LINES}")
    lines += [f"  {name:16}{100 * share:6.1f} %" for name, share in report["share"].items()]
    lines.append(f"  {report['mean_tokens']:.1f} tokens a sentence on average, {report['max_tokens']} allowed")
    return "\n".join(lines)


def main(argv: list[str]) -> dict:
    parser = argparse.ArgumentParser(prog="optimized_metadata.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--metadata", type=Path, default=Path("metadata.jsonl"), help="one JSON object a line")
    parser.add_argument("--output", type=Path, default=Path("optimized_metadata.jsonl"), help="is replaced when whole")
    parser.add_argument("--max_tokens", type=int, default=77, help="of a sentence, start and end token counted")
    parser.add_argument("--max_broken", type=float, default=0.05, help="share of broken lines that is accepted, 0 to 1")
    parser.add_argument("--json", action="store_true", help="print the coverage report as JSON")
    args = parser.parse_args(argv)

    if args.max_tokens < 8:
        raise ValueError(f"--max_tokens {args.max_tokens}: a name alone takes more; CLIP reads 77")
    if not 0 <= args.max_broken <= 1:
        raise ValueError(f"--max_broken {args.max_broken:g}: is a share, from 0 to 1")
    report = optimise_file(args.metadata, args.output, args.max_tokens, args.max_broken)
    print(json.dumps(report, ensure_ascii=False) if args.json else describe_report(report))
    return report


if __name__ == "__main__":
    run_script(main)
