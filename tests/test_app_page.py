"""The page as its visitors meet it: over HTTP by gradio's client, and by clicks in Chromium where there is one."""

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT
from tiny.page import EVIL, QUESTION, SECRET, TEXTS

import app
from common.cli.errors import run_script

pytest.importorskip("gradio")  # which brings httpx
import httpx
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from webpage import answers, forms

TABS = ["Compare styles", "Search", "Match texts", "Describe and score", "ViTP", "Ask BLIP-2", "What if: style"]
CHINESE = "一只红色的鸟"


def page_flags(page_weights):
    return [word for name, value in page_weights.items() for word in (f"--{name}", value)] + ["--device", "cpu"]


@pytest.fixture(scope="module")
def page(page_weights):
    page = app.open_page([*page_flags(page_weights), "--port", "0", "--max_upload_mb", "1"])
    yield page
    page.close()


@pytest.fixture(scope="module")
def client(page):
    return Client(page.local_url, verbose=False)


def test_every_tab_answers(client, page_models, page_pictures, monkeypatch):
    first, second = map(handle_file, page_pictures)
    words, *maps = client.predict(first, second, api_name="/compare")
    assert "style similarity" in words and all(Path(one).stat().st_size for one in maps)
    found = client.predict(first, 3, api_name="/search_image")
    assert [one["caption"].split()[0] for one in found][0] == "1.000" and len(found) == 3
    assert len(client.predict("a red star", 3, api_name="/search_words")) == 3
    choices, heat = client.predict(first, TEXTS, api_name="/match")
    assert choices["value"] == choices["choices"][0][1] and EVIL in [text for _, text in choices["choices"]]
    other = client.predict(first, TEXTS, choices["choices"][1][1], api_name="/where")
    assert Path(other).read_bytes() != Path(heat).read_bytes()
    description, score, expected, yes, _, seconds = client.predict(first, "a red star", api_name="/describe")
    assert description and re.fullmatch(r"none given|\d+ of 10", score)
    assert 1 <= float(expected) <= 10 and 0 <= float(yes) <= 1 and float(seconds) >= 0
    told = client.predict(first, QUESTION, second, api_name="/what_if")
    assert client.predict(first, 2, api_name="/search_vitp")[0]["caption"].startswith("1.000")
    monkeypatch.setattr(answers, "MAX_NEW_TOKENS", 4)
    answer = answers.ask_vitp(page_models, page_pictures[0], QUESTION)
    assert client.predict(first, QUESTION, api_name="/ask_vitp") == answer
    assert client.predict(first, QUESTION, api_name="/ask")[0] == told[0]
    assert {one["label"] for one in told[1]["confidences"]} == {"noto", "black_cats"}
    assert told[1] != told[4] and told[2] != told[5]


def test_mistakes_are_one_line_and_name_no_folder(client, page_pictures, tmp_path):
    broken, svg = tmp_path / "broken.png", tmp_path / "a.png"
    broken.write_bytes(b"nothing of the kind")
    svg.write_text("<svg onload='window.evil=1'/>")
    first = handle_file(page_pictures[0])
    for values, name, words in (
        ((None, 3), "/search_image", "an image is missing"),
        ((handle_file(broken), 3), "/search_image", "broken.png: "),
        ((handle_file(svg), TEXTS), "/match", "a.png: an SVG drawing"),
        ((first, "  "), "/describe", "the text is empty"),
        ((first, "two <image> here"), "/describe", "the text holds &#x27;&lt;image&gt;&#x27;"),
    ):
        with pytest.raises(AppError) as error:
            client.predict(*values, api_name=name)
        assert error.value.message.startswith(words) and not {"/", "<", "\n"} & set(error.value.message)


def test_large_files_are_refused(page):
    address = f"{page.local_url}gradio_api/upload"
    for size, status in ((2**19, 200), (2**20 + 1, 413)):
        assert httpx.post(address, files={"files": ("a.png", b"0" * size)}).status_code == status


def test_files_of_this_machine_stay_here(page, client, page_weights):
    first = next(Path(page_weights["folder"]).rglob("*.png"))
    ask = f"{page.local_url}gradio_api/call/search_image"
    for path in (page_weights["style"], str(first), str(ROOT / "app.py"), "/etc/passwd"):
        assert httpx.get(f"{page.local_url}gradio_api/file={path}").status_code == 403
        sent = {"path": path, "meta": {"_type": "gradio.FileData"}}  # as if a visitor had sent it
        number = httpx.post(ask, json={"data": [sent, 3]}).json()["event_id"]
        assert httpx.get(f"{ask}/{number}", timeout=60).text.startswith("event: error")
    found = client.predict("a", 60, api_name="/search_words")
    assert EVIL in " ".join(one["caption"] for one in found)
    assert not any(SECRET.encode() in Path(one["image"]).read_bytes() for one in found)


def test_started_as_a_script(page_weights):
    command = [
        sys.executable,
        str(ROOT / "app.py"),
        "--style",
        page_weights["style"],
        "--port",
        "0",
        "--host",
        "0.0.0.0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")
    address = re.search(r"http://\S+", process.stdout.readline())[0]
    parts = httpx.get(f"{address}config").json()["components"]
    process.terminate()
    assert [part["props"]["label"] for part in parts if part["type"] == "tabitem"] == ["Compare styles"]
    assert "Match texts: <code>--clip FILE</code>" in str(parts)  # what is absent, and its flag
    assert "warning: --host 0.0.0.0" in process.stderr.read()


