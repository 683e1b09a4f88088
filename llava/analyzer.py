"""Look at images and score texts against them, on this machine.

    from llava.analyzer import LlavaAnalyzer
    LlavaAnalyzer("llava-hf/llava-1.5-7b-hf").analyze_image("a.png", "a cat on a chair")
    -> {"description", "score": 1..10 or None, "analysis", "expected_score", "p_yes", "prompt", "tokens", "seconds"}

pairs (image, text) -> groups of one image -> batches of images, each read once (ImagePrefixCache)
  -> stage 1: a description of each image -> stage 2: a score of each text, and probabilities
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from common.cli.errors import one_line
from common.images.io import open_image
from llava.checkpoint import LoadedModel, load_model, trained_system_prompt
from llava.prefix_cache import ImagePrefixCache
from llava.sampling import SeededSampling
from llava.score_parsing import (
    SCORES,
    continuations,
    expected_score,
    needed_prefixes,
    option_probabilities,
    parse_score,
)
from llava.scoring_config import ScoredText, ScoringConfig, check_text, group_by_image
from llava.tokens import ChatFormatter

Row = tuple[int, ScoredText]  # number of the image in its batch, the text about it


class LlavaAnalyzer:
    """loaded: a model and its processor, in place of model_id and adapter; loading: see load_model."""

    def __init__(
        self,
        model_id: str = "",
        adapter: str = "",
        scoring: ScoringConfig | None = None,
        system_prompt: str = "auto",
        batch_size: int = 8,
        loaded: LoadedModel | None = None,
        **loading: Any,
    ):
        if batch_size < 1:
            raise ValueError(f"--batch_size {batch_size}: expected 1 or more")
        self.model, self.processor = loaded or load_model(model_id, adapter, **loading)
        self.scoring, self.batch_size = scoring or ScoringConfig(), batch_size
        if system_prompt == "auto" and not loaded:
            system_prompt = trained_system_prompt(adapter or model_id)
        self.formatter = ChatFormatter(self.processor, system_prompt)

    def analyze_image(self, image: str | Path | Image.Image, text: str) -> dict[str, Any]:
        """One image and one text. ValueError or OSError where either cannot be used."""
        check_text(text, self.processor.image_token)
        opened = image if isinstance(image, Image.Image) else open_image(image)
        return next(self.analyze_many([(opened, text)], quiet=True))[1]

    def analyze_many(self, pairs: Iterable[tuple[Any, Any]], quiet: bool = False) -> Iterator[tuple[int, dict]]:
        """(image, text) ... -> (position, result) ..., as batches are done and so not in order.

        A pair that cannot be used gives {"error": why}, and the others go on.
        """
        groups = group_by_image(pairs)
        groups.sort(key=lambda group: -max(len(str(text)) for _, text in group[1]))  # rows of a batch: of like length
        with tqdm(total=sum(len(texts) for _, texts in groups), desc="analysing", unit="text", disable=quiet) as bar:
            for start in range(0, len(groups), self.batch_size):
                for position, result in self._analyze(groups[start : start + self.batch_size]):
                    bar.update()
                    yield position, result

    def _analyze(self, groups: list[tuple[Any, list[tuple[int, Any]]]]) -> Iterator[tuple[int, dict]]:
        """Up to batch_size images with all their texts."""
        clock = time.perf_counter()
        images: list[Image.Image] = []
        rows: list[Row] = []
        for image, texts in groups:
            try:
                opened = image.convert("RGB") if isinstance(image, Image.Image) else open_image(image)
            except (ValueError, OSError) as error:
                yield from ((position, {"error": one_line(error)}) for position, _ in texts)
                continue
            images.append(opened)
            for position, text in texts:
                try:
                    rows.append((len(images) - 1, ScoredText(position, check_text(text, self.processor.image_token))))
                except ValueError as error:
                    yield position, {"error": one_line(error)}
        if not rows:
            return
        shared = ImagePrefixCache(self.model, self.formatter, images)
        self._describe(shared, rows)
        for _, pair in rows:
            pair.prompt = self.formatter.prompt(self.scoring.score_question(pair.text, pair.description))
        rests = {pair.position: shared.rest(pair.prompt) for _, pair in rows}
        rows.sort(key=lambda row: len(rests[row[1].position]))
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            self._score(shared, part, rests)
            self._measure(shared, part)
        seconds = (time.perf_counter() - clock) / len(rows)
        for _, pair in rows:
            pair.seconds = seconds
            yield pair.position, pair.result()

    def _describe(self, shared: ImagePrefixCache, rows: list[Row]) -> None:
        """Stage 1: one description an image, whatever number of texts it is asked about."""
        scoring = self.scoring
        prompt = self.formatter.prompt(scoring.prompts["describe"])
        images = sorted({image for image, _ in rows})
        sampling = self._sampling([prompt] * len(images), scoring.description_temperature)
        written = shared.generate(images, [shared.rest(prompt)] * len(images), scoring.description_tokens, sampling)
        for number, ids in zip(images, written):
            for image, pair in rows:
                if image == number:
                    pair.description, pair.tokens["description"] = self._words(ids), len(ids)

    def _score(self, shared: ImagePrefixCache, rows: list[Row], rests: dict[int, list[int]]) -> None:
        """Stage 2: ask for a score; those whose answer holds none are asked again, with other luck."""
        waiting = rows
        for attempt in range(self.scoring.max_score_attempts):
            sampling = self._sampling([pair.prompt for _, pair in waiting], self.scoring.score_temperature, attempt)
            images, asked = [image for image, _ in waiting], [rests[pair.position] for _, pair in waiting]
            answers = shared.generate(images, asked, self.scoring.analysis_tokens, sampling)
            for (image, pair), rest, ids in zip(waiting, asked, answers):
                pair.response, pair.attempts = self._words(ids), attempt + 1
                pair.tokens |= {"prompt": shared.prefix_tokens[image] + len(rest), "analysis": len(ids)}
            waiting = [row for row in waiting if parse_score(row[1].response) is None]
            if not waiting:
                break

    def _measure(self, shared: ImagePrefixCache, rows: list[Row]) -> None:
        """Expected score, and VQAScore: P(Yes) of the yes/no question (Lin et al. 2024, arXiv 2404.01291)."""
        prompts = self.scoring.prompts
        begun = [self.formatter.begin(pair.prompt, prompts["score_begins"]) for _, pair in rows]
        asked = [
            self.formatter.begin(self.formatter.prompt(self.scoring.yes_no_question(pair.text))) for _, pair in rows
        ]
        scores = self._option_probabilities(shared, rows, begun, [str(score) for score in SCORES])
        yes = self._option_probabilities(shared, rows, asked, [prompts["yes"]])
        for (_, pair), row, (p_yes,) in zip(rows, scores, yes):
            pair.expected_score, pair.p_yes = expected_score(row), float(p_yes)

    def _option_probabilities(
        self, shared: ImagePrefixCache, rows: list[Row], begun: list[str], options: list[str]
    ) -> list[torch.Tensor]:
        """Prompts with begun answers -> for each the probabilities (options,) of the ways to go on."""
        ways = [continuations(text, options, shared.rest) for text in begun]
        jobs = [(number, prefix) for number, (_, ids) in enumerate(ways) for prefix in needed_prefixes(ids)]
        found: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
        for start in range(0, len(jobs), self.batch_size):
            part = jobs[start : start + self.batch_size]
            rests = [ways[number][0] + list(prefix) for number, prefix in part]
            after = shared.next_log_probabilities([rows[number][0] for number, _ in part], rests)
            found |= dict(zip(part, after))
        return [
            option_probabilities(ids, lambda prefix, number=number: found[number, prefix])
            for number, (_, ids) in enumerate(ways)
        ]

    def _sampling(self, prompts: list[str], temperature: float, attempt: int = 0) -> SeededSampling | None:
        if temperature == 0:
            return None
        seeds = [self.scoring.seed_for(prompt, attempt) for prompt in prompts]
        return SeededSampling(seeds, temperature, self.scoring.top_p)

    def _words(self, ids: list[int]) -> str:
        return self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
