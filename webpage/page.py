"""The page: a tab for each system whose weights are there, each a row of inputs, a button and what comes back.

Models -> gradio.Blocks

Whatever comes from a file, a caption or a visitor is shown by parts that take it for text: text boxes, labels, gallery
captions. Only `gr.Error` takes HTML, so its words are escaped here.
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

FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # the visitor's own
STYLE = ".choices .wrap { flex-direction: column; } .choices label { width: 100%; }"
KEPT_SECONDS = 3600  # how long what visitors send is kept
MOST_WORDS = 2000  # characters of a text
MOST_LINES = 20_000  # characters of many texts


def build_page(models: Models) -> gr.Blocks:
    with gr.Blocks(title="vision-wrapper", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)) as page:
        gr.HTML("<h1>vision-wrapper</h1>")
        for given, name, fill in (
            (models.style, "Compare styles", fill_styles),
            (models.index or models.folder, "Search", fill_search),
            (models.clip, "Match texts", fill_match),
            (models.llava, "Describe and score", fill_describe),
            (models.blip2, "What if: style", fill_what_if),
        ):
            if given:
                with gr.Tab(name):
                    gr.HTML(f"<small>{html.escape('/'.join(Path(given).parts[-2:]))}</small>")
                    fill(models)
    return page


def fill_styles(models: Models) -> None:
    with gr.Row():
        first, second = _picture("First image"), _picture("Second image")
    button = gr.Button("Compare", variant="primary")
    words = gr.Textbox(label="Likeness", lines=3)
    with gr.Row():
        maps = [_map(f"Where the style head looks, {name} image", 320) for name in ("first", "second")]
    _ask(button.click, partial(answers.compare_styles, models), [first, second], [words, *maps], "compare")


def fill_search(models: Models) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            image = _picture("Image")
            like = gr.Button("Find images like this", variant="primary")
            words = gr.Textbox(label="or words, where the images' vectors are a CLIP's", max_length=MOST_WORDS)
            named = gr.Button("Find images of these words", variant="primary")
            count = gr.Slider(1, 60, 12, step=1, label="How many")
        with gr.Column(scale=3):
            found = gr.Gallery(
                label="Found, the most alike first", columns=4, height=720, format="jpeg", buttons=["fullscreen"]
            )
    _ask(like.click, partial(answers.search_by_image, models), [image, count], found, "search_image")
    by_words = partial(answers.search_by_words, models)
    _ask([named.click, words.submit], by_words, [words, count], found, "search_words")


def fill_match(models: Models) -> None:
    def match(image: str, texts: str) -> tuple:
        ranked = answers.match_texts(models, image, texts)
        choices = [(f"{one['score']:.3f} · {one['probability']:.1%} · {one['text']}", one["text"]) for one in ranked]
        best = ranked[0]["text"]
        return gr.Radio(choices=choices, value=best), answers.show_text(models, image, texts, best)

    with gr.Row():
        with gr.Column():
            image = _picture("Image")
            texts = gr.Textbox(label="Texts, one a line", lines=4, max_length=MOST_LINES)
            button = gr.Button("Match", variant="primary")
        with gr.Column():
            heat = _map("Where the chosen text is", 400)
            chosen = gr.Radio([], label="Cosine, probability among these texts, text", elem_classes="choices")
    _ask(button.click, match, [image, texts], [chosen, heat], "match")
    _ask(chosen.input, partial(answers.show_text, models), [image, texts, chosen], heat, "where")


def fill_describe(models: Models) -> None:
    def describe(image: str, text: str) -> list[str]:
        found = answers.describe(models, image, text)
        score = "none given" if found["score"] is None else f"{found['score']} of 10"
        expected = "" if found["expected_score"] is None else f"{found['expected_score']:.2f}"
        return [
            found["description"],
            score,
            expected,
            f"{found['p_yes']:.3f}",
            found["analysis"] or "",
            f"{found['seconds']:.1f}",
        ]

    with gr.Row():
        with gr.Column():
            image = _picture("Image")
            text = gr.Textbox(label="Text to be scored against it", max_length=MOST_WORDS)
            button = gr.Button("Describe and score", variant="primary")
        with gr.Column():
            description = gr.Textbox(label="Description", lines=4)
            with gr.Row():
                numbers = [gr.Textbox(label=name, min_width=100) for name in ("Score", "Expected score", "P(yes)")]
            analysis = gr.Textbox(label="Analysis", lines=3)
            seconds = gr.Textbox(label="Seconds")
    _ask(button.click, describe, [image, text], [description, *numbers, analysis, seconds], "describe")


def fill_what_if(models: Models) -> None:
    def what_if(image: str, question: str, style_image: str | None) -> list:
        return [value for told in answers.what_if(models, image, question, style_image) for value in told]

    with gr.Row():
        image, style_image = _picture("Image"), _picture("Take the style from (none: gates closed)")
    question = gr.Textbox("In which style is this picture drawn?", label="Question", max_length=MOST_WORDS)
    button = gr.Button("Ask twice", variant="primary")
    shown = []
    with gr.Row():
        for name in ("As it is", "With the other style"):
            with gr.Column():
                shown += [
                    gr.Textbox(label=f"{name}: answer"),
                    gr.Label(label="Styles that the gates are told", num_top_classes=5, show_heading=False),
                    gr.Label(
                        label="Probability of each style's name as the answer", num_top_classes=5, show_heading=False
                    ),
                ]
    _ask(button.click, what_if, [image, question, style_image], shown, "what_if")


def _picture(label: str) -> gr.Image:
    picture = gr.Image(type="filepath", sources=["upload", "clipboard"], label=label, height=280, buttons=[])
    # gradio's own would decode the file here, whatever its size; common.images.io opens it, and names what is wrong
    picture.preprocess = lambda sent: sent.path if sent else None
    return picture


def _map(label: str, height: int) -> gr.Image:
    """Without gradio's button that sends the picture to its makers' site."""
    return gr.Image(label=label, format="png", height=height, buttons=["fullscreen", "download"])


def _ask(triggers: Any, function: Callable, inputs: list, outputs: Any, api_name: str) -> None:
    """When a button is pressed, a line is entered or a choice is made: one question at a time, as on one device."""
    gr.on(
        triggers,
        _with_errors(function),
        inputs,
        outputs,
        api_name=api_name,
        concurrency_limit=1,
        concurrency_id="models",
    )


def _with_errors(function: Callable) -> Callable:
    """A person's mistake is one line on the page; a bug keeps its traceback, on the server."""

    @wraps(function)
    def answer(*values: Any) -> Any:
        try:
            return function(*values)
        except (ValueError, OSError) as error:
            line = one_line(error)
            for path in (value for value in values if isinstance(value, str) and Path(value).is_absolute()):
                line = line.replace(path, Path(path).name)  # where uploads lie is nobody's business
            raise gr.Error(html.escape(line), print_exception=False) from None

    return answer
