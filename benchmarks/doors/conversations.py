"""common.text.conversations.read_conversations: conversations in every form that is known, half of them with a value
replaced, removed or added at a random place."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.doors import refused
from common.text.conversations import IMAGE, read_conversations

TEXTS = (
    "What?",
    "  spaces  ",
    "a\u0085b\u2028c",
    "图中？",
    "</s><|im_end|>",
    "x\n\n",
    "🙂",
    '"quoted"',
    "\ufeff1",
    "\\",
)
WRONG = (None, 5, 2.5, True, "", " ", {}, [], [None], "\0", "\ud800", "http://a/b.png", IMAGE, "tool", float("nan"))
FORMS = {
    "conversations": {"user": "human", "assistant": "gpt", "system": "system", "role": "from", "content": "value"},
    "messages": {"user": "user", "assistant": "assistant", "system": "system", "role": "role", "content": "content"},
}
OTHER = {"id": 0, "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}


def trial(random: Random, folder: Path) -> str:
    for name in "abc":
        (folder / f"{name}.png").touch()
    record, expected = _conversation(random)
    if is_changed := random.random() < 0.5:
        _change(random, record)
    path = folder / f"data.{random.choice(('json', 'jsonl'))}"
    records = [OTHER, record]
    text = json.dumps(records) if path.suffix == ".json" else "\n".join(map(json.dumps, records))
    path.write_bytes(text.encode(random.choice(("utf-8", "utf-8-sig"))))
    try:
        read, skipped = read_conversations(path)
    except ValueError as error:
        return refused(error, path)
    assert len(read) + len(skipped) == 2 and read[0].turns == (("a", "b"),)
    if skipped:
        ((key, reason),) = skipped.items()
        assert is_changed and str(path) in key and reason and "\n" not in reason, f"{record} -> {skipped}"
        return "skipped"
    got = read[1]
    if is_changed:  # whatever is read is in the record
        texts = set(_texts(record))
        assert all(turn.answer in texts for turn in got.turns) and {image.name for image in got.images} <= texts
    else:
        system, turns, images, is_trimmed = expected
        assert (got.system, [*map(tuple, got.turns)], bool(got.trimmed)) == (system, turns, is_trimmed), f"{record}"
        assert list(got.images) == [folder / image for image in images], f"{record}"
    return "read"


def _conversation(random: Random) -> tuple[dict[str, Any], tuple]:
    """-> a record; its system text, turns and images as they are to be read, whether some of it is trimmed."""
    form = random.choice(list(FORMS))
    names, messages, turns, images = FORMS[form], [], [], []
    has_parts, has_places, in_parts = (
        form == "messages" and random.random() < 0.7,
        random.random() < 0.7,
        random.random() < 0.5,
    )

    def say(role: str, content: Any) -> None:
        messages.append({names["role"]: names[role], names["content"]: content})

    system = random.choice(TEXTS) if random.random() < 0.4 else None
    in_field = random.random() < 0.5
    if system is not None and not in_field:
        say("system", system)
    trimmed = random.choice(("", "", "start", "end", "both"))
    if trimmed in ("start", "both"):
        say("assistant", random.choice(TEXTS))
    for _ in range(random.randint(1, 4)):
        pieces = [random.choice([*TEXTS, IMAGE] if has_places else TEXTS) for _ in range(random.randint(1, 4))]
        pieces += [random.choice(TEXTS)]
        named = [f"{random.choice('abc')}.png" for piece in pieces if piece == IMAGE]
        images += named
        answer = random.choice(TEXTS)
        if has_parts:
            own = iter(named)
            say("user", [_part(random, piece, next(own) if in_parts and piece == IMAGE else None) for piece in pieces])
            turns.append(("".join(f"{IMAGE}\n" if piece == IMAGE else piece for piece in pieces), answer))
        else:
            say("user", "".join(pieces))
            turns.append(("".join(pieces), answer))
        say("assistant", [{"type": "text", "text": answer}] if has_parts and random.random() < 0.5 else answer)
    if trimmed in ("end", "both"):
        say("user", random.choice(TEXTS))
    record: dict[str, Any] = {"id": 1, form: messages}
    if system is not None and in_field:
        record["system"] = system
    if not images and not has_places and random.random() < 0.5:  # put before the first question
        images = ["a.png", "b.png"][: random.randint(1, 2)]
        turns[0] = (f"{IMAGE}\n" * len(images) + turns[0][0], turns[0][1])
        in_parts = False
    if images and not (has_parts and in_parts):
        record |= {"image": images[0]} if len(images) == 1 else {random.choice(("image", "images")): images}
    return record, (system, turns, images, bool(trimmed))


def _part(random: Random, piece: str, path: str | None) -> dict[str, Any]:
    if piece != IMAGE:
        return {"type": "text", "text": piece}
    if path is None:
        return random.choice(({"type": "image"}, {"type": "image", "text": None, "index": 0}))
    return random.choice(({"type": "image", "image": path}, {"type": "image_url", "image_url": {"url": path}}))


def _change(random: Random, value: Any) -> None:
    """Replace, remove or add one value at a random place."""
    places = [place for place in _places(value) if place[1] != "id"]
    inside, key = random.choice(places)
    match random.randrange(4):
        case 0 if isinstance(inside, dict):
            del inside[key]
        case 1 if isinstance(inside, list):
            inside.insert(key, random.choice(WRONG))
        case 2 if isinstance(inside, dict):
            inside[random.choice(("image", "images", "system", "from", "role", "weight", "tool_calls"))] = (
                random.choice(WRONG)
            )
        case _:
            inside[key] = random.choice(WRONG)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of every value inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield value, key
        yield from _places(child)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inside, key in _places(value):
        if isinstance(inside[key], str):
            yield inside[key]
