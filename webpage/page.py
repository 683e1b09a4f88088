"""Layout of the web page: a tab for each system whose weights are given, with inputs, a button and outputs.

Models -> gradio.Blocks

Text from a file, a caption or a visitor is shown only by components that do not interpret it: text boxes, labels,
gallery captions. `gr.Error` alone takes HTML, so its message is escaped here.
"""

import html
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import gradio as gr

from common.cli.errors import one_line
from webpage import answers
from webpage.models import Models

FONTS: dict[str, Any] = {
    "font": ["system-ui", "sans-serif"],
    "font_mono": ["ui-monospace", "monospace"],
}  # the visitor's own
CSS = """
.choices .wrap { flex-direction: column; } .choices label { width: 100%; }
.results .grid-container { grid-template-columns: repeat(auto-fill, minmax(min(200px, 45%), 1fr)); }
"""
UPLOAD_SECONDS = 3600  # how long uploads are kept
MAX_TEXT = 2000  # characters
MAX_LINES = 20_000  # characters of many texts


def build_page(models: Models) -> gr.Blocks:
    with gr.Blocks(title="vision-wrapper", analytics_enabled=False, delete_cache=(600, UPLOAD_SECONDS)) as page:
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
                    fill_tab(models)
    return page


def fill_styles(models: Models) -> None:
    images = [_image_input("First image"), _image_input("Second image")]
    maps = [_image_output(f"Sensitivity of the style head, {name} image", 320) for name in ("first", "second")]
    similarity = gr.Textbox(label="Similarity", lines=6, render=False)
    _form("Compare", partial(answers.compare_styles, models), images, [similarity, *maps], "compare")


def fill_search(models: Models) -> None:
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
    _connect(by_image.click, partial(answers.search_by_image, models), [image, count], [results], "search_image")
    search_words = partial(answers.search_by_words, models)
    _connect([by_words.click, words.submit], search_words, [words, count], [results], "search_words")


def fill_match(models: Models) -> None:
    def match(image: str, texts: str) -> tuple:
        ranked = answers.match_texts(models, image, texts)
        choices = [(f"{row['score']:.3f} · {row['probability']:.1%} · {row['text']}", row["text"]) for row in ranked]
        best = ranked[0]["text"]
        return gr.Radio(choices=choices, value=best), answers.show_text(models, image, texts, best)

    texts = gr.Textbox(label="Texts, one per line", lines=4, max_length=MAX_LINES, render=False)
    inputs = [_image_input("Image"), texts]
    chosen = gr.Radio([], label="Cosine, probability among these texts, text", elem_classes="choices", render=False)
    heat = _image_output("Heat map of the chosen text", 400)
    _form("Match", match, inputs, [chosen, heat], "match")
    _connect(chosen.input, partial(answers.show_text, models), [*inputs, chosen], [heat], "where")


def fill_describe(models: Models) -> None:
    text = gr.Textbox(label="Text to be scored against it", max_length=MAX_TEXT, render=False)
    outputs = [
        gr.Textbox(label=label, render=False)
        for label in ("Description", "Score", "Expected score", "P(yes)", "Analysis", "Seconds")
    ]
    _form("Describe and score", partial(answers.describe, models), [_image_input("Image"), text], outputs, "describe")


def fill_what_if(models: Models) -> None:
    question = gr.Textbox("In which style is this picture drawn?", label="Question", max_length=MAX_TEXT, render=False)
    inputs = [_image_input("Image"), question, _image_input("Take the style from (none: gates closed)")]
    outputs = []
    for name in ("Answer as it is", "Answer with the other style"):
        outputs.append(gr.Textbox(label=name, render=False))
        for label in ("Styles given to the gates", "Probability of each style's name as the answer"):
            outputs.append(gr.Label(label=label, num_top_classes=5, show_heading=False, render=False))
    _form("Ask twice", partial(answers.what_if, models), inputs, outputs, "what_if")


def _form(button: str, function: Callable, inputs: list, outputs: list, api_name: str) -> None:
    """Inputs and a button on the left, outputs on the right."""
    with gr.Row():
        with gr.Column():
            for component in inputs:
                component.render()
            click = gr.Button(button, variant="primary").click
        with gr.Column():
            for component in outputs:
                component.render()
    _connect(click, function, inputs, outputs, api_name)


def _image_input(label: str) -> gr.Image:
    component = gr.Image(
        type="filepath", sources=["upload", "clipboard"], label=label, height=280, buttons=[], render=False
    )
    # gradio's own would decode the file here, whatever its size; common.images.io opens it, and names what is wrong
    component.preprocess = lambda upload: upload.path if upload else None
    return component


def _image_output(label: str, height: int) -> gr.Image:
    """Without gradio's button that sends the picture to its makers' site."""
    return gr.Image(label=label, format="png", height=height, buttons=["fullscreen", "download"], render=False)


def _connect(triggers: Any, function: Callable, inputs: list, outputs: list, api_name: str) -> None:
    """Call `function` on a click, an entered line or a choice; one call at a time, as on one device.

    User errors are shown as one line on the page; a bug keeps its traceback, on the server. Progress is shown on the
    first output alone, or an error would be shown on each of them.
    """

    @wraps(function)
    def answer(*values: Any) -> Any:
        try:
            return function(*values)
        except (ValueError, OSError) as error:
            line = one_line(error)
            for path in (value for value in values if isinstance(value, str) and Path(value).is_absolute()):
                line = line.replace(path, Path(path).name)  # the folder of uploads is not shown
            raise gr.Error(html.escape(line), print_exception=False) from None

    gr.on(
        triggers,
        answer,
        inputs,
        outputs,
        api_name=api_name,
        concurrency_limit=1,
        concurrency_id="models",
        show_progress_on=outputs[0],
    )
