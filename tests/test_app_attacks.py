"""Attacks on the page over HTTP: foreign hosts and web pages, other paths than uploads, too much, slow or odd."""

import asyncio
import json
import os
import re
import socket
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import ROOT
from PIL import Image

pytest.importorskip("gradio")  # which brings httpx
import httpx

import app
from webpage import answers, door
from webpage import page as page_module
from webpage.door import Door
from webpage.models import Models
from webpage.uploads import BODY_SECONDS, NOT_UPLOADED, SECONDS, Uploads

META = {"_type": "gradio.FileData"}
KB = 1024


@pytest.fixture(scope="module")
def page(page_weights):
    flags = ["--clip", page_weights["clip"], "--folder", page_weights["folder"], "--device", "cpu", "--port", "0"]
    page = app.open_page([*flags, "--max_upload_mb", "1", "--upload_quota_mb", "40"])
    yield page
    page.close()


@pytest.fixture(scope="module")
def api(page):
    with httpx.Client(base_url=f"{page.local_url}gradio_api/", timeout=60) as client:
        yield client


def upload(api, content=b"0", name="a.png", **options):
    return api.post("upload", files={"files": (name, content)}, **options)


def ask(api, name, *data):
    """The event that answers a call, as text."""
    content = json.dumps({"data": data})  # with half characters, which httpx does not send
    reply = api.post(f"call/{name}", content=content, headers={"Content-Type": "application/json"})
    return api.get(f"call/{name}/{reply.json()['event_id']}").text if reply.status_code == 200 else reply.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "a@localhost", "localhost.", "", "[::1"])
def test_foreign_names_of_this_machine(page, host):
    for headers in ({"Host": host}, {"X-Forwarded-Host": host}):
        reply = httpx.get(page.local_url, headers=headers)
        assert reply.status_code == 403 and "--hosts" in reply.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1:1", "[::1]:80", "[0:0:0:0:0:0:0:1]"])
def test_own_names_of_this_machine(page, host):
    assert httpx.get(page.local_url, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Referer": "http://evil.example/form.html"},
    ],
)
def test_forms_and_scripts_of_other_web_pages(page, api, headers):
    before = sum(map(len, (files for _, _, files in os.walk(os.environ["GRADIO_TEMP_DIR"]))))
    assert upload(api, headers=headers).status_code == 403
    assert sum(map(len, (files for _, _, files in os.walk(os.environ["GRADIO_TEMP_DIR"])))) == before
    assert api.post("queue/join", json={"data": [], "fn_index": 0}, headers=headers).status_code == 403
    preflight = api.options("upload", headers={**headers, "Access-Control-Request-Method": "POST"})
    assert preflight.status_code >= 400 and "access-control-allow-origin" not in preflight.headers
    if "Referer" not in headers:
        assert api.get("info", headers=headers).status_code == 403  # nor may they read or show anything


