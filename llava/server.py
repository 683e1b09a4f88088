"""Two-stage analysis by an OpenAI-compatible server (vLLM, SGLang), which batches requests continuously by itself.

groups (an image, its texts) -> SERVER_REQUESTS of them at a time -> POST {url}/chat/completions, images as data URLs

Probabilities come from the server's top_logprobs, of which most give 20; tokens outside of these count as 0. The prompt
stays the same up to the image, so the server's own prefix cache serves all texts of an image. API key: OPENAI_API_KEY.
"""

import base64
import io
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import torch
from PIL import Image

from common.cli.errors import one_line
from llava.analysis import Analyzer, ImageTexts, ScoredText
from llava.score_parsing import SCORES, expected_score, parse_score
from llava.scoring_config import ScoringConfig
from llava.tokens import message

TOP_LOGPROBS = 20


class ServerAnalyzer(Analyzer):
    """model_id: the name under which the server offers the model; timeout: seconds for one answer."""

    def __init__(
        self,
        url: str,
        model_id: str,
        scoring: ScoringConfig | None = None,
        system_prompt: str = "auto",
        requests: int = 16,
        timeout: float = 600.0,
    ):
        self.url, self.model_id, self.timeout = url.rstrip("/"), model_id, timeout
        self.scoring, self.requests = scoring or ScoringConfig(), requests
        self.system = "" if system_prompt == "auto" else system_prompt  # the server's chat template may have its own
        served = [model["id"] for model in self._call("models")["data"]]
        if model_id not in served:
            raise ValueError(f"--model_id {model_id}: not at {url}, which has {', '.join(served)}")

    def analyze_groups(self, groups: list[ImageTexts]) -> Iterator[ImageTexts]:
        with ThreadPoolExecutor(self.requests) as pool:
            for finished in as_completed([pool.submit(self._analyze, group) for group in groups]):
                yield finished.result()

    def _analyze(self, group: ImageTexts) -> ImageTexts:
        start = time.perf_counter()
        scoring = self.scoring
        try:
            url = data_url(group.open())
            description, usage = self._answer(
                url, scoring.prompts["describe"], scoring.description_tokens, scoring.description_temperature
            )
        except (ValueError, OSError) as error:
            group.fail(one_line(error))
        for text in group.usable():
            text.description = description["message"]["content"].strip()
            text.tokens["description"] = usage["completion_tokens"]
            try:
                self._score(text, url)
            except (ValueError, OSError) as error:
                text.error = one_line(error)
            text.seconds, start = time.perf_counter() - start, time.perf_counter()
        return group

    def _score(self, text: ScoredText, url: str) -> None:
        scoring = self.scoring
        text.prompt = scoring.score_question(text.text, text.description)
        for attempt in range(scoring.score_attempts):
            seed = scoring.seed_for(text.prompt, attempt)
            choice, usage = self._answer(url, text.prompt, scoring.analysis_tokens, scoring.score_temperature, seed)
            text.response, text.attempts = choice["message"]["content"].strip(), attempt + 1
            if parse_score(text.response) is not None:
                break
        text.tokens |= {"prompt": usage["prompt_tokens"], "analysis": usage["completion_tokens"]}
        text.expected_score = self._expected_score(url, text.prompt)
        text.p_yes = self._next_tokens(url, scoring.yes_no_question(text.text)).get(scoring.prompts["yes"], 0.0)

    def _expected_score(self, url: str, question: str) -> float | None:
        """None if no score is among the most probable tokens."""
        begun = self.scoring.prompts["score_begins"]
        shares = self._next_tokens(url, question, begun)
        if "10" not in shares and shares.get("1"):  # a tokenizer of single digits: '1' also begins '10'
            zero = self._next_tokens(url, question, f"{begun}1").get("0", 0.0)
            shares |= {"1": shares["1"] * (1 - zero), "10": shares["1"] * zero}
        probabilities = torch.tensor([shares.get(str(score), 0.0) for score in SCORES], dtype=torch.float64)
        return expected_score(probabilities) if probabilities.sum() > 0 else None

    def _next_tokens(self, url: str, question: str, begun: str = "") -> dict[str, float]:
        """-> {token without spaces: probability} of what follows the question and the begun answer."""
        choice, _ = self._answer(url, question, 1, begun=begun, logprobs=True, top_logprobs=TOP_LOGPROBS)
        shares: defaultdict[str, float] = defaultdict(float)
        for entry in choice["logprobs"]["content"][0]["top_logprobs"]:
            shares[entry["token"].strip()] += math.exp(entry["logprob"])
        return dict(shares)

    def _answer(
        self,
        url: str,
        question: str,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        begun: str = "",
        **more: Any,
    ) -> tuple[dict, dict]:
        """-> the server's choice, its token counts."""
        user = message("user", question)
        user["content"].insert(0, {"type": "image_url", "image_url": {"url": url}})
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append(user)
        if begun:  # vLLM's and SGLang's way to continue an answer
            messages.append({"role": "assistant", "content": begun})
            more |= {"continue_final_message": True, "add_generation_prompt": False}
        request = {
            "model": self.model_id,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": self.scoring.top_p if temperature else 1.0,
            "seed": seed % 2**31,
            **more,
        }
        reply = self._call("chat/completions", request)
        return reply["choices"][0], reply["usage"]

    def _call(self, path: str, content: dict | None = None) -> dict[str, Any]:
        key = os.environ.get("OPENAI_API_KEY", "-")
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.url}/{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            detail = error.read()[:200].decode(errors="replace")
            raise ValueError(f"{self.url}/{path}: HTTP {error.code} ({detail})") from None
        except (OSError, ValueError) as error:  # not reached, not JSON, or an invalid URL
            reason = getattr(error, "reason", error)
            raise ValueError(f"--server_url {self.url}: no valid answer ({reason}); is the server running?") from None


def data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
