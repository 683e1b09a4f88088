"""Limits of the page over HTTP: too much, too slow, too odd, and what it keeps for how long."""

import asyncio
import os
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("gradio")  # which brings httpx
import httpx
from processes import wait_until
from tiny.page import ask, upload

from webpage import door, forms, server
from webpage.door import Door
from webpage.uploads import BODY_SECONDS, NOT_UPLOADED, SECONDS, Uploads

KB = 1024


@pytest.mark.parametrize(
    "name, data, words",
    [
        ("search_words", ["x" * 2001, 3], "2,001 characters"),
        ("search_words", [{"a": 1}, 3], "expected text"),
        ("search_words", ["a\ud800", 3], "surrogate"),
        ("search_words", ["a star", 61], "whole number from 1 to 60"),
        ("search_words", ["a star", 1.5], "whole number from 1 to 60"),
        ("search_words", ["a star", True], "whole number from 1 to 60"),
        ("search_words", ["a star", 10**400], "whole number from 1 to 60"),
        ("search_image", [None, 3], "an image is missing"),
        ("match", [None, "x\n" * 10_001], "characters"),
        ("where", [None, "a", "x" * 2001], "characters"),
        ("no_such", [1], "no such function"),
        ("search_words", ["a star"], "1 inputs"),
        ("search_image", ["a.png", 3], NOT_UPLOADED),
        ("search_image", [["a.png"], 3], NOT_UPLOADED),
        ("search_image", [0, 3], NOT_UPLOADED),
        ("search_words", [[[[[[[[[[[[[[[[[[[[[[["a"]]]]]]]]]]]]]]]]]]]]]], 3], "nested too deeply"),
    ],
)
def test_limits_hold_on_the_server(api, name, data, words):
    assert words in ask(api, name, *data)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"data": [NaN]}', b"[" * 50_000, b"\xff", b'{"fn_index": []}'])
