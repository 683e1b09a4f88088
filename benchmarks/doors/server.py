"""llava.server_replies: chat completions and lists of models with random values, bytes and omissions."""

import json
import math
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.doors import mutated, refused
from llava.server_replies import read_completion, read_model_list

TEXTS = (
    "A cat.",
    "Score: 8\nAnalysis: fits",
    "评分：8",
    "\u2028 a\x85b",
    "😀",
    "",
    " ",
    "<think>x</think>",
    "\ud83d",
    "\0",
)
JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    3.5,
    10**400,
    math.nan,
    math.inf,
    "",
    "x",
    [],
    {},
    [None],
    {"error": "x"},
    [[]],
    "8",
)
BODIES = (
    b"",
    b"null",
    b"[]",
    b"<html>502</html>",
    b'"x"',
    b"{",
    b"\xff\xfe",
    b"data: {}\n\n",
    b"[" * 50_000,
    b"9" * 5000,
)


def trial(random: Random, folder: Path) -> str:
    if random.random() < 0.1:
        names = read_or_none(read_model_list, _body(random, {"data": [{"id": "a"}, {"id": "b"}], "has_more": False}))
        assert names is None or all(isinstance(name, str) for name in names)
        return "refused" if names is None else "read"
    text = random.choice(TEXTS)
    parts = [{"type": "text", "text": part} for part in (text[:1], text[1:])]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": random.choice((text, parts)), "reasoning_content": None},
        "finish_reason": random.choice(("stop", "length", None)),
        "logprobs": {"content": [{"token": "8", "top_logprobs": [{"token": " 8", "logprob": -0.5}]}]},
    }
    content = {"id": "x", "choices": [choice], "usage": {"prompt_tokens": 30, "completion_tokens": 4}}
    is_whole = random.random() < 0.3
    body = json.dumps(content).encode() if is_whole else _body(random, content)
    try:
        reply = read_completion(body)
    except ValueError as error:
        assert not is_whole or text in ("\ud83d", "\0"), f"refused: {text!r}"
        return refused(error, "the reply")
    assert isinstance(reply.text, str) and reply.text.isascii() or reply.text.encode()
    assert bool(reply.problem) or reply.text.strip(), "neither a text nor a problem"
    assert all(type(count) is int and count >= 0 for count in reply.tokens.values())
    assert reply.next_tokens is None or 0 < sum(reply.next_tokens.values()) < 1.02
    if is_whole:
        assert (reply.text, reply.tokens) == (text, content["usage"]) and reply.next_tokens == {"8": math.exp(-0.5)}
    return "skipped" if reply.problem else "read"


def read_or_none(read: Any, body: bytes) -> Any:
    try:
        return read(body)
    except ValueError as error:
        refused(error, "the reply")
        return None


def _body(random: Random, content: Any) -> bytes:
    """Some values of a reply replaced or left out; or its bytes changed; or something else."""
    kind = random.random()
    if kind < 0.1:
        return random.choice(BODIES)
    if kind < 0.4:
        return mutated(random, json.dumps(content).encode())
    for _ in range(random.randint(1, 3)):
        node = content
        while isinstance(node, dict | list) and node:
            key = random.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if random.random() < 0.3 or not isinstance(node[key], dict | list):
                if random.random() < 0.3:
                    del node[key]
                else:
                    node[key] = random.choice(JUNK)
                break
            node = node[key]
    return json.dumps(content).encode()
