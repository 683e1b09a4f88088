"""Optimized metadata: the parts of a character's wiki text that an image can show, as values and as one sentence.

    python clip/optimized_metadata.py [--metadata metadata.jsonl] [--output optimized_metadata.jsonl]

metadata.jsonl: file_name, title, character, appearance, personality, url  (AniPersonaCaps; texts with wiki markup)
    -> persona/markup.py      text without markup and reference marks
    -> persona/lexicon.py     words, by the lists of word_kinds.toml
    -> persona/negation.py    what is denied, or said of somebody else, is marked
    -> persona/appearance.py  hair, eyes, clothes, ... by the words that describe each noun (persona/noun_phrases.py)
       persona/person.py      age, sex, build, and traits of the personality
    -> persona/sentence.py    one sentence that fits the text encoder
    -> optimized_metadata.jsonl, one JSON object per line:

    id           the name of the file without folder and suffix; where two lines share that stem, the whole file_name;
                 where they share the file too, with "#<line number>" appended
    file_name    unchanged; character, title: without markup
    hair         {"colour": [...], "length": [...], "style": [...]}
    eyes         {"colour": [...], "style": [...]}
    appearance   {"sex", "age", "build", "skin", "clothing", "accessories", "features", "weapons", "expression": [...]}
    personality  [trait, ...], from the field of that name; all else comes from the field `appearance`
    text         a sentence of these within --max_tokens; without any value, the beginning of `appearance`

Every key is always present and every list may be empty. Values are words of the text, lower case, in the text's order:
of a character that changes, the first-named look comes first. Three forms are derived: "waist-length" of hair that
reaches the waist, "kind" of "her kindness", and "white dress" of "her dress is white". Nothing is guessed, such as a
sex from "she". Limits: only listed words are found, and only what grammar denies ("no", "unlike", "her sister has") is
dropped; a sword that the text merely mentions is a sword.

The file is read line by line, twice: once for broken lines and names (24 bytes of memory a line), once to write.
"""

import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from json import dumps
from pathlib import Path, PurePosixPath

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import numpy as np
from jsonargparse.typing import ClosedUnitInterval, restricted_number_type

from clip.pairs import find_clone
from clip.persona.appearance import find_appearance
from clip.persona.markup import clean_name, clean_text
from clip.persona.person import find_traits
from clip.persona.sentence import count_tokens, write_sentence
from common.cli.errors import run_script
from common.cli.outputs import refuse_overwriting
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.text.files import iter_lines, parse_json, refuse_lfs_pointer, write_atomically
from common.text.values import text_of

FIELDS = ("character", "title", "appearance", "personality")
NAMED_LINES = 100  # broken lines that the report names; more are counted
TokenLimit = restricted_number_type("TokenLimit", int, (">=", 8))  # a name alone takes more than fewer


def optimise_record(record: dict, max_tokens: int = 77) -> tuple[dict, bool]:
    """A line of metadata.jsonl -> a line of optimized_metadata.jsonl, whether its sentence was shortened.

    ValueError without file_name. Other missing fields count as empty; one that is neither text nor a list of texts is
    a ValueError. The id is the file's stem, whether or not another line shares it.
    """
    file_name, texts = _check(record)["file_name"], {key: _as_text(record, key) for key in FIELDS}
    character, title = (clean_name(texts[key]) for key in ("character", "title"))
    appearance, personality = (clean_text(texts[key]) for key in ("appearance", "personality"))
    line = {
        "id": _stem(file_name),
        "file_name": file_name,
        "character": character,
        "title": title,
        **find_appearance(appearance, character),
        "personality": find_traits(personality, character),
    }
    text, cut = write_sentence(line, appearance, max_tokens)
    return {**line, "text": text}, cut


def _as_text(record: dict, key: str) -> str:
    value = record.get(key)
    try:
        return ", ".join(map(text_of, value)) if isinstance(value, list) else text_of("" if value is None else value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _stem(file_name: str) -> str:
    return PurePosixPath(file_name.replace("\\", "/")).stem


def read_records(path: Path) -> Iterator[tuple[int, dict | None, str]]:
    """-> line number from 1, record or None, reason why it is None. Blank lines are ignored."""
    for number, line in iter_lines(path):
        try:
            if isinstance(line, ValueError):
                raise line
            yield number, _check(parse_json(line)), ""
        except ValueError as error:
            yield number, None, str(error)


def _check(record: object) -> dict:
    if not isinstance(record, dict):
        raise ValueError(f"not an object but {type(record).__name__}")
    name = record.get("file_name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError("no file_name")
    for key in ("file_name", *FIELDS):
        _as_text(record, key)
    return record


def survey(path: Path) -> tuple[dict, set[int], set[int]]:
    """-> counts and the first broken lines; hashes of stems, and of file names, that several lines have."""
    stems, names, broken, lines, skipped = array("Q"), array("Q"), [], 0, 0
    for number, record, reason in read_records(path):
        lines += 1
        if record is None:
            skipped += 1
            broken += [{"line": number, "reason": reason}][: NAMED_LINES - len(broken)]
            continue
        name = record["file_name"]
        names.append(_hash(name))
        stems.extend(_hash(part) for part in {_stem(name), name})  # no stem may be the file_name of another line either
    return {"lines": lines, "skipped": skipped, "broken": broken}, _repeated(stems), _repeated(names)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def _repeated(hashes: array) -> set[int]:
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.uint64), return_counts=True)
    return set(values[counts > 1].tolist())


