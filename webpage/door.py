"""The one door of the page: an ASGI application in front of gradio's, through which every request comes.

Host       names of this machine alone, so that no foreign name can be rebound to it (DNS rebinding)
Origin     the page's own, so that no other web page can upload, ask, or read an answer
route      those that the page needs; the rest of gradio's do not exist here (table in docs/app.md)
body       its size, its pace, the room for uploads; JSON, whose files must be uploads of this page

A refused request is answered with a status and one line; nothing of it reaches gradio. One that gradio fails on is
answered in the same way, with a line in the log.
"""

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.cli.errors import one_line, printable
from common.text.files import parse_json
from webpage.uploads import BODY_SECONDS, Uploads

API = "/gradio_api"
FILE = f"{API}/file="
READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|robots\.txt|manifest\.json)|/(assets|static|svelte)/.{1,200}"
    rf"|{API}/(info|theme\.css|upload_progress|queue/data|heartbeat/[^/]+|call/[^/]+/[^/]+|file=.+)"
)
ASK = re.compile(rf"{API}/(queue/join|cancel|call/[^/]+)/?")
UPLOAD = re.compile(rf"{API}/upload/?")
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)
LOG = logging.getLogger("uvicorn.error")
MAX_JSON = 262_144  # bytes
MAX_DEPTH = 20  # of lists and objects in each other
FORM_BYTES = 8192  # around the one file of an upload
IDLE_SECONDS = 20  # between two parts of a body
HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; "
    "form-action 'self'; base-uri 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Function(NamedTuple):
    """A function of the page."""

    name: str  # '' = not to be called by its name
    takes_image: list[bool]  # of each input


