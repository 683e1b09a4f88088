"""Conversations about images, read from the files that people have.

*.json           [{"image", "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}]
*.jsonl          the same, one a line; or {"image", "messages": [{"role", "content"}]}
metadata.jsonl   AniPersonaCaps, or its folder: file_name, title, character, appearance, personality

record -> Conversation (turns of question and answer, images, system); ValueError says what is wrong with a record

A first turn of gpt and a last question without an answer are trimmed. Texts are kept as written, spaces at their ends
included, and so are a system turn and the places of <image>; where no question has one, they are put before the first.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from common.text.tables import check_record, read_records

IMAGE = "<image>"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
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

    def first(self, count: int) -> "Conversation":
        """The first `count` turns with their images."""
        turns = self.turns[:count]
        return replace(self, turns=turns, images=self.images[: sum(turn.images for turn in turns)])


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
            images = tuple(root / image for image in conversation.images)
            if missing := [image for image in images if not image.is_file()]:
                raise ValueError(f"no such image: {missing[0]}")
            conversations.append(replace(conversation, images=images, key=key))
        except ValueError as error:
            skipped[key] = str(error)
    if not conversations:
        key, reason = next(iter(skipped.items()), (str(path), "the file is empty"))
        raise ValueError(f"{path}: no usable conversation; {key}: {reason}")
    return conversations, skipped


def parse_conversation(record: Any) -> Conversation:
    """One record in any of the forms above -> Conversation, its image paths as written."""
    check_record(record)
    messages = record.get("conversations", record.get("messages"))
    if messages is None and "file_name" in record:
        return _persona(record)
    if not isinstance(messages, list):
        raise ValueError("no list 'conversations' or 'messages'")
    images = record.get("image") or record.get("images") or ()
    images = (images,) if isinstance(images, str) else images
    if not isinstance(images, list | tuple) or not all(isinstance(image, str) for image in images):
        raise ValueError("'image' is neither a path nor a list of paths")
    spoken = [_message(message) for message in messages]
    system = spoken.pop(0)[1] if spoken and spoken[0][0] == "system" else None
    if spoken and spoken[0][0] == "assistant":  # an answer without a question, trimmed as InternVL does
        spoken.pop(0)
    if len(spoken) % 2:
        spoken.pop()
    if not spoken or [role for role, _ in spoken] != ["user", "assistant"] * (len(spoken) // 2):
        raise ValueError("human and gpt do not take turns")
    turns = [Turn(question, answer) for (_, question), (_, answer) in zip(spoken[::2], spoken[1::2])]
    if not all(turn.answer.strip() for turn in turns):
        raise ValueError("an answer is empty")
    if any(IMAGE in turn.answer for turn in turns) or IMAGE in (system or ""):
        raise ValueError(f"{IMAGE} outside of the questions")
    if not any(turn.images for turn in turns):
        turns[0] = turns[0]._replace(question=f"{IMAGE}\n" * len(images) + turns[0].question)
    if (shown := sum(turn.images for turn in turns)) != len(images):
        raise ValueError(f"{shown} {IMAGE} in the questions for {len(images)} images")
    return Conversation(tuple(turns), tuple(images), system, record=record)


def _message(message: Any) -> tuple[str, str]:
    """-> role, text"""
    if not isinstance(message, dict):
        raise ValueError("a turn is not a JSON object")
    speaker, text = message.get("from", message.get("role")), message.get("value", message.get("content"))
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise ValueError(f"speaker '{speaker}': expected {', '.join(ROLES)}")
    if not isinstance(text, str):
        raise ValueError("a turn without text; expected {'from': 'human' or 'gpt', 'value': ...}")
    return ROLES[speaker], text


def _persona(record: dict[str, Any]) -> Conversation:
    fields = {
        name: " ".join(str(record.get(name) or "").split())
        for name in ("character", "title", "appearance", "personality")
    }
    fields["from_title"] = f" from {fields['title']}" if fields["title"] else ""
    turns = [Turn(question, answer.format(**fields)) for name, question, answer in PERSONA_QUESTIONS if fields[name]]
    if not turns:
        raise ValueError("no character, appearance or personality")
    turns[0] = turns[0]._replace(question=f"{IMAGE}\n{turns[0].question}")
    return Conversation(tuple(turns), (str(record["file_name"]),))
