"""Conversations about images, read from the files that people have.

*.json           [{"image", "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}]
*.jsonl          the same, one a line; or {"images", "messages": [{"role", "content"}]}, whose content is text or parts
                 {"type": "text", "text"}, {"type": "image"}, {"type": "image_url", "image_url": {"url"}}
metadata.jsonl   AniPersonaCaps, or its folder: file_name, title, character, appearance, personality

record -> Conversation (turns of question and answer, images, system); ValueError says what is wrong with a record

Texts are kept as written, spaces at their ends included, and so are a system turn (or a field "system") and the places
of <image>; where no question has one, they are put before the first. An image among parts is "<image>\\n". A first turn
of gpt and a last question without an answer are trimmed, and `trimmed` says so.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from common.text.tables import check_record, read_records
from common.text.values import file_name_of, text_of

IMAGE = "<image>"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
IMAGE_PARTS = ("image", "image_url", "path", "url")  # a part of this type is an image, in a field of such a name
LOSS_FLAGS = ("weight", "loss", "train", "training")  # 0 or false: an answer that is not trained on
OTHER_MEDIA = ("video", "videos", "audio", "audios")
REMOTE = ("http://", "https://", "data:", "file:", "s3://", "gs://")
PERSONA_QUESTIONS = (  # field, question, answer
    ("character", "Who is this character?", "This is {character}{from_title}."),
    ("appearance", "What does this character look like?", "{appearance}"),
    ("personality", "What is this character's personality?", "{personality}"),
)


class Turn(NamedTuple):
    question: str  # with one <image> for each image that it shows
    answer: str

    @property
    def images(self) -> int:
        return self.question.count(IMAGE)


@dataclass(frozen=True)
class Conversation:
    turns: tuple[Turn, ...]
    images: tuple[str | Path, ...] = ()  # in reading order
    system: str | None = None
    key: str = ""  # file and line, for messages
    record: dict[str, Any] = field(default_factory=dict, compare=False)  # with whatever else it says
    is_trained: tuple[bool, ...] = ()  # of each answer; () = all
    trimmed: str = field(default="", compare=False)  # what is not used of the record

    def first(self, count: int) -> "Conversation":
        """The first `count` turns with their images."""
        turns = self.turns[:count]
        images = self.images[: sum(turn.images for turn in turns)]
        return replace(self, turns=turns, images=images, is_trained=self.is_trained[:count])

    def trimmed_by(self, reason: str) -> "Conversation":
        return replace(self, trimmed="; ".join(filter(None, (self.trimmed, reason))))


def read_conversations(path: str | Path, image_dir: str | Path = "") -> tuple[list[Conversation], dict[str, str]]:
    """A file, or an AniPersonaCaps folder -> conversations in order, {skipped record: reason}.

    image_dir: folder that image paths are relative to, by default that of the file. Missing images skip their record.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "metadata.jsonl"
    root = Path(image_dir) if image_dir else path.parent
    conversations: list[Conversation] = []
    skipped: dict[str, str] = {}
    for key, record in read_records(path, "expected a .json, a .jsonl, or a folder with metadata.jsonl"):
        try:
            conversation = parse_conversation(record)
            images = tuple(root / file_name_of(image, root) for image in conversation.images)
            if missing := [image for image in images if not image.is_file()]:
                raise ValueError(f"no such image: {missing[0]}")
            conversations.append(replace(conversation, images=images, key=key))
        except (ValueError, OSError) as error:  # OSError of a path that is too long
            skipped[key] = str(error)
    if not conversations:
        key, reason = next(iter(skipped.items()), (str(path), "the file is empty"))
        raise ValueError(f"{path}: no usable conversation; {key}: {reason}")
    return conversations, skipped


