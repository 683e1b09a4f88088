"""Two-stage analysis by an OpenAI-compatible server (vLLM, SGLang), which batches requests continuously by itself.

groups (an image, its texts) -> SERVER_REQUESTS of them at a time -> POST {url}/chat/completions, images as data URLs

Probabilities come from the server's top_logprobs, of which most give 20; tokens outside of these count as 0. The prompt
stays the same up to the image, so the server's own prefix cache serves all texts of an image. API key: OPENAI_API_KEY.
A reply that cannot be used costs its own pair; MAX_FAILURES such pairs in a row, or a wrong key, end the run.
"""

import base64
import io
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import as_completed
from functools import partial
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import torch
from anyio import CapacityLimiter, to_thread
from anyio.from_thread import start_blocking_portal
from PIL import Image

from common.cli.errors import one_line
from llava.analysis import Analyzer, ImageTexts, ScoredText, ServerGone
from llava.score_parsing import SCORES, expected_score, parse_score
from llava.scoring_config import ScoringConfig
from llava.server_client import ChatClient, ServerError, normalized_url
from llava.server_replies import Reply
from llava.tokens import message

Ask = Callable[..., Awaitable[Reply]]  # ServerAnalyzer._ask about one image
TOP_LOGPROBS = 20
MAX_FAILURES = 10  # pairs in a row for which the server fails