def optimise_file(metadata: Path, output: Path, max_tokens: int = 77, max_broken: float = 0.05) -> dict:
    """Read `metadata`, write `output` -> the coverage report. max_broken: share of broken lines that is accepted."""
    if not metadata.is_file():
        raise FileNotFoundError(
            f"{metadata}: {'is a folder' if metadata.is_dir() else 'no such file'}; give the metadata.jsonl of the "
            "data set with --metadata"
        )
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise ValueError(f"{output}: {'is a folder' if output.is_dir() else 'its folder does not exist'} (--output)")
    refuse_lfs_pointer(metadata)
    report, shared_stems, shared_names = survey(metadata)
    if not report["lines"]:
        raise ValueError(f"{metadata}: holds no line; expected one JSON object per line")
    if report["skipped"] > max_broken * report["lines"] or report["skipped"] == report["lines"]:
        first = report["broken"][0]
        raise ValueError(
            f"{metadata}: {report['skipped']} of {report['lines']} lines are broken, the first is line "
            f"{first['line']}: {first['reason']}; --max_broken {max_broken:g} allows fewer"
        )
    written, tokens, counts = report["lines"] - report["skipped"], 0, Counter()
    with write_atomically(output) as file:
        for number, record, _ in progress_bar(
            read_records(metadata), total=report["lines"], quiet=report["lines"] < 5000
        ):
            if record is None:
                continue
            line, was_cut = optimise_record(record, max_tokens)
            name = line["file_name"]
            if _hash(name) in shared_names:
                line["id"] = f"{name}#{number}"
            elif _hash(line["id"]) in shared_stems:
                line["id"] = name
            file.write((dumps(line, ensure_ascii=False) + "\n").encode("utf-8"))
            tokens += count_tokens(line["text"])
            counts.update(
                {
                    "with hair": any(line["hair"].values()),
                    "with eyes": any(line["eyes"].values()),
                    "with traits": bool(line["personality"]),
                    "with appearance": any(line["appearance"].values()),
                    "sentence cut": was_cut,
                }
            )
    return {
        "metadata": str(metadata),
        "output": str(output),
        "written": written,
        **report,
        "share": {name: count / written for name, count in counts.items()},
        "mean_tokens": tokens / written,
        "max_tokens": max_tokens,
    }


def format_report(report: dict) -> str:
    """The coverage report as text."""
    more = report["skipped"] - 10
    return "\n".join(
        [
            f"{report['metadata']}: {report['lines']} lines, {report['skipped']} skipped -> {report['output']}",
            *(f"  line {line['line']}: {line['reason']}" for line in report["broken"][:10]),
            *([f"  and {more} more; --json names the first {NAMED_LINES}"] if more > 0 else []),
            *(f"  {name:16}{100 * share:6.1f} %" for name, share in report["share"].items()),
            f"  {report['mean_tokens']:.1f} tokens per sentence on average, {report['max_tokens']} allowed",
        ]
    )


@tool
def main(
    *,
    metadata: Path | None = None,  # one JSON object per line; default: metadata.jsonl, else that of AniPersonaCaps/
    output: Path = Path("optimized_metadata.jsonl"),  # replaced only once it is complete
    max_tokens: TokenLimit = 77,  # of a sentence, start and end token included; CLIP reads 77
    max_broken: ClosedUnitInterval = 0.05,  # share of broken lines that is accepted
    json: bool = False,  # print the coverage report as JSON
) -> dict:
    if metadata is None:
        metadata, clone = Path("metadata.jsonl"), find_clone()
        metadata = clone / metadata if clone and not metadata.exists() else metadata
    refuse_overwriting({"metadata": metadata, "output": output})
    report = optimise_file(metadata, output, max_tokens, max_broken)
    print(dumps(report, ensure_ascii=False) if json else format_report(report))
    return report


if __name__ == "__main__":
    run_script(main)
