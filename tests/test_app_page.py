"""The page as its visitors meet it: over HTTP by gradio's client, and by clicks in Chromium where there is one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from tiny.page import EVIL, QUESTION, SECRET, TEXTS

import app

pytest.importorskip("gradio")  # which brings httpx
import httpx
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

TABS = {"Compare styles", "Search", "Match texts", "Describe and score", "What if: style"}


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


def test_every_tab_answers(client, page_pictures):
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


def test_large_files_are_refused(page, tmp_path):
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
    text = httpx.get(address).text
    process.terminate()
    assert "Compare styles" in text and "Match texts" not in text
    assert "warning: --host 0.0.0.0" in process.stderr.read()


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


def test_clicked_through_in_chromium(page, browser, page_pictures):
    visitor = browser.new_page()
    visitor.set_default_timeout(120_000)
    asked, wrong = set(), []
    visitor.on("request", lambda request: asked.add(request.url))
    visitor.on("pageerror", lambda error: wrong.append(error))
    visitor.goto(page.local_url)
    visitor.wait_for_selector("[role=tab]")
    assert set(visitor.get_by_role("tab").all_inner_texts()) == TABS
    click_through(visitor, page_pictures)
    assert visitor.evaluate("window.evil") is None and visitor.locator("img[src=x]").count() == 0
    assert wrong == [] and [url for url in asked if not url.startswith((page.local_url, "data:", "blob:"))] == []


def click_through(visitor, images: list[str]) -> None:
    """Every tab with its own buttons; each step waits for what it leaves on the page."""
    shown = visitor.locator("[role=tabpanel]:visible")

    def fill(tab: str, images: list[str], label: str = "", text: str = "") -> None:
        visitor.get_by_role("tab", name=tab).click()
        for place, image in enumerate(images, 1):
            shown.locator("input[type=file]").nth(place - 1).set_input_files(image)
            shown.locator(f":nth-match(.image-frame img, {place})").wait_for()
        if label:
            shown.get_by_label(label).fill(text)

    def press(name: str) -> None:
        shown.get_by_role("button", name=name, exact=True).click()

    def wait_for_value(pattern: str) -> None:
        visitor.wait_for_function(
            f"[...document.querySelectorAll('textarea, input')].some(o => /{pattern}/.test(o.value))"
        )

    fill("Compare styles", images)
    press("Compare")
    wait_for_value("style similarity")
    fill("Search", [], "Or words", "a red star")
    press("Find images of these words")
    shown.get_by_text(EVIL).first.wait_for()  # the name of a file, as text
    press("Find images like this")
    visitor.get_by_text("an image is missing").wait_for()
    fill("Match texts", images[:1], "Texts, one per line", TEXTS)
    press("Match")
    choices = shown.get_by_role("radio")
    choices.nth(2).wait_for()
    assert EVIL in "".join(shown.locator("label").all_inner_texts())
    before = shown.locator("img").last.get_attribute("src")
    choices.last.click()
    shown.locator(f'img[src="{before}"]').wait_for(state="detached")
    fill("Describe and score", images[:1], "Text to be scored", EVIL)
    press("Describe and score")
    wait_for_value("of 10|none given")
    fill("What if", images)
    press("Ask twice")
    shown.get_by_text("black_cats").nth(3).wait_for()