class ServerAnalyzer(Analyzer):
    """model_id: the name under which the server offers the model; timeout: seconds for one answer."""

    def __init__(
        self,
        url: str,
        model_id: str,
        scoring: ScoringConfig | None = None,
        system_prompt: str = "auto",
        requests: int = 16,
        timeout: float = 300.0,
    ):
        self.model_id, self.timeout = model_id, timeout
        self.scoring, self.requests = scoring or ScoringConfig(), requests
        self.system = "" if system_prompt == "auto" else system_prompt  # the server's chat template may have its own
        with start_blocking_portal() as portal:
            self.url = portal.call(self._find_model, normalized_url(url))
        self.failures = 0  # in a row
        self.stopped = ""  # why the server is given up
        self.said_no_probabilities = False

    async def _find_model(self, url: str) -> str:
        """The URL under which the server lists its models: itself, or with /v1. A server may also list none."""
        for base in dict.fromkeys((url, url if url.endswith("/v1") else f"{url}/v1")):
            client = ChatClient(base, min(self.timeout, 60.0), retries=1)
            try:
                served = await client.models()
            except ServerError as error:
                if error.fault in ("key", "connection"):
                    raise
                continue
            if served and not any(_is_model(name, self.model_id) for name in served):
                raise ValueError(f"--model_id {self.model_id}: not at {base}, which has {', '.join(served)}")
            if served:
                return base
        return url if urlsplit(url).path else f"{url}/v1"

    def analyze_groups(self, groups: list[ImageTexts]) -> Iterator[ImageTexts]:
        with start_blocking_portal() as portal:  # of one event loop; leaving it early cancels what is under way
            client, limit = ChatClient(self.url, self.timeout), CapacityLimiter(self.requests)
            waiting = [portal.start_task_soon(self._analyze, group, client, limit) for group in groups]
            for finished in as_completed(waiting):
                if group := finished.result():
                    yield group
        if self.stopped:
            raise ServerGone(
                f"{self.stopped}; run the same command again when it answers; finished results stay in the output"
            )

    async def _analyze(self, group: ImageTexts, client: ChatClient, limit: CapacityLimiter) -> ImageTexts | None:
        """None if the server was given up before."""
        async with limit:
            if self.stopped:
                return None
            try:
                url = await to_thread.run_sync(lambda: data_url(group.open()))
            except (ValueError, OSError) as error:
                group.fail(one_line(error))
                return group
            ask, description = partial(self._ask, client, url), None
            for text in group.usable():
                start = perf_counter()
                try:
                    description = description or await ask(
                        self.scoring.prompts["describe"],
                        self.scoring.description_tokens,
                        self.scoring.description_temperature,
                    )
                    await self._score(ask, text, description)
                    self.failures = 0
                except ServerError as error:
                    text.error = one_line(error)
                    self._count_failure(error)
                text.seconds = perf_counter() - start
                if self.stopped:
                    group.fail(self.stopped)
                    break
            return group

    def _count_failure(self, error: ServerError) -> None:
        self.failures += error.fault != "request"
        if error.fault == "key":
            self.stopped = str(error)
        elif self.failures >= MAX_FAILURES:
            self.stopped = f"{self.failures} pairs in a row failed, the last: {error}"

    async def _score(self, ask: Ask, text: ScoredText, description: Reply) -> None:
        scoring = self.scoring
        text.description = description.text.strip()
        text.prompt = scoring.score_question(text.text, text.description)
        for attempt in range(scoring.score_attempts):
            seed = scoring.seed_for(text.prompt, attempt)
            answer = await ask(text.prompt, scoring.analysis_tokens, scoring.score_temperature, seed)
            text.response, text.attempts = answer.text.strip(), attempt + 1
            if parse_score(text.response) is not None:
                break
        counts = {
            "description": description.tokens.get("completion_tokens"),
            "prompt": answer.tokens.get("prompt_tokens"),
            "analysis": answer.tokens.get("completion_tokens"),
        }
        text.tokens = {name: count for name, count in counts.items() if count is not None}
        text.expected_score = await self._expected_score(ask, text.prompt)
        if shares := await self._next_tokens(ask, scoring.yes_no_question(text.text)):
            text.p_yes = min(1.0, shares.get(scoring.prompts["yes"], 0.0))

    async def _expected_score(self, ask: Ask, question: str) -> float | None:
        """None if no score is among the most probable tokens."""
        begun = self.scoring.prompts["score_begins"]
        shares = await self._next_tokens(ask, question, begun) or {}
        if "10" not in shares and shares.get("1"):  # a tokenizer of single digits: '1' also begins '10'
            zero = (await self._next_tokens(ask, question, f"{begun}1") or {}).get("0", 0.0)
            shares |= {"1": shares["1"] * (1 - zero), "10": shares["1"] * zero}
        probabilities = torch.tensor([shares.get(str(score), 0.0) for score in SCORES], dtype=torch.float64)
        return expected_score(probabilities) if probabilities.sum() > 0 else None

    async def _next_tokens(self, ask: Ask, question: str, begun: str = "") -> dict[str, float] | None:
        """-> {token without spaces: probability} of what follows the question and the begun answer; None if the
        server gives no probabilities."""
        more = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        try:
            reply = await ask(question, 1, begun=begun, **more)
            if reply.next_tokens:
                return reply.next_tokens
            reason = "its replies hold none"
        except ServerError as error:
            if error.fault != "request":
                raise
            reason = one_line(error)
        if not self.said_no_probabilities:
            print(f"without probabilities, expected_score and p_yes are null: {reason}", file=sys.stderr)
        self.said_no_probabilities = True
        return None

    async def _ask(
        self,
        client: ChatClient,
        url: str,
        question: str,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        begun: str = "",
        **more: Any,
    ) -> Reply:
        """ServerError if there is no answer. url: of the image."""
        user = message("user", question)
        user["content"].insert(0, {"type": "image_url", "image_url": {"url": url}})
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append(user)
        if begun:  # vLLM's and SGLang's way to continue an answer
            messages.append({"role": "assistant", "content": begun})
            more["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
        reply = await client.complete(
            model=self.model_id,
            messages=messages,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=self.scoring.top_p if temperature else 1.0,
            seed=seed % 2**31,
            **more,
        )
        if reply.problem and "logprobs" not in more:  # a single token may be a space
            raise ServerError(f"--server_url {self.url}: {reply.problem}", "request")
        return reply


def _is_model(served: str, name: str) -> bool:
    """Whether a server's name for a model is `name`; some put a publisher before it or a tag behind."""
    return served == name or served.endswith(f"/{name}") or served.startswith(f"{name}:")


def data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
