"""Layout of the web page: a tab for each system whose weights are given, with inputs, a button and outputs.

Models -> gradio.Blocks

Text from a file, a caption or a visitor is shown only by components that do not interpret it: text boxes, labels,
gallery captions. `gr.Error` alone takes HTML, so its message is escaped here.

Whatever a visitor sends is checked here, by the component that it is for, and by nothing of gradio's.
"""

import html
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from common.cli.errors import one_line
from common.text.values import text_of
from webpage import answers
from webpage.models import Models
from webpage.uploads import Uploads

FONTS: dict[str, Any] = {
    "font": ["system-ui", "sans-serif"],
    "font_mono": ["ui-monospace", "monospace"],
}  # the visitor's own
CSS = """
.choices .wrap { flex-direction: column; } .choices label { width: 100%; }
.results .grid-container { grid-template-columns: repeat(auto-fill, minmax(min(200px, 45%), 1fr)); }
"""
MAX_TEXT = 2000  # characters
MAX_LINES = 20_000  # characters of many texts
MAX_WAITING = 32  # requests


def build_page(models: Models, uploads: Uploads) -> gr.Blocks:
    with gr.Blocks(title="vision-wrapper", analytics_enabled=False) as page:
        gr.HTML("<h1>vision-wrapper</h1>")
        for weights, name, fill_tab in (
            (models.style, "Compare styles", fill_styles),
            (models.index or models.folder, "Search", fill_search),
            (models.clip, "Match texts", fill_match),
            (models.llava, "Describe and score", fill_describe),
            (models.blip2, "What if: style", fill_what_if),
        ):
            if weights:
                with gr.Tab(name):
                    gr.HTML(f"<small>{html.escape('/'.join(Path(weights).parts[-2:]))}</small>")
                    fill_tab(models, uploads)
    return page.queue(max_size=MAX_WAITING)


def fill_styles(models: Models, uploads: Uploads) -> None:
    images = [_image_input("First image"), _image_input("Second image")]
    maps = [_image_output(f"Sensitivity of the style head, {name} image", 320) for name in ("first", "second")]
    similarity = gr.Textbox(label="Similarity", lines=6, render=False)
    _form(uploads, "Compare", partial(answers.compare_styles, models), images, [similarity, *maps], "compare")


def fill_search(models: Models, uploads: Uploads) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            image = _image_input("Image").render()
            by_image = gr.Button("Find images like this", variant="primary")
            words = gr.Textbox(label="Or words, if the vectors are a CLIP's", max_length=MAX_TEXT)
            by_words = gr.Button("Find images of these words", variant="primary")
            count = gr.Slider(1, 60, 12, step=1, label="How many")
        with gr.Column(scale=3):
            results = gr.Gallery(
                label="Results, most similar first",
                height=720,
                object_fit="contain",
                format="jpeg",
                buttons=["fullscreen"],
                elem_classes="results",
            )
    _connect(
        uploads, by_image.click, partial(answers.search_by_image, models), [image, count], [results], "search_image"
    )
    search_words = partial(answers.search_by_words, models)
    _connect(uploads, [by_words.click, words.submit], search_words, [words, count], [results], "search_words")


def fill_match(models: Models, uploads: Uploads) -> None:
    def match(image: str, texts: str) -> tuple:
        ranked = answers.match_texts(models, image, texts)
        choices = [(f"{row['score']:.3f} · {row['probability']:.1%} · {row['text']}", row["text"]) for row in ranked]
        best = ranked[0]["text"]
        return gr.Radio(choices=choices, value=best), answers.show_text(models, image, texts, best)

    texts = gr.Textbox(label="Texts, one per line", lines=4, max_length=MAX_LINES, render=False)
    inputs = [_image_input("Image"), texts]
    chosen = gr.Radio([], label="Cosine, probability among these texts, text", elem_classes="choices", render=False)
    heat = _image_output("Heat map of the chosen text", 400)
    _form(uploads, "Match", match, inputs, [chosen, heat], "match")
    _connect(uploads, chosen.input, partial(answers.show_text, models), [*inputs, chosen], [heat], "where")


