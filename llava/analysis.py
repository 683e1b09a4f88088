"""Texts about images and their scores; the interface that local models and servers share.

pairs (image, text) -> groups of one image with its texts -> scored texts -> one dict for each pair
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from common.cli.progress_bar import progress_bar
from common.images.io import open_image
from llava.score_parsing import parse_analysis, parse_score
from llava.scoring_config import ScoringConfig

ImageSource = str | Path | Image.Image


class ServerGone(ValueError):
    """A server that no longer answers; what it has answered was given out before."""


@dataclass
class ScoredText:
    """A text about an image, with the results of both stages, or the error that prevented them."""

    position: int  # in the caller's list
    text: str
    error: str = ""
    description: str = ""
    prompt: str = ""  # of the second stage, as the model reads it
    response: str = ""  # the last answer to it
    attempts: int = 0
    expected_score: float | None = None
    p_yes: float | None = None
    tokens: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def result(self) -> dict[str, Any]:
        if self.error:
            return {"error": self.error}
        if any(value is not None and not math.isfinite(value) for value in (self.expected_score, self.p_yes)):
            return {"error": "the model's probabilities are not finite; try --precision bf16 or fp32"}
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


@dataclass
class ImageTexts:
    image: ImageSource
    texts: list[ScoredText] = field(default_factory=list)

    def open(self) -> Image.Image:
        """ValueError or OSError if the image cannot be used."""
        return open_image(self.image)

    def usable(self) -> list[ScoredText]:
        return [text for text in self.texts if not text.error]

    def fail(self, error: str) -> None:
        for text in self.usable():
            text.error = error


class Analyzer(ABC):
    """Two-stage analysis of pairs of image and text."""

    scoring: ScoringConfig
    placeholder = "<image>"  # stands for the image in prompts, so texts may not hold it

    @abstractmethod
    def analyze_groups(self, groups: list[ImageTexts]) -> Iterator[ImageTexts]:
        """Fill in the texts of each group -> the groups, as they are finished."""

    def analyze_image(self, image_path: ImageSource, text: str) -> dict[str, Any]:
        """One image and one text. ValueError if either cannot be used."""
        ((_, result),) = self.analyze_many([(image_path, text)], quiet=True)
        if "error" in result:
            raise ValueError(result["error"])
        return result

    def analyze_many(
        self, pairs: Iterable[tuple[ImageSource, str]], quiet: bool = False
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """(image, text) ... -> (position, result) ..., as batches are finished and therefore not in order.

        A pair that cannot be used gives {"error": reason}; the others are analysed.
        """
        groups: dict[Any, ImageTexts] = {}
        for position, (image, text) in enumerate(pairs):
            key = id(image) if isinstance(image, Image.Image) else str(image)  # the same path is the same image
            group = groups.setdefault(key, ImageTexts(image))
            group.texts.append(ScoredText(position, text, self._text_error(text)))
        total = sum(len(group.texts) for group in groups.values())
        with progress_bar(total=total, desc="analysing", unit="text", quiet=quiet) as bar:
            for group in self.analyze_groups(list(groups.values())):
                for scored in group.texts:
                    bar.update()
                    yield scored.position, scored.result()

    def _text_error(self, text: Any) -> str:
        if not isinstance(text, str) or not text.strip():
            return "the text is empty; give the text to score the image with"
        return f"the text holds '{self.placeholder}', which stands for an image" if self.placeholder in text else ""
