"""Parts of the tabs of the web page: inputs and outputs, a status line, buttons, examples, and their connection.

click -> buttons off -> answer(inputs as they are sent) -> status line, outputs -> buttons on

Whatever a visitor sends is checked here, by the component that it is for, and by nothing of gradio's.
"""

import html
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gradio as gr

from common.cli.errors import one_line
from common.text.values import text_of
from webpage.models import Models
from webpage.samples import draw_thumbnail
from webpage.uploads import Uploads

MAX_TEXT = 2000  # characters
MAX_LINES = 20_000  # characters of many texts
PROGRESS = gr.Progress()
NO_ANSWER = "no answer: the server is busy or failed; try again"
TEMPLATE = str.maketrans({"$": "&#36;", "{": "&#123;", "}": "&#125;"})  # signs of gradio's templates


class Form:
    """Components of a tab: a status line, buttons that are off while one of them works, and what they do."""

    def __init__(self, models: Models, uploads: Uploads):
        self.models, self.uploads = models, uploads
        self.buttons: list[gr.Button] = []
        self.status = gr.HTML("", elem_classes="status", render=False)

    def fill(
        self,
        button: str,
        function: Callable,
        inputs: list,
        outputs: list,
        api_name: str,
        rows: Sequence[Sequence] = (),
        examples: Sequence[Sequence[str]] = (),
        **options: Any,
    ) -> None:
        """Inputs and a button on the left, outputs on the right. rows: of outputs, if not one in each; options: of
        connect."""
        with gr.Row():
            with gr.Column():
                for component in inputs:
                    component.render()
                click = self.button(button).click
                self.add_examples(inputs, examples)
            with gr.Column():
                self.status.render()
                for row in rows or [[component] for component in outputs]:
                    with gr.Row():
                        for component in row:
                            component.render()
        self.connect(click, function, inputs, outputs, api_name, **options)

    def button(self, label: str, variant: Any = "primary") -> gr.Button:
        self.buttons.append(gr.Button(label, variant=variant))
        return self.buttons[-1]

    def connect(
        self,
        triggers: Any,
        function: Callable,
        inputs: list,
        outputs: list,
        api_name: str = "",
        warn: Callable[..., str] = lambda *values: "",
    ) -> None:
        """Call `function` on a click, an entered line or a choice; one call at a time, as on one device.

        A user error is one line on the page, in place of an answer, and an exception for programs; a bug keeps its
        traceback, on the server. api_name: '' = not for programs. warn: same values -> a line to show with the answer.
        """
        for component in outputs:
            if not is_image_input(component):
                component.GRADIO_CACHE = str(self.uploads.results)

        def answer(progress: gr.Progress, sent: tuple) -> tuple[list, str]:
            """-> values of the outputs, a warning."""
            self.uploads.sweep()
            self.models.report = partial(show_progress, progress)
            try:
                values = list(map(partial(read_value, self.uploads), inputs, sent))
                results = function(*values)
                return (list(results) if len(outputs) > 1 else [results]), warn(*values)
            except (ValueError, OSError) as error:
                raise ValueError(
                    re.sub(f"{re.escape(str(self.uploads.uploads))}/[^/]*/", "", one_line(error))
                ) from None

        def show(progress: gr.Progress = PROGRESS, *sent: Any) -> list:
            try:
                results, warning = answer(progress, sent)
            except ValueError as error:
                return [status_text(str(error), "error"), *map(empty, outputs)]
            return [status_text(warning, "warning"), *map(unselected, outputs, results)]

        def call(progress: gr.Progress = PROGRESS, *sent: Any) -> Any:
            try:
                results, _ = answer(progress, sent)
            except ValueError as error:
                raise gr.Error(html.escape(str(error)), print_exception=False) from None
            return results if len(results) > 1 else results[0]

        options: dict[str, Any] = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "models"}
        on_page: dict[str, Any] = {"fn": None, "outputs": [self.status, *self.buttons], "show_progress": "hidden"}
        gr.on(triggers, js=update_form("", False, len(self.buttons)), **on_page)
        shown = gr.on(
            triggers,
            show,
            inputs,
            [self.status, *outputs],
            show_progress_on=self.status,
            api_visibility="private",
            **options,
        )
        shown.then(js=update_form(None, True, len(self.buttons)), **on_page)
        shown.failure(js=update_form(status_text(NO_ANSWER, "error"), True, len(self.buttons)), **on_page)
        if api_name:
            gr.on([], call, inputs, outputs, api_name=api_name, **options)

    def add_examples(self, inputs: list, examples: Sequence[Sequence[str]]) -> None:
        """Thumbnails of the pictures among the values of each example, which a click puts into the inputs."""
        if not examples:
            return
        is_picture = [isinstance(component, gr.Image) for component in inputs]
        pictures = [[value for value, shown in zip(row, is_picture) if shown] for row in examples]
        thumbnail = gr.Image(render=False)
        thumbnail.GRADIO_CACHE = str(self.uploads.samples)
        samples = [[draw_thumbnail(self.uploads.samples, paths)] for paths in pictures]
        dataset = gr.Dataset(
            label="Examples", components=[thumbnail], samples=samples, type="index", elem_classes="examples"
        )

        def choose(number: Any) -> Sequence[str] | str:
            values = pick(examples, number)
            return values if len(inputs) > 1 else values[0]

        dataset.click(choose, dataset, inputs, preprocess=False, api_visibility="private", show_progress="hidden")


