"""Attacks on the page over HTTP: foreign hosts and web pages, ways round the door, and other paths than uploads."""

import os
import re
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import Image

pytest.importorskip("gradio")  # which brings httpx
import httpx
from tiny.page import ask, upload

from webpage import answers, door
from webpage.models import Models
from webpage.uploads import NOT_UPLOADED

META = {"_type": "gradio.FileData"}


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "a@localhost", "localhost.", "", "[::1"])
def test_foreign_names_of_this_machine(small_page, host):
    for headers in ({"Host": host}, {"X-Forwarded-Host": host}):
        reply = httpx.get(small_page.local_url, headers=headers)
        assert reply.status_code == 403 and "--hosts" in reply.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:7860", "127.0.0.1:1", "[::1]:80", "[0:0:0:0:0:0:0:1]"])
def test_own_names_of_this_machine(small_page, host):
    assert httpx.get(small_page.local_url, headers={"Host": host}).status_code == 200


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
def test_forms_and_scripts_of_other_web_pages(small_page, api, headers):
    folder = Path(upload(api).json()[0]).parents[1]
    before = set(folder.rglob("*"))
    assert upload(api, b"1", headers=headers).status_code == 403 and set(folder.rglob("*")) == before
    assert api.post("queue/join", json={"data": [], "fn_index": 0}, headers=headers).status_code == 403
    preflight = api.options("upload", headers={**headers, "Access-Control-Request-Method": "POST"})
    assert preflight.status_code >= 400 and "access-control-allow-origin" not in preflight.headers
    if "Referer" not in headers:
        assert api.get("info", headers=headers).status_code == 403  # nor may they read or show anything


def test_other_pages_may_link_here_but_not_frame_it(small_page):
    reply = httpx.get(small_page.local_url, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert reply.status_code == 200 and reply.headers["X-Frame-Options"] == "DENY"
    own = {"Origin": small_page.local_url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert httpx.get(f"{small_page.local_url}config", headers=own).status_code == 200


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


def test_every_route_of_gradio_is_closed_or_described(small_page):
    """A route that another version of gradio adds is closed; one that is open has its row in docs/app.md."""
    text = (ROOT / "docs" / "app.md").read_text(encoding="utf-8")
    found = {(method, path.rstrip("/") or "/") for method, path in routes_of(small_page.app)}
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


def test_pictures_of_this_machine_are_no_uploads(small_page, api, page_pictures, page_weights):
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
            f"http://127.0.0.1:{small_page.server_port}/gradio_api/file={inside}",
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


def test_the_queue_takes_no_other_paths(small_page, api, page_pictures):
    """By the number of a function, as the page itself asks, with the file in the data of a text as well."""
    file = {"path": page_pictures[0], "meta": META}
    for number, function in small_page.fns.items():
        if not function.fn:  # of the browser alone
            assert api.post("queue/join", json={"data": [], "fn_index": number}).status_code == 422
            continue
        body = {"data": [file] * len(function.inputs), "fn_index": number, "session_hash": f"s{number}"}
        assert api.post("queue/join", json=body).status_code == 200
        with api.stream("GET", "queue/data", params={"session_hash": f"s{number}"}) as stream:
            text = "".join(stream.iter_text())
        assert page_pictures[0] not in text and '"url"' not in text
        assert '"success":false' in text or 'class=\\"error' in text  # for programs, on the page


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
    assert ["outside" in match.caption for match in shown] == [False, True, True, True]
    assert [match.path for match in shown] == [str(paths[0]), "", "", ""]
    assert [match.picture.getpixel((0, 0)) == (255, 0, 0) for match in shown] == [True, False, False, False]
