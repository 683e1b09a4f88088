"""Requests to an OpenAI-compatible server, by the client of the `openai` package.

The client tries again after a lost connection, a cut reply, and statuses 408, 409, 429 and 5xx, for as long as
Retry-After says or with growing pauses. Here unusable replies under status 200 are asked for again too, and a limit of
time holds for each answer as a whole, so that a server that sends a byte now and then holds up nothing.
"""

import asyncio
import os
from typing import Any, Literal
from urllib.parse import urlsplit

import openai

from llava.server_replies import Reply, quote, read_completion, read_model_list

RETRIES = 4
PAUSE = 0.5  # seconds before an unusable reply is asked for again, doubled each time
ENDPOINTS = ("/chat/completions", "/completions", "/models")
REFUSED = (400, 413, 415, 422)  # of this request; what else goes wrong may be the server


class ServerError(ValueError):
    """fault: what is wrong: this 'request' alone, the 'reply', the 'connection', or the 'key' for all."""

    def __init__(self, message: str, fault: Literal["request", "reply", "connection", "key"]):
        super().__init__(message)
        self.fault = fault


class ChatClient:
    """base_url: with or without /v1. seconds: limit for one answer, retries included. Use it in one event loop."""

    def __init__(self, base_url: str, seconds: float, retries: int = RETRIES):
        self.url, self.seconds, self.retries = normalized_url(base_url), seconds, retries
        timeout = openai.Timeout(seconds, connect=10.0)
        key = os.environ.get("OPENAI_API_KEY", "").strip() or "-"
        self.client = openai.AsyncOpenAI(api_key=key, base_url=self.url, max_retries=retries, timeout=timeout)

    async def complete(self, **request: Any) -> Reply:
        """The answer to a request of the chat API; ServerError if there is none."""
        return await self._call(self.client.chat.completions, "create", read_completion, request)

    async def models(self) -> list[str]:
        """Names of the models; empty where the server does not list all of them."""
        return await self._call(self.client.models, "list", read_model_list, {})

    async def _call(self, endpoint: Any, method: str, read: Any, request: dict[str, Any]) -> Any:
        place = f"--server_url {self.url}"
        try:
            async with asyncio.timeout(self.seconds):
                for attempt in range(self.retries + 1):
                    response = await getattr(endpoint.with_raw_response, method)(**request)
                    try:
                        return read(response.content)
                    except ValueError as error:
                        problem = str(error)
                    if attempt < self.retries:
                        await asyncio.sleep(PAUSE * 2**attempt)
        except openai.APIStatusError as error:
            detail = f"HTTP {error.status_code} ({quote(error.response.content)})"
            if error.status_code == 401:
                raise ServerError(f"{place}: {detail}; set OPENAI_API_KEY to its key", "key") from None
            raise ServerError(f"{place}: {detail}", "request" if error.status_code in REFUSED else "reply") from None
        except (openai.APITimeoutError, TimeoutError):
            message = f"{place}: no answer in {self.seconds:g} s; is the server running?"
            raise ServerError(message, "connection") from None
        except openai.APIConnectionError as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise ServerError(f"{place}: no answer ({reason}); is the server running?", "connection") from None
        raise ServerError(f"{place}: {problem}", "reply")


def normalized_url(url: str) -> str:
    """A scheme where none is given; no slash and no endpoint at the end."""
    url = url.strip()
    url = (url if "://" in url else f"http://{url}").rstrip("/")
    for endpoint in ENDPOINTS:
        url = url.removesuffix(endpoint).rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port or an IPv6 address
        valid = False
    if not valid or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise ValueError(f"--server_url {url}: expected http://host:port/v1")
    return url
