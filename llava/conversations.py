"""Files of conversations about images, in the forms that people have them in, to one list.

*.json           LLaVA: [{"image", "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}]
*.jsonl          the same, one a line (InternVL); or {"image", "messages": [{"role", "content"}]}
metadata.jsonl   AniPersonaCaps, or its folder: file_name, title, character, appearance, personality

A bad line or a missing image is left out and named, never fatal alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.text.files import refuse_lfs_pointer
from common.text.json_text import parse_json

MARK = "<image>"  # where these files say that an image stands
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
PERSONA_QUESTIONS = (  # asked of the fields that a line has
    ("character", "Who is this character?", "This is {character}{from_title}."),
    ("appearance", "What does this character look like?", "{appearance}"),
    ("personality", "What is this character's personality?", "{personality}"),
)


class Turn(NamedTuple):
    question: str
    answer: str
    images: int  # that stand before the question


class Conversation(NamedTuple):
    key: str
    images: tuple[Path, ...]
    turns: tuple[Turn, ...]


def find_conversations(data: str | Path, image_dir: str | Path = "") -> tuple[list[Conversation], dict[str, str]]:
    """A file or an AniPersonaCaps folder -> conversations in order, {what was left out: why}."""
    path = Path(data)
    if path.is_dir():
        path = path / "metadata.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file (--data); expected a .json or .jsonl, or a folder with metadata.jsonl"
        )
    root = Path(image_dir) if image_dir else path.parent
    found: list[Conversation] = []
    skipped: dict[str, str] = {}
    for where, entry in _entries(path):
        try:
            if isinstance(entry, str):
                raise ValueError(entry)
            found.append(_persona(where, entry, root) if "file_name" in entry else _conversation(where, entry, root))
        except ValueError as error:
            skipped[where] = str(error)
    if not found:
        first = next(iter(skipped.items()), (str(path), "the file is empty"))
        raise ValueError(f"{path}: not one usable conversation; {first[0]}: {first[1]}")
    return found, skipped


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """(where, JSON object or what is wrong with it) ..."""
    refuse_lfs_pointer(path)
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if path.suffix == ".json":
        try:
            content = parse_json(text)
        except ValueError as error:
            raise ValueError(f"{path}: cannot be read as JSON ({error})") from None
        if not isinstance(content, list):
            raise ValueError(f"{path}: holds a {type(content).__name__}; expected a list of conversations")
        for number, entry in enumerate(content):
            yield f"{path} entry {number}", entry if isinstance(entry, dict) else "not a JSON object"
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                entry = parse_json(line)
            except ValueError as error:
                entry = str(error)
            yield f"{path} line {number}", entry if isinstance(entry, (dict, str)) else "not a JSON object"


def _conversation(where: str, entry: dict[str, Any], root: Path) -> Conversation:
    names = entry.get("image") or entry.get("images") or ()
    images = _images([names] if isinstance(names, str) else names, root)
    spoken = [_spoken(one) for one in entry.get("conversations") or entry.get("messages") or ()]
    if spoken and spoken[0][0] == "system":
        spoken = spoken[1:]
    if not spoken or [who for who, _ in spoken] != ["user", "assistant"] * (len(spoken) // 2):
        raise ValueError("turns have to change between human and gpt, and to end with gpt")
    counts = [said.count(MARK) for _, said in spoken[::2]]
    if not sum(counts):
        counts[0] = len(images)
    if sum(counts) != len(images) or any(MARK in said for _, said in spoken[1::2]):
        raise ValueError(f"{sum(counts)} {MARK} in the human turns for {len(images)} images")
    turns = [
        Turn(question.replace(MARK, "").strip(), answer.strip(), count)
        for (_, question), (_, answer), count in zip(spoken[::2], spoken[1::2], counts)
    ]
    if any(not turn.answer for turn in turns):
        raise ValueError("an answer is empty")
    return Conversation(where, images, tuple(turns))


def _spoken(one: Any) -> tuple[str, str]:
    who, said = (
        (one.get("from") or one.get("role"), one.get("value") or one.get("content"))
        if isinstance(one, dict)
        else (None, None)
    )
    if not isinstance(said, str) or (who not in SPEAKERS and who != "system"):
        raise ValueError("a turn without speaker or words; expected {'from': 'human' or 'gpt', 'value': ...}")
    return SPEAKERS.get(who, who), said


def _persona(where: str, entry: dict[str, Any], root: Path) -> Conversation:
    words = {
        name: " ".join(str(entry.get(name) or "").split())
        for name in ("character", "title", "appearance", "personality")
    }
    words["from_title"] = f" from {words['title']}" if words["title"] else ""
    turns = [Turn(question, answer.format(**words), 0) for name, question, answer in PERSONA_QUESTIONS if words[name]]
    if not turns:
        raise ValueError("no character, appearance or personality to learn")
    turns[0] = turns[0]._replace(images=1)
    return Conversation(where, _images([entry["file_name"]], root), tuple(turns))


def _images(names: list[Any], root: Path) -> tuple[Path, ...]:
    paths = tuple(root / str(name) for name in names)
    for path in paths:
        if not path.is_file():
            raise ValueError(f"no such image: {path}")
    return paths