class Door:
    """hosts: names that visitors may type; with any_address also the address at which a request comes in.

    max_upload: bytes of a file. functions: of the page, by their numbers.
    """

    def __init__(
        self,
        app: ASGIApp,
        uploads: Uploads,
        functions: Mapping[int, Function],
        hosts: Iterable[str],
        max_upload: int,
        any_address: bool = False,
    ):
        self.app, self.uploads, self.functions = app, uploads, functions
        self.max_upload, self.any_address = max_upload, any_address
        self.hosts = {_plain(host) for host in ("localhost", "127.0.0.1", "::1", *hosts)}
        self.arriving = 0  # bytes that uploads in progress may still bring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # the page has no websockets
            return await send({"type": "websocket.close", "code": 1008})
        reply = Reply(send)
        try:
            headers = Headers(scope=scope)
            self._check_host(headers, scope)
            _check_origin(headers, scope)
            await self._pass(scope, receive, reply.send, headers)
        except ClientDisconnect:
            pass
        except HTTPException as refusal:
            await reply.refuse(scope, receive, refusal.status_code, refusal.detail)
        except Exception as error:  # gradio raises all kinds, for requests that no browser sends
            status = 500 if isinstance(error, OSError) else 400  # 500: of this machine, as a full disk
            asked = printable(f"{scope['method']} {scope['path'][:100]}")
            if not isinstance(error.__cause__, HTTPException):  # as of a session that is gone, told in the reply
                LOG.error(f"{asked}: {status}, {type(error).__name__}: {one_line(error)[:200]}")
            expected = "; expected a form whose field 'files' is a file" if UPLOAD.fullmatch(scope["path"]) else ""
            await reply.refuse(scope, receive, status, f"the request cannot be answered{expected}")

    async def _pass(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD") and READ.fullmatch(path):
            if path.startswith(FILE):
                self._check_file(path.removeprefix(FILE))
            await self.app(scope, receive, send)
        elif method == "POST" and UPLOAD.fullmatch(path):
            size = _length(headers, self.max_upload + FORM_BYTES)
            if await run_in_threadpool(self.uploads.room) < self.arriving + size:
                raise HTTPException(507, "no space for more uploads; they are deleted after an hour")
            self.arriving += size
            try:
                await self.app(scope, _limited(receive, size), send)
            finally:
                self.arriving -= size
        elif method == "POST" and ASK.fullmatch(path):
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise HTTPException(415, "expected Content-Type: application/json")
            body = await self._checked_json(path, _limited(receive, _length(headers, MAX_JSON)))
            rest = [item for item in scope["headers"] if item[0] not in (b"content-length", b"transfer-encoding")]
            scope = {**scope, "headers": [*rest, (b"content-length", str(len(body)).encode())]}
            await self.app(scope, _replayed(body, receive), send)
        else:
            raise HTTPException(404, f"{method}: no such route")

    def _check_host(self, headers: Headers, scope: Scope) -> None:
        names = [*headers.getlist("host"), *headers.getlist("x-forwarded-host")]
        allowed = self.hosts | ({_plain(scope["server"][0])} if self.any_address and scope.get("server") else set())
        if len(headers.getlist("host")) != 1 or not all(
            (match := HOST.fullmatch(name)) and _plain(match[1]) in allowed for name in names
        ):
            raise HTTPException(403, "unknown host name; start app.py with --hosts NAME to allow it")

    def _check_file(self, path: str) -> None:
        try:
            self.uploads.check_served(path)
        except ValueError as error:
            raise HTTPException(403, str(error)) from None

    async def _checked_json(self, path: str, receive: Receive) -> bytes:
        """The body, for a function of the page, with the files in it checked."""
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        try:
            content = parse_json(b"".join(parts))
            if not isinstance(content, dict):
                raise ValueError("expected a JSON object")
            called = path.removeprefix(f"{API}/call/").rstrip("/")
            number = next((key for key, function in self.functions.items() if function.name == called), None)
            function = self.functions.get(content.get("fn_index", "") if number is None else number)
            if function is None:
                raise ValueError("the page has no such function")
            content = self.only_uploads(content)
            if isinstance(data := content.get("data"), list):  # the rest is what gradio refuses
                if len(data) != len(function.takes_image):
                    raise ValueError(f"{len(data)} inputs; {function.name} has {len(function.takes_image)}")
                content["data"] = [
                    {"path": None} if is_image and not (value is None or isinstance(value, dict)) else value
                    for is_image, value in zip(function.takes_image, data)
                ]
            return json.dumps(content, allow_nan=False).encode()
        except (ValueError, TypeError) as error:  # not JSON, NaN, a list in place of a number
            raise HTTPException(422, str(error)) from None

    def only_uploads(self, value: Any, depth: int = 0) -> Any:
        """A JSON value in which every description of a file, wherever it stands, is cut down to the path of an upload,
        or to none: gradio would fetch an address, and copy another file, before any answer is computed."""
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(value, list):
            return [self.only_uploads(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        if value.keys() & {"path", "meta", "url"}:
            with suppress(ValueError):
                return {"path": str(self.uploads.check(value.get("path"))), "meta": {"_type": "gradio.FileData"}}
            return {"path": None}
        return {name: self.only_uploads(item, depth + 1) for name, item in value.items()}


class Reply:
    """What is sent back: with HEADERS, and nothing of gradio's for an exception of its own, which comes here too."""

    def __init__(self, send: Send):
        self._send = send
        self._is_failure = self._has_begun = self._is_stream = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_failure = message["status"] == 500
            self._has_begun = not self._is_failure
            self._is_stream = "content-length" not in Headers(raw=message["headers"])
        elif not message.get("more_body", False):
            self._is_stream = False
        if not self._is_failure:
            await self._send_headed(message)

    async def refuse(self, scope: Scope, receive: Receive, status: int, line: str) -> None:
        """A status and one line, or the end of a stream that has begun."""
        if not self._has_begun:
            is_upload = UPLOAD.fullmatch(scope["path"])  # whose errors gradio's page shows as they are
            response = PlainTextResponse(line, status) if is_upload else JSONResponse({"detail": line}, status)
            await response(scope, receive, self._send_headed)
        elif self._is_stream:
            await self._send({"type": "http.response.body"})

    async def _send_headed(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await self._send(message)


def _check_origin(headers: Headers, scope: Scope) -> None:
    """Browsers say where a request comes from; other programs say nothing, and no web page can make them."""
    site, method = headers.get("sec-fetch-site", "none"), scope["method"]
    followed = method == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
    origins = headers.getlist("origin") or ([] if method in ("GET", "HEAD") else headers.getlist("referer"))
    own = all(urlsplit(origin).netloc.lower() == headers["host"].lower() for origin in origins)
    if not own or (site not in ("same-origin", "none") and not followed):
        raise HTTPException(403, "requests from other web pages are refused")


def _plain(host: str) -> str:
    """A host in one form: small letters, addresses without brackets and as short as they get."""
    host = host.strip("[]").lower()
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(address.ipv4_mapped or address) if isinstance(address, IPv6Address) else host


def _length(headers: Headers, limit: int) -> int:
    """Bytes that a request may bring: as many as it announces, or all that are allowed."""
    announced = headers.get("content-length", str(limit))
    if not announced.isdecimal() or int(announced) > limit:
        raise HTTPException(413, f"the request is too large; at most {limit:,} bytes")
    return int(announced)


def _limited(receive: Receive, limit: int) -> Receive:
    """A body of at most `limit` bytes that arrives at a human pace; afterwards, whatever comes."""
    left, ends, complete = limit, time.monotonic() + BODY_SECONDS, False

    async def limited() -> Message:
        nonlocal left, complete
        if complete:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(0, min(IDLE_SECONDS, ends - time.monotonic())))
        except TimeoutError:
            raise HTTPException(408, "the request took too long") from None
        left -= len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if left < 0:
            raise HTTPException(413, f"the request is too large; at most {limit:,} bytes")
        return message

    return limited


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return messages.pop() if messages else await receive()

    return replayed


def own_names() -> list[str]:
    """Names of this machine on its network."""
    name = socket.gethostname()
    return [name, f"{name}.local"]
