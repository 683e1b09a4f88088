"""Layout of the web page: a tab for each system whose weights are given, with inputs, a button and outputs.

Models -> gradio.Blocks

Text from a file, a caption or a visitor is shown only by components that do not interpret it: text boxes, labels,
gallery captions; what stands in HTML is escaped.
"""

import html
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gradio as gr

from common.training.run import provenance
from webpage import answers
from webpage.forms import MAX_LINES, MAX_TEXT, Form, image_input, image_output, pick
from webpage.language import language_warning
from webpage.models import Models
from webpage.samples import Sample, draw_samples
from webpage.uploads import Uploads

MAX_WAITING = 32  # requests
STYLE_QUESTION = "In which style is this picture drawn?"


class Tab(NamedTuple):
    name: str
    flags: str  # that add it
    does: str  # and needs, in one sentence
    weights: Callable[[Models], str]  # '' = not given
    fill: Callable[[Form, list[Sample]], None]


def build_page(models: Models, uploads: Uploads) -> gr.Blocks:
    samples, absent = draw_samples(uploads.samples), dict[str, list[str]]()
    with gr.Blocks(title="vision-wrapper", analytics_enabled=False) as page:
        gr.HTML("<h1>vision-wrapper</h1>")
        for tab in TABS:
            if weights := tab.weights(models):
                with gr.Tab(tab.name):
                    shown = html.escape("/".join(Path(weights).parts[-2:]))
                    gr.HTML(f"<p>{tab.does} <small>{shown}</small></p>")
                    tab.fill(Form(models, uploads), samples)
            else:
                absent.setdefault(tab.flags, []).append(tab.name)
        gr.HTML(about_page(absent), elem_classes="about")
    return page.queue(max_size=MAX_WAITING)


def about_page(absent: dict[str, list[str]]) -> str:
    """HTML. absent: flags -> the tabs that they would add."""
    more = "".join(f"<br>{', '.join(names)}: <code>{flags}</code>" for flags, names in absent.items())
    commit = html.escape(provenance()["commit"] or "unknown")
    return (
        f"{f'<p>Further tabs, by flags of app.py:{more}</p>' if more else ''}"
        f"<p>vision-wrapper, commit {commit}; documentation and the page's limits: <code>docs/app.md</code></p>"
    )


def fill_styles(form: Form, samples: list[Sample]) -> None:
    star, fish, carved_star, _ = (sample.path for sample in samples)
    similarity = gr.Textbox(label="Similarity", lines=6, render=False)
    maps = [image_output(f"Style sensitivity, {name} image", 320) for name in ("first", "second")]
    form.fill(
        "Compare",
        partial(answers.compare_styles, form.models),
        [image_input("First image"), image_input("Second image")],
        [similarity, *maps],
        "compare",
        rows=[[similarity], maps],
        examples=[(star, fish), (star, carved_star)],
    )


def fill_search(form: Form, samples: list[Sample]) -> None:
    models = form.models
    words = gr.Textbox(label="Text (CLIP vectors only)", max_length=MAX_TEXT, render=False)
    count, outputs = lay_out_search(form, partial(answers.search_by_image, models), "search_image", samples, words)
    form.connect(
        [form.buttons[1].click, words.submit],
        lambda words, count: split_matches(answers.search_by_words(models, words, count)),
        [words, count],
        outputs,
        "search_words",
        warn=lambda words, count: language_warning(models.search_tokenizer, words),
    )


def lay_out_search(
    form: Form, search: Callable, api_name: str, samples: list[Sample], words: gr.Textbox | None = None
) -> tuple[gr.Slider, list]:
    """Queries on the left, found images on the right, of which each can be the next query.

    search: image, number -> matches. words: another query, whose button is the form's second. -> number, outputs
    """
    files, chosen = gr.State([]), gr.State("")  # of the found images; they stay on the server
    with gr.Row():
        with gr.Column(scale=1):
            image = image_input("Image").render()
            by_image = form.button("Search by image")
            if words:
                words.render()
                form.button("Search by text")
            count = gr.Slider(1, 60, 12, step=1, label="Number of results")
            form.add_examples([image, words] if words else [image], [sample[: 1 + bool(words)] for sample in samples])
        with gr.Column(scale=3):
            form.status.render()
            results = gr.Gallery(
                label="Results, most similar first",
                object_fit="contain",
                format="jpeg",
                buttons=["fullscreen"],
                elem_classes="results",
            )
            again = form.button("Search with the selected image", "secondary")

    def choose(files: list[str], event: gr.EventData) -> str:  # SelectData fails on what no browser sends
        return pick(files, event._data.get("index") if isinstance(event._data, dict) else None)

    def search_again(path: str, count: int) -> tuple:
        if not Path(path).is_file():
            raise ValueError("no image is selected; click one of the results first")
        return *split_matches(search(path, count)), answers.thumbnail(path)

    outputs = [results, files, chosen]
    form.connect(by_image.click, lambda *query: split_matches(search(*query)), [image, count], outputs, api_name)
    form.connect(again.click, search_again, [chosen, count], [*outputs, image])
    results.select(choose, files, chosen, api_visibility="private", show_progress="hidden")
    return count, outputs


def split_matches(matches: list[answers.Match]) -> tuple[list, list[str], str]:
    """-> pictures with captions; their files; the selected one, which is none."""
    return [match[:2] for match in matches], [match.path for match in matches], ""