def test_a_port_that_is_taken(page, page_weights, monkeypatch, capsys):
    port = str(page.server_port)
    monkeypatch.setattr(sys, "argv", ["app.py", "--style", page_weights["style"], "--port", port])
    with pytest.raises(SystemExit, match="1"):
        run_script(app.main)
    assert re.fullmatch(rf"app.py: error: --port {port}: another program .* --port 0 .*\n", capsys.readouterr().err)


@pytest.fixture
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visitor(page, browser):
    visitor = browser.new_page()
    visitor.set_default_timeout(120_000)
    requested, errors = set(), []
    visitor.on("request", lambda request: requested.add(request.url))
    visitor.on("pageerror", lambda error: errors.append(error))
    visitor.goto(page.local_url)
    visitor.wait_for_selector("[role=tab]")
    yield visitor
    assert visitor.evaluate("window.evil") is None and visitor.locator("img[src=x]").count() == 0
    assert errors == [] and [url for url in requested if not url.startswith((page.local_url, "data:", "blob:"))] == []


def test_clicked_through_in_chromium(visitor, page_pictures, monkeypatch):
    """Every tab with its own buttons; each step waits for what it leaves on the page."""
    shown = visitor.locator("[role=tabpanel]:visible")
    error, warning = shown.locator(".status .error"), shown.locator(".status .warning")
    assert visitor.get_by_role("tab").all_inner_texts() == TABS

    def open_tab(name: str, images: list[str] = (), label: str = "", text: str = "") -> None:
        visitor.get_by_role("tab", name=name).click()
        for place, image in enumerate(images):
            shown.locator("input[type=file]").nth(place).set_input_files(image)
            shown.locator(".image-frame img").nth(place).wait_for()
        if label:
            shown.get_by_label(label).fill(text)

    def press(name: str) -> None:
        shown.get_by_role("button", name=name, exact=True).click()

    def wait_for_value(pattern: str) -> None:
        visitor.wait_for_function(
            f"[...document.querySelectorAll('textarea, input')].some(o => /{pattern}/.test(o.value))"
        )

    shown.locator(".examples .gallery-item").nth(1).click()
    shown.locator(".image-frame img").nth(1).wait_for()
    press("Compare")
    wait_for_value("style similarity")

    open_tab("Search")
    with monkeypatch.context() as patch:
        free = threading.Event()
        patch.setattr(forms, "read_value", lambda *_: free.wait(60) and "")
        press("Search by image")
        shown.locator(".status .progress-text").wait_for()
        buttons = shown.locator("button.lg").all()
        assert len(buttons) == 3 and all(button.is_disabled() for button in buttons)
        free.set()
        error.get_by_text("an image is missing").wait_for()
    press("Search with the selected image")
    error.get_by_text("no image is selected").wait_for()
    visitor.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "Queue is full."}))
    press("Search with the selected image")
    error.get_by_text("no answer").wait_for()
    visitor.unroute("**/queue/join*")
    shown.get_by_label("Text (CLIP vectors only)").fill("a red star")
    press("Search by text")
    shown.get_by_text(EVIL).first.wait_for()  # the name of a file, as text
    assert not error.count()
    shown.locator(".thumbnail-item").nth(2).click()
    name = shown.locator(".preview .caption").inner_text().split(" ", 1)[1].strip()
    press("Search with the selected image")
    shown.locator(".thumbnail-item").first.get_by_text(f"1.000  {name}").wait_for()
    assert_fits_a_phone(visitor)

    open_tab("Match texts", page_pictures[:1], "Texts, one per line", TEXTS)
    press("Match")
    choices = shown.get_by_role("radio")
    choices.nth(2).wait_for()
    assert EVIL in "".join(shown.locator("label").all_inner_texts())
    before = shown.locator("img").last.get_attribute("src")
    choices.last.click()
    shown.locator(f'img[src="{before}"]').wait_for(state="detached")
    shown.get_by_label("Texts, one per line").fill(f"{CHINESE}\n${{window.evil = 1}} {{{{value}}}}")
    press("Match")
    warning.get_by_text(f"no words for “{CHINESE}”").wait_for()
    assert_fits_a_phone(visitor)

    open_tab("Describe and score", page_pictures[:1], "Text to score", EVIL)
    press("Describe and score")
    wait_for_value("of 10|none given")
    open_tab("ViTP", page_pictures[:1], "Question", " ")
    shown.get_by_role("button", name="Ask", exact=True).click()
    error.get_by_text("the question is empty").wait_for()
    open_tab("Ask BLIP-2", page_pictures[:1])
    press("Ask")
    shown.get_by_text("black_cats").first.wait_for()
    open_tab("What if", page_pictures)
    press("Compare answers")
    shown.get_by_text("black_cats").nth(3).wait_for()
    assert_fits_a_phone(visitor)


def assert_fits_a_phone(visitor) -> None:
    """Nothing is wider than the screen; found images stand in two columns."""
    visitor.set_viewport_size({"width": 390, "height": 844})
    assert visitor.evaluate("document.documentElement.scrollWidth") == 390
    boxes = [item.bounding_box() for item in visitor.locator("[role=tabpanel]:visible .thumbnail-item").all()]
    assert len({round(box["x"]) for box in boxes}) in (0, 2) and all(box["x"] + box["width"] <= 390 for box in boxes)
    visitor.set_viewport_size({"width": 1280, "height": 844})
