"""The server of the page: gradio's application behind webpage/door.py, in a thread of uvicorn.

gradio.Blocks -> FastAPI -> Door -> http://host:port
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.http_server import Server
from starlette.concurrency import run_in_threadpool
from uvicorn.protocols.http.h11_impl import H11Protocol

from webpage.door import Door, Function, own_names
from webpage.uploads import Uploads

SWEEP_SECONDS = 60
MAX_CONNECTIONS = 256
HEADER_SECONDS = 20  # until all headers of a request are there
MAX_SESSIONS = 256  # visitors whose last input gradio keeps
FONTS: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # theirs


def serve(
    page: gr.Blocks, uploads: Uploads, listening: socket.socket, host: str, hosts: list[str], max_upload: int
) -> None:
    """Start the server; `page.local_url`, `page.close()` and `page.block_thread()` are those of a launched page.

    hosts: further names under which visitors may call it. max_upload: bytes of one file.
    """
    page.state_session_capacity = MAX_SESSIONS
    inner = gr.mount_gradio_app(
        FastAPI(lifespan=lambda app: _sweeping(uploads, page), openapi_url=None),
        page,
        path="/",
        footer_links=["api"],
        run_history=False,
        show_error=False,
        allowed_paths=[str(uploads.results), str(uploads.samples)],
        max_file_size=max_upload,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(**FONTS),
        css=Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
    )
    any_address = host in ("0.0.0.0", "::")
    names = [*hosts, *(own_names() if any_address else [host])]
    functions = {
        number: Function(
            str(function.api_name) if function.api_visibility == "public" else "",
            [isinstance(item, gr.Image) for item in function.inputs],
        )
        for number, function in page.fns.items()
        if function.fn  # the others run in the browser alone
    }
    config = uvicorn.Config(
        Door(inner, uploads, functions, names, max_upload, any_address),
        http=TimedConnection,
        log_level="error",  # not a line for each request that is none
        limit_concurrency=MAX_CONNECTIONS,
        proxy_headers=False,
        server_header=False,
        ws="none",
    )
    page.server = server = Server(config)
    server.thread = Thread(target=server.run, args=([listening],), daemon=True)
    server.thread.start()
    while not server.started:
        server.thread.join(0.01)
        if not server.thread.is_alive():
            raise ValueError("the server did not start; its log is above")
    page.is_running = True
    shown = "localhost" if any_address else f"[{host}]" if ":" in host else host
    page.server_port = listening.getsockname()[1]
    page.local_url = f"http://{shown}:{page.server_port}/"  # type: ignore[assignment]  # None until it is served


class TimedConnection(H11Protocol):
    """A connection that ends where the headers of a request, or what follows an answered one, take too long, and at
    once where too many are open: the machine has only so many."""

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.timer:
            self.timer.cancel()

    def _watch(self) -> None:
        """The time runs while no request is being answered."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering and self.timer:
            self.timer.cancel()
            self.timer = None
        elif not is_answering and not self.timer:
            self.timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)


@asynccontextmanager
async def _sweeping(uploads: Uploads, page: gr.Blocks) -> AsyncIterator[None]:
    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await run_in_threadpool(uploads.sweep)
            for names in page.temp_file_sets:  # gradio's own lists of files to delete
                names.clear()

    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()
