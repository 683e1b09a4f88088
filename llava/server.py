"""The same questions to an OpenAI-compatible server (vLLM, SGLang), which batches them continuously by itself.

pairs (image, text) -> SERVER_REQUESTS of them at a time -> POST {url}/chat/completions, images as data URLs -> results

Probabilities come from the server's top_logprobs, of which most give 20; what is not among them counts as 0. The prompt
stays the same up to the image, so the server's own prefix cache shares what it read of it. API key: OPENAI_API_KEY.
"""

import base64
import io
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from common.cli.errors import one_line
from common.images.io import open_image
from llava.score_parsing import SCORES, expected_score, parse_score
from llava.scoring_config import ScoredText, ScoringConfig, check_text, group_by_image
from llava.tokens import message

TOP_LOGPROBS = 20


class ServerAnalyzer:
    """As LlavaAnalyzer; model_id: the name under which the server has the model."""

    def __init__(
        self,
        url: str,
        model_id: str,
        scoring: ScoringConfig | None = None,
        system_prompt: str = "auto",
        requests: int = 16,
        timeout: float = 600.0,
    ):
        """timeout: seconds for one answer."""
        self.url, self.model_id, self.timeout = url.rstrip("/"), model_id, timeout
        self.scoring, self.requests = scoring or ScoringConfig(), requests
        self.system = "" if system_prompt == "auto" else system_prompt  # the server's chat template may have its own
        served = [one["id"] for one in self._call("models")["data"]]
        if model_id not in served:
            raise ValueError(f"--model_id {model_id}: not at {url}, which has {', '.join(served)}")

    def analyze_image(self, image: str | Path | Image.Image, text: str) -> dict[str, Any]:
        """One image and one text. ValueError or OSError where either cannot be used."""
        check_text(text, "<image>")
        url = data_url(image)
        return self._score(ScoredText(0, text), url, self._describe(url), time.perf_counter())

    def analyze_many(self, pairs: Iterable[tuple[Any, Any]], quiet: bool = False) -> Iterator[tuple[int, dict]]:
        """(image, text) ... -> (position, result or {"error": why}) ..., as answers come in."""
        groups = group_by_image(pairs)
        with (
            ThreadPoolExecutor(self.requests) as pool,
            tqdm(total=sum(len(texts) for _, texts in groups), desc="analysing", unit="text", disable=quiet) as bar,
        ):
            for done in as_completed([pool.submit(self._analyze, image, texts) for image, texts in groups]):
                for position, result in done.result():
                    bar.update()
                    yield position, result

    def _analyze(self, image: Any, texts: list[tuple[int, Any]]) -> list[tuple[int, dict]]:
        results = []
        clock = time.perf_counter()
        try:
            url = data_url(image)
            described = self._describe(url)
        except (ValueError, OSError) as error:
            return [(position, {"error": one_line(error)}) for position, _ in texts]
        for position, text in texts:
            try:
                pair = ScoredText(position, check_text(text, "<image>"))
                results.append((position, self._score(pair, url, described, clock)))
            except (ValueError, OSError) as error:
                results.append((position, {"error": one_line(error)}))
            clock = time.perf_counter()
        return results

    def _describe(self, url: str) -> tuple[str, int]:
        """-> description, its tokens."""
        scoring = self.scoring
        choice, tokens = self._answer(
            url, scoring.prompts["describe"], scoring.description_tokens, scoring.description_temperature, 0
        )
        return choice["message"]["content"].strip(), tokens["completion_tokens"]

    def _score(self, pair: ScoredText, url: str, described: tuple[str, int], clock: float) -> dict[str, Any]:
        scoring, prompts = self.scoring, self.scoring.prompts
        pair.description, description_tokens = described
        pair.prompt = scoring.score_question(pair.text, pair.description)
        for attempt in range(scoring.max_score_attempts):
            choice, tokens = self._answer(
                url,
                pair.prompt,
                scoring.analysis_tokens,
                scoring.score_temperature,
                scoring.seed_for(pair.prompt, attempt),
            )
            pair.response, pair.attempts = choice["message"]["content"].strip(), attempt + 1
            if parse_score(pair.response) is not None:
                break
        pair.tokens = {
            "description": description_tokens,
            "prompt": tokens["prompt_tokens"],
            "analysis": tokens["completion_tokens"],
        }
        pair.expected_score = self._expected_score(url, pair.prompt)
        pair.p_yes = self._next(url, scoring.yes_no_question(pair.text)).get(prompts["yes"], 0.0)
        pair.seconds = time.perf_counter() - clock
        return pair.result()

    def _expected_score(self, url: str, question: str) -> float | None:
        """None where not one score is among the most probable tokens."""
        begun = self.scoring.prompts["score_begins"]
        found = self._next(url, question, begun)
        if "10" not in found and found.get("1"):  # a tokenizer of single digits: '1' is also the beginning of '10'
            zero = self._next(url, question, f"{begun}1").get("0", 0.0)
            found |= {"1": found["1"] * (1 - zero), "10": found["1"] * zero}
        probabilities = torch.tensor([found.get(str(score), 0.0) for score in SCORES], dtype=torch.float64)
        return expected_score(probabilities) if probabilities.sum() > 0 else None

    def _next(self, url: str, question: str, begun: str = "") -> dict[str, float]:
        """-> {token without spaces: probability} of what follows the question and the begun answer."""
        more: dict[str, Any] = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        if begun:  # vLLM's and SGLang's way to let an answer be gone on with
            more |= {"begun": begun, "continue_final_message": True, "add_generation_prompt": False}
        choice, _ = self._answer(url, question, 1, 0.0, 0, **more)
        found: dict[str, float] = {}
        for one in choice["logprobs"]["content"][0]["top_logprobs"]:
            token = one["token"].strip()
            found[token] = found.get(token, 0.0) + math.exp(one["logprob"])
        return found

    def _answer(
        self, url: str, question: str, max_tokens: int, temperature: float, seed: int, begun: str = "", **more: Any
    ) -> tuple[dict, dict]:
        """-> the server's choice, its count of tokens."""
        user = message("user", question)
        user["content"].insert(0, {"type": "image_url", "image_url": {"url": url}})
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages += [user] + ([{"role": "assistant", "content": begun}] if begun else [])
        reply = self._call(
            "chat/completions",
            {
                "model": self.model_id,
                "messages": messages,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "top_p": self.scoring.top_p if temperature else 1.0,
                "seed": seed % 2**31,
                **more,
            },
        )
        return reply["choices"][0], reply["usage"]

    def _call(self, path: str, content: dict | None = None) -> dict[str, Any]:
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '-')}",
        }
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.url}/{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise ValueError(
                f"{self.url}/{path}: HTTP {error.code} ({error.read()[:200].decode(errors='replace')})"
            ) from None
        except (OSError, ValueError) as error:  # not reached, or no JSON; a URL that is none
            reason = getattr(error, "reason", error)
            raise ValueError(f"--server_url {self.url}: gives no answer ({reason}); is the server running?") from None


def data_url(image: str | Path | Image.Image) -> str:
    opened = image.convert("RGB") if isinstance(image, Image.Image) else open_image(image)
    buffer = io.BytesIO()
    opened.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
