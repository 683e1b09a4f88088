"""Prompts and generation settings of the two-stage analysis, the same for local models and servers."""

import math
import re
from argparse import Namespace
from dataclasses import dataclass, field, fields
from typing import Any

from common.cli.names import unknown_name
from common.cli.type_names import describe_type
from llava.config import PROMPTS, TYPES
from llava.sampling import seed_from

# What the chat template puts around a question, and prompts in papers and guides hold: 'USER: <image>\n...'.
TEMPLATE_WORDS = re.compile(r"^(?:USER:\s*)?(?:<image>\s*)?|\s*ASSISTANT:\s*$")


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value is what a type of llava/config.py allows; True is no number, and infinity none either."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    try:
        return math.isfinite(value) and kind(value) == value
    except (TypeError, ValueError):
        return False


@dataclass(frozen=True)
class ScoringConfig:
    """See llava/config.py for the meaning and the range of each; the defaults are the same."""

    prompts: dict[str, str] = field(default_factory=lambda: PROMPTS["en"])
    feed_description: bool = False
    description_temperature: float = 0.0
    score_temperature: float = 0.3
    num_beams: int = 1
    top_p: float = 0.9
    description_tokens: int = 256
    analysis_tokens: int = 256
    max_attempts: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for item in fields(self):
            value, kind = getattr(self, item.name), TYPES.get(item.name.upper())
            if kind and not _is_of(value, kind):
                raise ValueError(f"{item.name}: {value!r}, expected {describe_type(kind)}")
        for name, prompt in PROMPTS["en"].items():
            given = self.prompts.get(name)
            if not isinstance(given, str) or ("{text}" in prompt and "{text}" not in given):
                raise ValueError(f"prompts: '{name}' is {given!r}, expected a text like {prompt!r}")

    @classmethod
    def from_settings(cls, settings: Namespace) -> "ScoringConfig":
        """settings: those of llava/config.py."""
        if settings.language not in PROMPTS:
            raise ValueError(unknown_name(settings.language, list(PROMPTS), "--language"))
        values = {item.name: getattr(settings, item.name) for item in fields(cls) if item.name != "prompts"}
        prompts = {name: TEMPLATE_WORDS.sub("", prompt) for name, prompt in PROMPTS[settings.language].items()}
        return cls(prompts, **values)

    def score_question(self, text: str, description: str) -> str:
        name = "score_with_description" if self.feed_description else "score"
        values = {"text": text, "description": description}
        # In one pass, and not by str.format: the values themselves may hold braces.
        return re.sub(r"\{(text|description)\}", lambda match: values[match[1]], self.prompts[name])

    def yes_no_question(self, text: str) -> str:
        return self.prompts["yes_no"].replace("{text}", text)

    @property
    def score_attempts(self) -> int:
        """A second greedy answer would be the same."""
        return self.max_attempts if self.score_temperature > 0 else 1

    def seed_for(self, prompt: str, attempt: int) -> int:
        return seed_from(self.seed, attempt, prompt)