def image_input(label: str) -> gr.Image:
    return gr.Image(type="filepath", sources=["upload", "clipboard"], label=label, height=280, buttons=[], render=False)


def is_image_input(component: Any) -> bool:
    return isinstance(component, gr.Image) and component.type == "filepath"


def image_output(label: str, height: int) -> gr.Image:
    """Without gradio's button that sends the picture to its makers' site."""
    return gr.Image(label=label, format="png", height=height, buttons=["fullscreen", "download"], render=False)


def read_value(uploads: Uploads, component: gr.components.Component, value: Any) -> Any:
    """What a visitor sent for a component -> path of a file of the page, text or whole number; ValueError for all else.

    An image that is not given is ''. A State is the server's own.
    """
    if isinstance(component, gr.State):
        return value
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
        raise ValueError(f"{component.label}: {len(text):,} characters; at most {longest:,} are allowed")
    return text


def pick(items: Sequence, index: Any) -> Any:
    """The item at an index that a visitor sent."""
    if type(index) is not int or index not in range(len(items)):
        raise gr.Error("no such picture", print_exception=False)
    return items[index]


def show_progress(progress: gr.Progress, done: int, total: int, words: str, unit: str = "steps") -> None:
    progress((done, total), desc=words, unit=unit)


def status_text(line: str, kind: str) -> str:
    """A line of text as HTML. kind: error or warning."""
    return f'<p class="{kind}" role="alert">{html.escape(line).translate(TEMPLATE)}</p>' if line else ""


def empty(component: gr.components.Component) -> Any:
    """What an output shows where there is no answer; an input stays as it is."""
    if isinstance(component, gr.Radio):
        return gr.Radio(choices=[], value=None)
    if isinstance(component, gr.State):
        return component.value
    return gr.skip() if is_image_input(component) else None


def unselected(component: gr.components.Component, value: Any) -> Any:
    """A new value, in a gallery without the selection in the earlier one."""
    return gr.Gallery(value, selected_index=None) if isinstance(component, gr.Gallery) else value


def update_form(status: str | None, are_on: bool, count: int) -> str:
    """JavaScript that sets a status line (None: leaves it) and so many buttons, without asking the server."""
    updates: list[dict[str, Any]] = [{} if status is None else {"value": status}, *[{"interactive": are_on}] * count]
    return f"() => {json.dumps([{'__type__': 'update', **update} for update in updates])}"