def test_other_pages_may_link_here_but_not_frame_it(page):
    reply = httpx.get(page.local_url, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert reply.status_code == 200 and reply.headers["X-Frame-Options"] == "DENY"
    own = {"Origin": page.local_url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert httpx.get(f"{page.local_url}config", headers=own).status_code == 200


def test_forms_are_not_json(api):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        reply = api.post("queue/join", content=b'{"data": [], "fn_index": 0}', headers={"Content-Type": kind})
        assert reply.status_code == 415


def routes_of(router):
    for route in router.routes:
        if hasattr(route, "path"):
            yield from ((method, route.path) for method in getattr(route, "methods", ()))
        else:
            yield from routes_of(route.original_router)


def test_every_route_of_gradio_is_closed_or_described(page):
    """A route that another version of gradio adds is closed; one that is open has its row in docs/app.md."""
    text = (ROOT / "docs" / "app.md").read_text(encoding="utf-8")
    found = {(method, path.rstrip("/") or "/") for method, path in routes_of(page.app)}
    assert ("POST", "/gradio_api/upload") in found
    for method, path in sorted(found):
        if method in ("GET", "HEAD"):
            is_open = door.READ.fullmatch(re.sub(r"\{.*?\}", "x", path))
        else:
            is_open = method == "POST" and (door.ASK.fullmatch(path) or door.UPLOAD.fullmatch(path))
        rows = [line for line in text.splitlines() if line.startswith("|") and f"`{path}`" in line]
        assert [row.split("|")[2].strip() for row in rows] == ["open" if is_open else "closed"], (method, path)


@pytest.mark.parametrize("path", ["run/search_words", "api/search_words", "component_server", "vibe-code/", "reset"])
def test_ways_round_the_queue_are_closed(api, path):
    assert api.post(path, json={"data": ["a star", 3]}).status_code == 404


def forms_of(path):
    file = {"path": path, "meta": META, "url": None, "orig_name": "a.png", "is_stream": False}
    return [
        file,
        {"path": path},
        {**file, "is_stream": True},
        path,
        [file],
        {"path": {"path": path}},
        {"url": f"file://{path}"},
        {**file, "path": f"file://{path}"},
        {"__type__": "update", "value": file},
        {"image": file},
    ]


def test_pictures_of_this_machine_are_no_uploads(page, api, page_pictures, page_weights, tmp_path):
    inside = upload(api, Path(page_pictures[0]).read_bytes()).json()[0]
    assert ask(api, "search_image", {"path": inside, "meta": META}, 1).startswith("event: complete")
    assert ask(api, "search_image", {"path": inside}, 1).startswith("event: complete")
    link = Path(inside).with_name("link.png")
    link.symlink_to(page_pictures[1])
    answered = [
        ask(api, "search_image", form, 1) for path in (page_pictures[1], str(link)) for form in forms_of(path)
    ] + [
        ask(api, "search_image", {"path": path, "meta": META}, 1)
        for path in (
            f"{inside}/../../../../{page_pictures[1]}",
            f"http://127.0.0.1:{page.server_port}/gradio_api/file={inside}",
            "/etc/passwd",
            "/no/such/file",
            os.path.relpath(inside),
        )
    ]
    for text in answered:
        assert text.startswith("event: error") and page_pictures[1] not in text.replace("input_value", "")
    assert len(set(answered[-4:])) == 1 and NOT_UPLOADED in answered[-1]  # nor whether a file exists
    for path in (page_pictures[1], str(link), page_weights["clip"], f"{inside}/../../../private", "http://a.org/"):
        assert api.get(f"file={path}").status_code == 403
    assert api.get(f"file={inside}").content == Path(page_pictures[0]).read_bytes()


def test_the_queue_takes_no_other_paths(page, api, page_pictures):
    """By the number of a function, as the page itself asks, with the file in the data of a text as well."""
    file = {"path": page_pictures[0], "meta": META}
    for number, function in page.fns.items():
        body = {"data": [file] * len(function.inputs), "fn_index": number, "session_hash": f"s{number}"}
        assert api.post("queue/join", json=body).status_code == 200
        with api.stream("GET", "queue/data", params={"session_hash": f"s{number}"}) as stream:
            text = "".join(stream.iter_text())
        assert '"success":false' in text and page_pictures[0] not in text and '"url"' not in text


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
        ("search_words", [[[[[[[[[[[[[[[[[[[[[[["a"]]]]]]]]]]]]]]]]]]]]]], 3], "nested too deeply"),
    ],
)
def test_limits_hold_on_the_server(api, name, data, words):
    assert words in ask(api, name, *data)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"data": [NaN]}', b"[" * 50_000, b"\xff", b'{"fn_index": []}'])
def test_bodies_that_are_no_question(api, body):
    reply = api.post("queue/join", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422 and len(reply.text) < 300


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


def test_slow_bodies(page, monkeypatch):
    monkeypatch.setattr(door, "IDLE_SECONDS", 0.2)
    for path, kind in (("upload", "multipart/form-data; boundary=x"), ("queue/join", "application/json")):
        with socket.create_connection(("127.0.0.1", page.server_port), timeout=20) as connection:
            head = f"POST /gradio_api/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
            connection.sendall(f"{head}Content-Length: 1000\r\n\r\n--x".encode())
            assert b" 408 " in connection.recv(100)


@pytest.mark.parametrize(
    "name", ["../../a.png", "a\0.png", "C:\\a.png", "x" * 300 + ".png", "图.png", "<img src=x>.png", ".htaccess", "CON"]
)
def test_odd_names(api, name):
    (path,) = upload(api, name=name).json()
    assert Path(path).is_relative_to(os.environ["GRADIO_TEMP_DIR"]) and Path(path).read_bytes() == b"0"
    reply = api.get(f"file={quote(path)}")
    is_picture = path.endswith(".png")
    assert reply.status_code == 200 and ("attachment" in reply.headers["Content-Disposition"]) != is_picture


def test_more_requests_than_wait(api, monkeypatch):
    free = threading.Event()
    monkeypatch.setattr(page_module, "read_value", lambda *_: free.wait(30) and "")
    replies = [api.post("call/search_words", json={"data": ["a star", 3]}) for _ in range(40)]
    refused = [reply for reply in replies if reply.status_code != 200]
    free.set()
    assert 6 <= len(refused) <= 8 and all(
        reply.status_code == 503 and "Queue is full" in reply.text for reply in refused
    )
    for reply in replies[:3]:
        assert "no words" in api.get(f"call/search_words/{reply.json()['event_id']}").text


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


def test_an_index_shows_nothing_outside_its_folder(tmp_path):
    class Store:
        image_dir = tmp_path / "images"

    class Searcher:
        store = Store

    for folder in ("images", "private"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8), "red").save(tmp_path / folder / "a.png")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "private" / "a.png")
    models = Models(index="an index")
    models.searcher = Searcher
    names = ("a.png", "link.png", "../private/a.png", f"{tmp_path}/private/a.png")
    paths = [Store.image_dir / name for name in names]
    shown = answers.thumbnails(models, [[1.0] * len(paths)], [paths])
    assert ["outside" in caption for _, caption in shown] == [False, True, True, True]
    assert [picture.getpixel((0, 0)) == (255, 0, 0) for picture, _ in shown] == [True, False, False, False]
