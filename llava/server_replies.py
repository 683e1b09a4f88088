"""Replies of OpenAI-compatible servers, of which every field may be absent, null or of another type.

body -> read_completion -> Reply;  body -> read_model_list -> names

What cannot be used is a ValueError of one line that quotes the reply.
"""

import math
from collections import defaultdict
from typing import Any, NamedTuple, TypeVar

from common.cli.errors import one_line
from common.text.files import parse_json
from common.text.values import text_of

Kind = TypeVar("Kind")
QUOTED = 200  # characters of a reply in an error
NO_ANSWER = {"content_filter": "its content filter stopped the answer", "error": "the answer ended in an error"}


class Reply(NamedTuple):
    text: str
    problem: str  # why there is no text; empty where there is one
    tokens: dict[str, int]  # usage, as far as the server counts: prompt_tokens, completion_tokens
    next_tokens: dict[str, float] | None  # {token without spaces: probability} in place of the first token


def read_completion(body: bytes) -> Reply:
    """The first choice of a chat completion."""
    content = parse(body)
    if _get(content, "error", (dict, str)):
        raise ValueError(f"the reply holds an error: {quote(body)}")
    choice = _first(_get(content, "choices", list))
    message = _get(choice, "message", dict)
    if message is None:
        raise ValueError(f"the reply has no choices with a message: {quote(body)}")
    try:
        text = text_of(_text(message.get("content")))
    except ValueError as error:
        raise ValueError(f"the reply's content: {error}") from None
    usage = _get(content, "usage", dict) or {}
    tokens = {name: count for name, count in usage.items() if type(count) is int and count >= 0}
    return Reply(text, _problem(choice, message, text), tokens, _next_tokens(choice))


def read_model_list(body: bytes) -> list[str]:
    """Names of the models that a server has; empty where it does not list all of them."""
    content = parse(body)
    listed = _get(content, "data", list) or []
    names = [name for model in listed if (name := _get(model, "id", str))]
    return [] if _get(content, "has_more", bool) else names


def parse(body: bytes) -> Any:
    try:
        return parse_json(body)
    except ValueError:
        raise ValueError(f"the reply is not JSON: {quote(body)}") from None


def quote(body: bytes) -> str:
    """The start of a reply for an error, control characters escaped."""
    return ascii(one_line(ValueError(body[: 4 * QUOTED].decode("utf-8", "replace"))))[1:-1][:QUOTED] or "nothing"


def _get(content: Any, name: str, kind: type[Kind] | tuple[type[Kind], ...]) -> Kind | None:
    """A field, if the content is an object and the field of that kind."""
    value = content.get(name) if isinstance(content, dict) else None
    return value if isinstance(value, kind) else None


def _first(values: list[Any] | None) -> Any:
    return values[0] if values else None


def _text(content: Any) -> Any:
    """A message's content, or the texts of its parts; other values as they are."""
    if isinstance(content, list):
        parts = [part if isinstance(part, str) else _get(part, "text", str) for part in content]
        return "".join(part for part in parts if part)
    return "" if content is None else content


def _problem(choice: Any, message: dict[str, Any], text: str) -> str:
    reason = _get(choice, "finish_reason", str) or ""
    if reason in NO_ANSWER:
        return NO_ANSWER[reason]
    if text.strip():
        return ""
    if refusal := _get(message, "refusal", str):
        return f"the model refused: {quote(refusal.encode('utf-8', 'replace'))}"
    if any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking")):
        return "the answer holds reasoning alone; raise --analysis_tokens and --description_tokens"
    return f"the answer is empty (finish_reason {quote(reason.encode('utf-8', 'replace'))})"


def _next_tokens(choice: Any) -> dict[str, float] | None:
    """None where these are no probabilities."""
    first = _first(_get(_get(choice, "logprobs", dict), "content", list))
    shares: defaultdict[str, float] = defaultdict(float)
    for entry in _get(first, "top_logprobs", list) or []:
        token, value = _get(entry, "token", str), _get(entry, "logprob", (int, float))
        if token is None or value is None or isinstance(value, bool) or not value <= 0.01:  # NaN too
            return None
        shares[token.strip()] += math.exp(max(value, -1e4))  # a whole number may have any size
    return dict(shares) if 0 < sum(shares.values()) < 1.02 else None
