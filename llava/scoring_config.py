"""What is asked of a model and what comes back, whichever machine it runs on.

(image, text) -> description; answer with a score, up to MAX_ATTEMPTS times; expected score; P(Yes) -> one dict
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from llava.config import PROMPTS
from llava.sampling import seed_of
from llava.score_parsing import parse_analysis, parse_score


@dataclass(frozen=True)
class ScoringConfig:
    """How to ask; the defaults are those of config.py."""

    prompts: dict[str, str] = field(default_factory=lambda: PROMPTS["en"])
    feed_description: bool = False
    description_temperature: float = 0.0
    score_temperature: float = 0.3
    top_p: float = 0.9
    description_tokens: int = 256
    analysis_tokens: int = 256
    max_attempts: int = 3
    seed: int = 0

    def __post_init__(self):
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top_p {self.top_p}: expected a share above 0, up to 1")
        for name in ("description_temperature", "score_temperature"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} {getattr(self, name)}: expected 0 or more")
        for name in ("description_tokens", "analysis_tokens", "max_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: expected 1 or more")

    def score_question(self, text: str, description: str) -> str:
        name = "score_with_description" if self.feed_description else "score"
        words = {"text": text, "description": description}
        # In one pass, and not by str.format: the words themselves may hold braces.
        return re.sub(r"\{(text|description)\}", lambda match: words[match[1]], self.prompts[name])

    def yes_no_question(self, text: str) -> str:
        return self.prompts["yes_no"].replace("{text}", text)

    @property
    def max_score_attempts(self) -> int:
        """A greedy answer does not change when it is asked for again."""
        return self.max_attempts if self.score_temperature > 0 else 1

    def seed_for(self, prompt: str, attempt: int) -> int:
        return seed_of(self.seed, attempt, prompt)


@dataclass
class ScoredText:
    """A text about an image, and what is found out about the two."""

    position: int  # in the caller's list
    text: str
    description: str = ""
    prompt: str = ""  # of the second stage, as the model sees it
    response: str = ""  # the last answer to it
    attempts: int = 0
    expected_score: float | None = None
    p_yes: float | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def result(self) -> dict[str, Any]:
        return {
            "description": self.description,
            "score": parse_score(self.response),
            "analysis": parse_analysis(self.response),
            "expected_score": self.expected_score,
            "p_yes": self.p_yes,
            "prompt": self.prompt,
            "response": self.response,
            "attempts": self.attempts,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 4),
        }


def check_text(text: Any, placeholder: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the text is empty; give the words to be scored against the image")
    if placeholder in text:
        raise ValueError(f"the text holds '{placeholder}', which stands for an image; take it out")
    return text


def group_by_image(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, list[tuple[int, Any]]]]:
    """(image, text) ... -> (image, [(position, text), ...]) ..., each image once; the same path is the same image."""
    groups: dict[Any, tuple[Any, list]] = {}
    for position, (image, text) in enumerate(pairs):
        key = id(image) if isinstance(image, Image.Image) else str(image)
        groups.setdefault(key, (image, []))[1].append((position, text))
    return list(groups.values())