def fill_describe(models: Models, uploads: Uploads) -> None:
    text = gr.Textbox(label="Text to be scored against it", max_length=MAX_TEXT, render=False)
    outputs = [
        gr.Textbox(label=label, render=False)
        for label in ("Description", "Score", "Expected score", "P(yes)", "Analysis", "Seconds")
    ]
    _form(
        uploads,
        "Describe and score",
        partial(answers.describe, models),
        [_image_input("Image"), text],
        outputs,
        "describe",
    )


def fill_what_if(models: Models, uploads: Uploads) -> None:
    question = gr.Textbox("In which style is this picture drawn?", label="Question", max_length=MAX_TEXT, render=False)
    inputs = [_image_input("Image"), question, _image_input("Take the style from (none: gates closed)")]
    outputs: list[gr.Textbox | gr.Label] = []
    for name in ("Answer as it is", "Answer with the other style"):
        outputs.append(gr.Textbox(label=name, render=False))
        for label in ("Styles given to the gates", "Probability of each style's name as the answer"):
            outputs.append(gr.Label(label=label, num_top_classes=5, show_heading=False, render=False))
    _form(uploads, "Ask twice", partial(answers.what_if, models), inputs, outputs, "what_if")


def _form(uploads: Uploads, button: str, function: Callable, inputs: list, outputs: list, api_name: str) -> None:
    """Inputs and a button on the left, outputs on the right."""
    with gr.Row():
        with gr.Column():
            for component in inputs:
                component.render()
            click = gr.Button(button, variant="primary").click
        with gr.Column():
            for component in outputs:
                component.render()
    _connect(uploads, click, function, inputs, outputs, api_name)


def _image_input(label: str) -> gr.Image:
    return gr.Image(type="filepath", sources=["upload", "clipboard"], label=label, height=280, buttons=[], render=False)


def _image_output(label: str, height: int) -> gr.Image:
    """Without gradio's button that sends the picture to its makers' site."""
    return gr.Image(label=label, format="png", height=height, buttons=["fullscreen", "download"], render=False)


def read_value(uploads: Uploads, component: gr.components.Component, value: Any) -> Any:
    """What a visitor sent for a component -> path of an upload, text or whole number; ValueError for all else.

    An image that is not given is ''.
    """
    if isinstance(component, gr.Image):
        if not value:
            return ""
        return str(uploads.check(value.get("path")))
    if isinstance(component, gr.Slider):
        lowest, highest = int(component.minimum), int(component.maximum)
        if isinstance(value, bool) or value not in range(lowest, highest + 1):
            raise ValueError(f"{component.label}: expected a whole number from {lowest} to {highest}")
        return int(value)
    text, longest = text_of(value or ""), getattr(component, "max_length", MAX_TEXT)
    if len(text) > longest:
        raise ValueError(f"{component.label}: {len(text):,} characters; at most {longest:,} are read")
    return text


def _connect(uploads: Uploads, triggers: Any, function: Callable, inputs: list, outputs: list, api_name: str) -> None:
    """Call `function` on a click, an entered line or a choice; one call at a time, as on one device.

    User errors are shown as one line on the page; a bug keeps its traceback, on the server. Progress is shown on the
    first output alone, or an error would be shown on each of them.
    """
    for component in outputs:
        component.GRADIO_CACHE = str(uploads.results)

    def answer(*sent: Any) -> Any:
        uploads.sweep()
        try:
            return function(*map(partial(read_value, uploads), inputs, sent))
        except (ValueError, OSError) as error:
            line = re.sub(re.escape(str(uploads.uploads)) + "/[^/]*/", "", one_line(error))
            raise gr.Error(html.escape(line), print_exception=False) from None

    gr.on(
        triggers,
        answer,
        inputs,
        outputs,
        api_name=api_name,
        preprocess=False,
        concurrency_limit=1,
        concurrency_id="models",
        show_progress_on=outputs[0],
    )