def parse_conversation(record: Any) -> Conversation:
    """One record in any of the forms above -> Conversation, its image paths as written."""
    check_record(record)
    messages = _first_of(record, ("conversations", "messages"))
    if messages is None and "file_name" in record:
        return _persona(record)
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("no list 'conversations' or 'messages' of JSON objects")
    if other := next((name for name in OTHER_MEDIA if record.get(name)), None):
        raise ValueError(f"'{other}' of a record: images and text alone are read")
    roles, texts, found, flags = zip(*map(_message, messages)) if messages else ((),) * 4
    images = _images(record)
    if images and any(found):
        raise ValueError("images are named both in the record and in its messages")
    images = images or sum(found, [])
    system, start, end, trimmed = record.get("system"), 0, len(messages), []
    if roles[:1] == ("system",):
        if system is not None:
            raise ValueError("two system turns: one in the messages, one in the field 'system'")
        system, start = texts[0], 1
    if roles[start : start + 1] == ("assistant",):  # as InternVL does
        start += 1
        trimmed.append("its first answer has no question")
    if end > start and roles[end - 1] == "user":
        end -= 1
        trimmed.append("its last question has no answer")
    count = (end - start) // 2
    if not count or roles[start:end] != ("user", "assistant") * count:
        raise ValueError(f"human and gpt do not take turns ({', '.join(roles[:6])})")
    turns = [Turn(*texts[place : place + 2]) for place in range(start, end, 2)]
    if not all(turn.answer.strip() for turn in turns):
        raise ValueError("an answer is empty")
    system = None if system is None else text_of(system)
    if IMAGE in (system or "") or any(IMAGE in text for role, text in zip(roles, texts) if role == "assistant"):
        raise ValueError(f"{IMAGE} outside of the questions")
    images = images[: len(images) - "".join(texts[end:]).count(IMAGE)]  # without those of the trimmed question
    if not any(turn.images for turn in turns):
        turns[0] = turns[0]._replace(question=f"{IMAGE}\n" * len(images) + turns[0].question)
    if (shown := sum(turn.images for turn in turns)) != len(images):
        raise ValueError(f"{shown} {IMAGE} in the questions for {len(images)} images")
    if not all(turn.question.strip() for turn in turns):
        raise ValueError("a question is empty")
    is_trained = flags[start + 1 : end : 2]
    if not any(is_trained):
        raise ValueError("no answer is trained on, by the weights of its turns")
    return Conversation(
        tuple(turns),
        tuple(images),
        system,
        record=record,
        is_trained=() if all(is_trained) else is_trained,
        trimmed=" and ".join(trimmed),
    )


def _first_of(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first of these fields that is there; null is absent, as in rows of `datasets`."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def _message(message: dict[str, Any]) -> tuple[str, str, list[str], bool]:
    """-> role, text with an <image> for each image part, paths that such parts name, whether it is trained on"""
    speaker, content = _first_of(message, ("from", "role")), _first_of(message, ("value", "content"))
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise ValueError(f"speaker {str(speaker)[:40]!r}: expected {', '.join(ROLES)}")
    if any(message.get(name) for name in ("tool_calls", "function_call")):
        raise ValueError("a turn that calls a tool")
    weights = [message[name] for name in LOSS_FLAGS if message.get(name) is not None]
    if any(not isinstance(weight, bool | int | float) or weight not in (0, 1) for weight in weights):
        raise ValueError(f"{', '.join(LOSS_FLAGS)} of a turn: expected 0 or 1, got {str(weights)[:40]}")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    text, images = "", []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            text += _text(part.get("text"))
        elif kind in ("image", "image_url"):
            text += f"{IMAGE}\n"
            images += [_path(named)] if (named := _first_of(part, IMAGE_PARTS)) is not None else []
        else:
            raise ValueError(f"a part of type {str(kind)[:40]!r} in a turn: expected text or image")
    if parts[-1:] and parts[-1]["type"] != "text":
        text = text.removesuffix("\n")
    return ROLES[speaker], text, images, all(weights)


def _text(value: Any) -> str:
    try:
        return text_of(value)
    except ValueError as error:
        raise ValueError(
            f"a turn without text, such as {{'from': 'human', 'value': 'What is this?'}}: {error}"
        ) from None


def _images(record: dict[str, Any]) -> list[str]:
    """Paths in the fields image and images."""
    named = [record[name] for name in ("image", "images") if record.get(name) is not None]
    lists = [list(map(_path, images if isinstance(images, list) else [images])) for images in named]
    if len(lists) == 2 and all(lists) and lists[0] != lists[1]:
        raise ValueError("'image' and 'images' name different images")
    return max(lists, default=[])


def _path(image: Any) -> str:
    """Of an image that is named by a path, or by an object that holds one."""
    if isinstance(image, dict):
        image = _first_of(image, IMAGE_PARTS)
    try:
        path = text_of(image)
    except ValueError as error:
        raise ValueError(f"an image without a path: {error}") from None
    if not path.strip() or path.lower().startswith(REMOTE):
        raise ValueError(f"image {path[:60]!r}: expected the path of a file" + ", not its address" * bool(path.strip()))
    return path


def _persona(record: dict[str, Any]) -> Conversation:
    names = ("character", "title", "appearance", "personality")
    fields = {name: " ".join(text_of(_first_of(record, (name,)) or "").split()) for name in names}
    fields["from_title"] = f" from {fields['title']}" if fields["title"] else ""
    turns = [Turn(question, answer.format(**fields)) for name, question, answer in PERSONA_QUESTIONS if fields[name]]
    if not turns:
        raise ValueError("no character, appearance or personality")
    if any(IMAGE in turn.answer for turn in turns):
        raise ValueError(f"{IMAGE} outside of the questions")
    turns[0] = turns[0]._replace(question=f"{IMAGE}\n{turns[0].question}")
    return Conversation(tuple(turns), (_path(record["file_name"]),))