def test_bodies_that_are_no_question(api, body):
    reply = api.post("queue/join", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422 and len(reply.text) < 300


@pytest.mark.parametrize("index", [-1, 2, True, "0", None, 1.0, [0], 10**400])
def test_places_in_a_list_that_no_page_sends(index):
    with pytest.raises(forms.gr.Error, match="no such picture"):
        forms.pick(["a", "b"], index)


FILE = b'Content-Disposition: form-data; name="files"; filename="a.png"'


@pytest.mark.parametrize(
    "part, boundary",
    [
        (FILE.partition(b"; filename")[0], "x"),  # text in place of a file
        (FILE.replace(b"filename", b"filename*"), "x"),
        (FILE, "x" * 3000),
        (FILE.replace(b"name=", b"x="), "x"),
    ],
)
def test_forms_that_gradio_fails_on(api, capfd, part, boundary):
    body = b"--%b\r\n%b\r\n\r\n0\r\n--%b--\r\n" % (boundary.encode(), part, boundary.encode())
    kind = f"multipart/form-data; boundary={boundary}"
    reply = api.post("upload", content=body, headers={"Content-Type": kind})
    assert reply.status_code == 400 and "\n" not in reply.text
    assert len(capfd.readouterr().err.splitlines()) <= 1


def test_what_is_gone_or_left_leaves_no_traceback(small_page, api, capfd):
    assert "Not Found" in api.get("call/search_words/nothing").text
    assert "not_found" in api.get("queue/data", params={"session_hash": "nobody"}).text
    assert api.get(f"{small_page.local_url}assets/{'a' * 300}").status_code == 404
    with socket.create_connection(("127.0.0.1", small_page.server_port)) as connection:
        head = (
            "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        )
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n--x".encode())
    assert api.get("info").status_code == 200
    assert capfd.readouterr().err == ""


def test_large_bodies(api):
    def chunks(count):
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        yield from [b"0" * 100 * KB] * count

    assert api.post("call/search_words", json={"data": ["x" * 300 * KB, 3]}).status_code == 413
    assert upload(api, b"0" * 1100 * KB).status_code == 413
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert api.post("upload", content=chunks(30), headers=kind).status_code == 413  # no length announced
    two = [("files", (name, b"0" * 800 * KB)) for name in ("a.png", "b.png")]
    assert api.post("upload", files=two).status_code == 413


def test_slow_bodies(small_page, monkeypatch):
    monkeypatch.setattr(door, "IDLE_SECONDS", 0.2)
    for path, kind in (("upload", "multipart/form-data; boundary=x"), ("queue/join", "application/json")):
        with socket.create_connection(("127.0.0.1", small_page.server_port), timeout=20) as connection:
            head = f"POST /gradio_api/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
            connection.sendall(f"{head}Content-Length: 1000\r\n\r\n--x".encode())
            assert b" 408 " in connection.recv(100)


@pytest.mark.parametrize(
    "sent, later",
    [
        ("", ""),
        ("GET / HTTP/1.1\r\n", "a: b\r\n"),
        ("GET /robots.txt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n", "x"),
        ("GET /robots.txt HTTP/1.1\r\nHost: localhost\r\n\r\nGET", "x"),
    ],
)
def test_slow_headers_and_what_follows_an_answer(small_page, monkeypatch, sent, later):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", small_page.server_port), timeout=20) as connection:
        connection.sendall(sent.encode())
        with pytest.raises((ConnectionError, EOFError)):
            for _ in range(30):
                time.sleep(0.1)
                connection.sendall(later.encode())
                connection.settimeout(0.1)
                with suppress(TimeoutError):
                    if not connection.recv(10_000):
                        raise EOFError


def test_more_connections_than_are_answered(small_page, api, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 5)
    with ExitStack() as stack:
        address = ("127.0.0.1", small_page.server_port)
        opened = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(9)]
        with pytest.raises(ConnectionError):
            opened[-1].sendall(b"GET / HTTP/1.1\r\n")
            opened[-1].recv(1) or opened[-1].sendall(b"x")

    def is_served():
        with suppress(httpx.TransportError):
            return api.get("info").status_code == 200

    wait_until(is_served, seconds=30)


@pytest.mark.parametrize(
    "name", ["../../a.png", "a\0.png", "C:\\a.png", "x" * 300 + ".png", "图.png", "<img src=x>.png", ".htaccess", "CON"]
)
def test_odd_names(api, name):
    (path,) = upload(api, name=name).json()
    folder = Path(upload(api, b"1").json()[0]).parents[1]
    assert Path(path).parents[1] == folder and Path(path).read_bytes() == b"0"
    reply = api.get(f"file={quote(path)}")
    is_picture = path.endswith(".png")
    assert reply.status_code == 200 and ("attachment" in reply.headers["Content-Disposition"]) != is_picture


def test_more_requests_than_wait(api, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr(forms, "read_value", lambda *_: free.wait(30) and "")
    replies = [api.post("call/search_words", json={"data": ["a star", 3]}) for _ in range(40)]
    refused = [reply for reply in replies if reply.status_code != 200]
    free.set()
    assert 6 <= len(refused) <= 8 and all(
        reply.status_code == 503 and "Queue is full" in reply.text for reply in refused
    )
    for reply in replies[:3]:
        assert "the text is empty" in api.get(f"call/search_words/{reply.json()['event_id']}").text


def test_uploads_end_at_the_quota_and_after_an_hour(tmp_path):
    uploads = Uploads(5 * 64 * KB, tmp_path)

    def add(folder, name, size, age):
        path = folder / name / "a.png"
        path.parent.mkdir()
        path.write_bytes(b"0" * size)
        os.utime(path, (time.time() - age, time.time() - age))
        return path

    assert uploads.room() == 5 * 64 * KB
    old, young = add(uploads.uploads, "old", 1, SECONDS + 9), add(uploads.uploads, "young", 100 * KB, 9)
    aborted = uploads.uploads / "tmpx"
    aborted.write_bytes(b"")
    os.utime(aborted, (0, time.time() - BODY_SECONDS - 9))
    drawn = [add(uploads.results, str(age), 64 * KB, age) for age in (SECONDS + 9, 6, 5, 4, 3, 2, 1)]
    assert uploads.room() == 5 * 64 * KB - 64 * KB - 64 * KB - 100 * KB  # an empty file counts as well
    uploads.sweep()
    assert young.exists() and not old.parent.exists() and not aborted.exists()
    assert [path.exists() for path in drawn] == [False, False, True, True, True, True, True]
    uploads.close()
    assert list(tmp_path.iterdir()) == []


async def _call(door, headers=(), path="/gradio_api/upload", server=("192.168.1.5", 80)):
    """-> status of a request with a body of 10 bytes."""
    messages = []
    scope = {"type": "http", "method": "POST", "path": path, "server": server, "headers": list(headers)}

    async def receive():
        return {"type": "http.request", "body": b"0123456789"}

    async def send(message):
        messages.append(message)

    await door(scope, receive, send)
    return messages[0]["status"]


async def _read_all(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})


def test_uploads_in_progress_count(tmp_path):
    async def many():
        door = Door(_read_all, Uploads(64 * KB, tmp_path), {}, (), 40 * KB)
        waiting = asyncio.Event()

        async def wait(scope, receive, send):
            await waiting.wait()
            await _read_all(scope, receive, send)

        door.app = wait
        first = asyncio.create_task(_call(door, [(b"host", b"localhost")]))
        await asyncio.sleep(0.1)
        second = await _call(door, [(b"host", b"localhost")])
        waiting.set()
        return await first, second, await _call(door, [(b"host", b"localhost")]), door.arriving

    assert asyncio.run(many()) == (200, 507, 200, 0)


@pytest.mark.parametrize(
    "any_address, host, status",
    [
        (True, b"192.168.1.5:7860", 200),
        (True, b"192.168.1.6", 403),
        (False, b"192.168.1.5", 403),
        (True, b"own.name", 200),
        (False, b"OWN.name:80", 200),
        (True, b"evil.example", 403),
    ],
)
def test_names_on_a_network(tmp_path, any_address, host, status):
    door = Door(_read_all, Uploads(2**20, tmp_path), {}, ["own.name"], 2**10, any_address)
    assert asyncio.run(_call(door, [(b"host", host)])) == status
    assert asyncio.run(_call(door, [(b"host", host), (b"host", b"localhost")])) == 403
