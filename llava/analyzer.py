"""Two-stage analysis by a model on this machine: describe images, score texts against them.

    from llava.analyzer import LlavaAnalyzer
    LlavaAnalyzer("llava-hf/llava-1.5-7b-hf").analyze_image("a.png", "a cat on a chair")
    -> {"description", "score": 1..10 or None, "analysis", "expected_score", "p_yes", "prompt", "tokens", "seconds"}

groups (an image, its texts) -> batches of images, each encoded once (ImagePrefixCache)
  -> stage 1: a description of each image -> stage 2: a score of each text, and probabilities
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from common.cli.errors import one_line
from llava.analysis import Analyzer, ImageTexts, ScoredText
from llava.checkpoint import LoadedModel, base_and_adapter, load_image_text_model, trained_system_prompt
from llava.prefix_cache import ImagePrefixCache, cache_images
from llava.sampling import SeededSampling
from llava.score_parsing import (
    SCORES,
    expected_score,
    needed_prefixes,
    option_probabilities,
    parse_score,
    split_continuations,
)
from llava.scoring_config import ScoringConfig
from llava.tokens import ChatFormatter


class Row(NamedTuple):
    image: int  # its number in the batch
    text: ScoredText
    rest: list[int]  # ids of the text's prompt behind the image


class LlavaAnalyzer(Analyzer):
    """loaded: a model and its processor, in place of model_id and adapter; loading: see load_image_text_model."""

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
        if not adapter:
            model_id, adapter = base_and_adapter(model_id)
        self.model, self.processor = loaded or load_image_text_model(model_id, adapter, **loading)
        self.placeholder = self.processor.image_token
        self.scoring, self.batch_size = scoring or ScoringConfig(), batch_size
        if system_prompt == "auto" and not loaded:
            system_prompt = trained_system_prompt(adapter or model_id)
        self.formatter = ChatFormatter(self.processor, system_prompt)

    def analyze_groups(self, groups: list[ImageTexts]) -> Iterator[ImageTexts]:
        groups.sort(key=lambda group: -max(len(str(text.text)) for text in group.texts))  # similar lengths together
        for start in range(0, len(groups), self.batch_size):
            self._analyze(groups[start : start + self.batch_size])
            yield from groups[start : start + self.batch_size]

    def _analyze(self, groups: list[ImageTexts]) -> None:
        """Up to batch_size images with all their texts."""
        start_time = time.perf_counter()
        images, opened = [], []
        for group in groups:
            try:
                images.append(group.open())
                opened.append(group)
            except (ValueError, OSError) as error:
                group.fail(one_line(error))
        if not any(group.usable() for group in opened):
            return
        cache = cache_images(self.model, self.formatter, images)
        self._describe(cache, opened)
        rows = [
            Row(image, text, cache.rest(text.prompt)) for image, group in enumerate(opened) for text in group.usable()
        ]
        rows.sort(key=lambda row: len(row.rest))
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            self._score(cache, batch)
            self._measure(cache, batch)
        for row in rows:
            row.text.prompt = self.formatter.control_words.show(row.text.prompt)
            row.text.seconds = (time.perf_counter() - start_time) / len(rows)

    def _describe(self, cache: ImagePrefixCache, groups: list[ImageTexts]) -> None:
        """Stage 1: one description an image, however many texts it has; the prompts of stage 2."""
        scoring, count = self.scoring, len(groups)
        prompt = self.formatter.prompt(scoring.prompts["describe"])
        sampling = self._sampling([prompt] * count, scoring.description_temperature)
        descriptions = cache.generate(
            list(range(count)), [cache.rest(prompt)] * count, scoring.description_tokens, sampling, scoring.num_beams
        )
        for group, ids in zip(groups, descriptions):
            for text in group.usable():
                text.description, text.tokens["description"] = self._decode(ids), len(ids)
                try:
                    text.prompt = self.formatter.prompt(scoring.score_question(text.text, text.description))
                except ValueError as error:  # of a text with words that begin a turn
                    text.error = one_line(error)

    def _score(self, cache: ImagePrefixCache, rows: list[Row]) -> None:
        """Stage 2: generate a score; where an answer states none, sample another."""
        scoring = self.scoring
        for attempt in range(scoring.score_attempts):
            sampling = self._sampling([row.text.prompt for row in rows], scoring.score_temperature, attempt)
            images, rests = [row.image for row in rows], [row.rest for row in rows]
            answers = cache.generate(images, rests, scoring.analysis_tokens, sampling, scoring.num_beams)
            for (image, text, rest), ids in zip(rows, answers):
                text.response, text.attempts = self._decode(ids), attempt + 1
                text.tokens |= {"prompt": cache.prefix_tokens[image] + len(rest), "analysis": len(ids)}
            rows = [row for row in rows if parse_score(row.text.response) is None]
            if not rows:
                break

    def _measure(self, cache: ImagePrefixCache, rows: list[Row]) -> None:
        """Expected score, and VQAScore: P(Yes) of the yes/no question (Lin et al. 2024, arXiv 2404.01291)."""
        scoring, formatter = self.scoring, self.formatter
        score_prompts = [formatter.begin_answer(row.text.prompt, scoring.prompts["score_begins"]) for row in rows]
        yes_no_prompts = [
            formatter.begin_answer(formatter.prompt(scoring.yes_no_question(row.text.text))) for row in rows
        ]
        scores = self._option_probabilities(cache, rows, score_prompts, [str(score) for score in SCORES])
        yes = self._option_probabilities(cache, rows, yes_no_prompts, [scoring.prompts["yes"]])
        for row, probabilities, (p_yes,) in zip(rows, scores, yes):
            row.text.expected_score, row.text.p_yes = expected_score(probabilities), float(p_yes)

    def _option_probabilities(
        self, cache: ImagePrefixCache, rows: list[Row], prompts: list[str], options: list[str]
    ) -> list[torch.Tensor]:
        """A prompt with a begun answer for each row -> for each the probabilities (options,) of its continuations."""
        split = [split_continuations(prompt, options, cache.rest) for prompt in prompts]
        jobs = [(number, prefix) for number, (_, ids) in enumerate(split) for prefix in needed_prefixes(ids)]
        next_tokens: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
        for start in range(0, len(jobs), self.batch_size):
            batch = jobs[start : start + self.batch_size]
            rests = [[*split[number][0], *prefix] for number, prefix in batch]
            images = [rows[number].image for number, _ in batch]
            next_tokens |= dict(zip(batch, cache.next_log_probabilities(images, rests)))
        return [
            option_probabilities(ids, lambda prefix, number=number: next_tokens[number, prefix])
            for number, (_, ids) in enumerate(split)
        ]

    def _sampling(self, prompts: list[str], temperature: float, attempt: int = 0) -> SeededSampling | None:
        seeds = [self.scoring.seed_for(prompt, attempt) for prompt in prompts]
        return SeededSampling(seeds, temperature, self.scoring.top_p) if temperature else None

    def _decode(self, ids: list[int]) -> str:
        text = self.processor.tokenizer.decode(ids, skip_special_tokens=True)
        stops = self.model.generation_config.stop_strings or []
        for stop in [stops] if isinstance(stops, str) else stops:
            text = text.removesuffix(stop)
        return text.strip()