def fill_match(form: Form, samples: list[Sample]) -> None:
    models = form.models

    def match(image: str, texts: str) -> tuple:
        ranked = answers.match_texts(models, image, texts)
        choices = [(f"{row['score']:.3f} · {row['probability']:.1%} · {row['text']}", row["text"]) for row in ranked]
        best = ranked[0]["text"]
        return gr.Radio(choices=choices, value=best), answers.show_text(models, image, texts, best)

    texts = gr.Textbox(label="Texts, one per line", lines=4, max_length=MAX_LINES, render=False)
    inputs = [image_input("Image"), texts]
    chosen = gr.Radio([], label="Cosine, probability among these texts, text", elem_classes="choices", render=False)
    heat = image_output("Heat map of the chosen text", 400)
    captions = "\n".join(dict.fromkeys(sample.caption for sample in samples))
    form.fill(
        "Match",
        match,
        inputs,
        [chosen, heat],
        "match",
        warn=lambda image, texts: language_warning(models.clip_model.tokenizer, texts),
        examples=[(sample.path, captions) for sample in samples],
    )
    form.connect(chosen.input, partial(answers.show_text, models), [*inputs, chosen], [heat], "where")


def fill_describe(form: Form, samples: list[Sample]) -> None:
    text = gr.Textbox(label="Text to score", max_length=MAX_TEXT, render=False)
    outputs = [
        gr.Textbox(label=label, render=False, min_width=100)
        for label in ("Description", "Score", "Expected score", "P(Yes)", "Analysis", "Seconds")
    ]
    form.fill(
        "Describe and score",
        partial(answers.describe, form.models),
        [image_input("Image"), text],
        outputs,
        "describe",
        rows=[outputs[:1], outputs[1:4], outputs[4:5], outputs[5:]],
        warn=lambda image, text: language_warning(form.models.analyzer.processor.tokenizer, text),
        examples=samples,
    )


def fill_vitp(form: Form, samples: list[Sample]) -> None:
    models = form.models
    form.fill(
        "Ask",
        partial(answers.ask_vitp, models),
        [image_input("Image"), _question("Describe this picture.")],
        [gr.Textbox(label="Answer", lines=4, render=False)],
        "ask_vitp",
        warn=lambda image, question: language_warning(models.vitp_predictor.template.tokenizer, question),
        examples=[(sample.path, "Describe this picture.") for sample in samples],
    )
    if models.folder:
        gr.HTML("<h3>Image search with its vision encoder</h3>")
        search = partial(answers.search_by_vitp, models)
        lay_out_search(Form(models, form.uploads), search, "search_vitp", samples)


def fill_ask(form: Form, samples: list[Sample]) -> None:
    form.fill(
        "Ask",
        partial(answers.ask_blip2, form.models),
        [image_input("Image"), _question(STYLE_QUESTION)],
        [gr.Textbox(label="Answer", render=False), _probabilities("Style predicted by the style head")],
        "ask",
        warn=lambda image, question: language_warning(form.models.gated.prompts.tokenizer, question),
        examples=[(sample.path, STYLE_QUESTION) for sample in samples],
    )


def fill_what_if(form: Form, samples: list[Sample]) -> None:
    outputs: list[gr.Textbox | gr.Label] = []
    for name in ("original style", "other style"):
        outputs.append(gr.Textbox(label=f"Answer, {name}", render=False))
        for label in ("Style predicted by the style head", "Probability of each style as the answer"):
            outputs.append(_probabilities(f"{label}, {name}"))
    star, fish, carved_star, house = (sample.path for sample in samples)
    form.fill(
        "Compare answers",
        partial(answers.what_if, form.models),
        [image_input("Image"), _question(STYLE_QUESTION), image_input("Style image (none: gates closed)")],
        outputs,
        "what_if",
        rows=list(zip(outputs[:3], outputs[3:])),
        warn=lambda image, question, style: language_warning(form.models.gated.prompts.tokenizer, question),
        examples=[(star, STYLE_QUESTION, carved_star), (house, STYLE_QUESTION, fish)],
    )


def _question(text: str) -> gr.Textbox:
    return gr.Textbox(text, label="Question", max_length=MAX_TEXT, render=False)


def _probabilities(label: str) -> gr.Label:
    return gr.Label(label=label, num_top_classes=5, show_heading=False, render=False)


TABS = (
    Tab(
        "Compare styles",
        "--style FILE",
        "Give two pictures: how similar their styles are, regardless of content, and which regions influence that.",
        lambda models: models.style,
        fill_styles,
    ),
    Tab(
        "Search",
        "--index FOLDER, or --folder FOLDER with --clip FILE",
        "Give a picture or a text, and get the most similar pictures of a folder.",
        lambda models: models.index or (models.clip and models.folder),
        fill_search,
    ),
    Tab(
        "Match texts",
        "--clip FILE",
        "Give a picture and some texts: which of them fits best, and where in the picture it is seen.",
        lambda models: models.clip,
        fill_match,
    ),
    Tab(
        "Describe and score",
        "--llava FOLDER",
        "Give a picture and a text: a description of the picture, and a score from 1 to 10 of how well the text fits.",
        lambda models: models.llava,
        fill_describe,
    ),
    Tab(
        "ViTP",
        "--vitp FOLDER",
        "Give a picture and a question about it, or an instruction such as: Describe this picture.",
        lambda models: models.vitp,
        fill_vitp,
    ),
    Tab(
        "Ask BLIP-2",
        "--blip2 FILE",
        "Give a picture and a question about it; an empty question asks for a caption.",
        lambda models: models.blip2,
        fill_ask,
    ),
    Tab(
        "What if: style",
        "--blip2 FILE",
        "Give a picture, a question and a second picture: the answer, and the answer with the style of the second.",
        lambda models: models.blip2,
        fill_what_if,
    ),
)
