"""Shards as img2dataset writes them, and a server of them that can be slow, break off, or be out of order."""

import io
import json
import tarfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (40, 36), kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def sample_members(key: str, seed: int) -> dict[str, bytes]:
    """The three members of a sample of img2dataset."""
    record = {"caption": f"picture {seed}", "key": key, "status": "success", "width": 40, "height": 36}
    return {
        f"{key}.jpg": picture(seed),
        f"{key}.txt": f"picture {seed}".encode(),
        f"{key}.json": json.dumps(record).encode(),
    }


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w", **options) -> Path:
    with tarfile.open(path, mode, **options) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_shards(folder: Path, shards: int = 6, samples: int = 20, stats: bool = True) -> Path:
    """00000.tar, 00000_stats.json, ...; a shard has one sample more than the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        keys = [f"{shard:05d}{number:04d}" for number in range(samples + shard)]
        members = [sample_members(key, shard * 1000 + number) for number, key in enumerate(keys)]
        write_tar(folder / f"{shard:05d}.tar", {name: content for part in members for name, content in part.items()})
        if stats:
            content = {"count": len(keys) + 2, "successes": len(keys), "failed_to_download": 2}
            (folder / f"{shard:05d}_stats.json").write_text(json.dumps(content))
    return folder


class Faults:
    """What a server does wrong. requests: the (path, Range or '') of all of them.

    unavailable: {name: how many requests are answered by 503 first}. breaks: {name: after how many bytes a connection
    ends, each time}. hangs: {name: after how many bytes nothing more comes}. pages: names answered by HTML.
    """

    def __init__(self, ranges: bool = True, seconds_per_block: float = 0.0):
        self.ranges, self.seconds_per_block = ranges, seconds_per_block
        self.unavailable: dict[str, int] = {}
        self.breaks: dict[str, int] = {}
        self.hangs: dict[str, int] = {}
        self.pages: set[str] = set()
        self.requests: list[tuple[str, str]] = []


@contextmanager
def serve(folder: Path, faults: Faults):
    """-> URL of a folder, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            name, wanted = self.path.lstrip("/"), self.headers.get("Range", "")
            faults.requests.append((name, wanted))
            if faults.unavailable.get(name, 0) > 0:
                faults.unavailable[name] -= 1
                return self.send(503, b"try again")
            if name in faults.pages:
                return self.send(200, b"<!DOCTYPE html><html>please log in</html>", kind="text/html")
            if not (folder / name).is_file():
                return self.send(404, b"no such file")
            content, start = (folder / name).read_bytes(), 0
            if faults.ranges and wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, stop = int(first), int(last) + 1 if last else len(content)
                headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
                return self.send(206, content[start:stop], name, headers)
            return self.send(200, content, name)

        def send(self, status: int, body: bytes, name: str = "", headers: dict | None = None, kind="x/tar") -> None:
            self.send_response(status)
            headers = {"Content-Length": str(len(body)), "Content-Type": kind, **(headers or {})}
            for header, value in headers.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            limit = min(faults.breaks.get(name, len(body)), faults.hangs.get(name, len(body)))
            for begin in range(0, min(limit, len(body)), 2**14):
                time.sleep(faults.seconds_per_block)
                self.wfile.write(body[begin : min(begin + 2**14, limit)])
            if name in faults.hangs and limit < len(body):
                time.sleep(2)
            if limit < len(body):
                time.sleep(0.3)  # aiohttp drops what a broken connection has brought and nobody has read
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *arguments) -> None:
            """A client that has read enough closes its connection."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
