"""The web page: what the tabs answer, mistakes as one line, text that stays text, nothing asked of the net.

Without gradio the answers alone are tested; without Chromium and playwright the page is driven by gradio's client.
"""

import shutil

import pytest
import torch
from conftest import draw_styles
from llava_tiny import write_llava
from PIL import Image
from test_blip2_gated_what_if import opened
from torchvision.transforms.functional import pil_to_tensor

import app
from blip2_gated.checkpoint import save_full
from blip2_gated.counterfactual import what_if
from common.images.io import list_images, open_image
from retrieval import build_index
from style_comparator import main as compare_styles
from webpage import answers
from webpage.models import Models

EVIL = "<img src=x onerror=window.evil=1> **bold**"
SECRET = "taken at home"
TEXTS = f"a red house\n\n{EVIL}\ntwo birds\na red house"
QUESTION = "In which style is this drawn?"


@pytest.fixture(scope="session")
def weights(tmp_path_factory, trained, tiny_clip):
    """Tiny ones of every kind, as flags, and images of which one has words like HTML in its name, and a comment."""
    folder = tmp_path_factory.mktemp("app")
    draw_styles(folder / "images", images=3, targets=False)
    first = list_images(folder / "images")[0]
    Image.open(first).save(first.with_name(f"{EVIL}.jpg"), comment=SECRET)  # Pillow hands a comment on to its copies
    write_llava(folder / "llava")
    model = opened("film", False)
    recipe = {
        "efficientnet": {"name": "test_efficientnet", "pretrained": False, "output_dim": 0, "image_size": None},
        "gating": {"kind": "film", "per_head": False, "init_scale": 1.0},
        "lora": None,
        "trained": "gates",
        "mapper": {"num_tokens": 3, "hidden": 32, "dropout": 0.1},
        "template": model.prompts.template,
        "max_tokens": 48,
        "labels": model.styles.labels,
        "spellings": ["Noto"],
        "frozen_dtype": "fp32",
    }
    save_full(folder / "gated.pt", model, recipe)
    return {
        "style": trained[0],
        "clip": str(tiny_clip),
        "folder": str(folder / "images"),
        "llava": str(folder / "llava"),
        "blip2": str(folder / "gated.pt"),
    }


@pytest.fixture(scope="session")
def models(weights):
    return Models(**weights, device="cpu")


@pytest.fixture(scope="session")
def pictures(weights):
    """Two files of different styles."""
    return [str(list_images(f"{weights['folder']}/style_{style}")[-1]) for style in (0, 2)]


def test_likeness_is_the_comparators(models, weights, pictures):
    words, *maps = answers.compare_styles(models, *pictures)
    found = compare_styles([*pictures, "--weights", weights["style"], "--device", "cpu"])
    assert f"style similarity: {found['similarity']:.4f}" in words
    assert [one.size for one in maps] == [(320, 320)] * 2
    assert not torch.equal(*(pil_to_tensor(one) for one in maps))


def test_search_finds_the_image_itself_first(models, pictures):
    found = answers.search_by_image(models, pictures[1], 4)
    scores = [float(caption.split()[0]) for _, caption in found]
    assert len(found) == 4 and scores[0] == 1 and scores == sorted(scores, reverse=True)
    assert found[0][1].endswith("item2_img.png")


def test_words_find_what_clip_finds(models):
    model = models.clip_model
    found = answers.search_by_words(models, " a red star ", 100)
    paths = list_images(models.folder)
    pixels = torch.stack([model.preprocess(open_image(path)) for path in paths])
    with torch.no_grad():
        cosines = (model.encode_image(pixels) @ model.encode_text(["a red star"]).T)[:, 0]
    assert len(found) == len(paths) == 10
    assert [float(caption.split()[0]) for _, caption in found] == pytest.approx(
        sorted(cosines.tolist(), reverse=True), abs=6e-4
    )


def test_an_index_is_searched_as_a_folder_is(models, weights, pictures, tmp_path):
    build_index.main(
        [
            "--index_dir",
            str(tmp_path / "index"),
            "--image_dir",
            weights["folder"],
            "--vit_checkpoint",
            weights["clip"],
            "--device",
            "cpu",
        ]
    )
    indexed = Models(index=str(tmp_path / "index"), device="cpu")
    for ask, question in ((answers.search_by_image, pictures[0]), (answers.search_by_words, "a red star")):
        captions = [[caption for _, caption in ask(one, question, 5)] for one in (indexed, models)]
        values = [[float(caption.split()[0]) for caption in one] for one in captions]
        assert values[0] == pytest.approx(values[1], abs=2e-3)  # the index keeps 16 bits


def test_a_found_file_that_is_gone_is_said_to_be(models, tmp_path):
    shutil.copytree(f"{models.folder}/style_0", tmp_path / "images")
    here = Models(clip=models.clip, folder=str(tmp_path / "images"), device="cpu")
    assert len(answers.search_by_words(here, "a star", 9)) == 4
    gone = list_images(tmp_path / "images")[-1]
    gone.unlink()
    captions = [caption for _, caption in answers.search_by_words(here, "a star", 9)]
    assert [caption.endswith("(gone)") for caption in captions] == [gone.name in caption for caption in captions]
    assert sum(caption.endswith("(gone)") for caption in captions) == 1


def test_texts_are_matched_and_shown(models, pictures):
    ranked = answers.match_texts(models, pictures[0], TEXTS)
    assert sorted(one["text"] for one in ranked) == sorted({"a red house", EVIL, "two birds"})
    assert sum(one["probability"] for one in ranked) == pytest.approx(1)
    assert ranked[0]["score"] == max(one["score"] for one in ranked)
    maps = [answers.show_text(models, pictures[0], TEXTS, one["text"]) for one in ranked]
    assert maps[0].size == (480, 480) and not torch.equal(pil_to_tensor(maps[0]), pil_to_tensor(maps[1]))
    with pytest.raises(ValueError, match="match them again"):
        answers.show_text(models, pictures[0], TEXTS, "another")


@pytest.mark.parametrize("texts, words", [(" \n", "no text"), ("\n".join(map(str, range(51))), "at most 50")])
def test_too_few_and_too_many_texts(models, pictures, texts, words):
    with pytest.raises(ValueError, match=words):
        answers.match_texts(models, pictures[0], texts)


def test_the_other_style_is_told(models, pictures):
    assert answers.what_if(models, pictures[0], QUESTION, pictures[1]) == what_if(
        models.gated, pictures[0], QUESTION, pictures[1]
    )
    assert answers.what_if(models, pictures[0], QUESTION, None)[1].seen == {}


@pytest.mark.parametrize(
    "flags, words",
    [
        ([], "give one of"),
        (["--style", "no.pth"], "no.pth: no such file"),
        (["--clip", "no.pth"], "no such file"),
        (["--folder", ".", "--style", "x"], "give --clip"),
        (["--index", "no"], "no: no such folder"),
        (["--index", ".", "--clip", "x", "--folder", "."], "leave one out"),
        (["--styl", "x"], "--styl: no such flag"),
        (["--port", "x"], "invalid int"),
        (["--port", "70000"], "65535"),
        (["--llava_adapter", "x", "--clip", "x"], "alone"),
    ],
)
def test_mistakes_at_the_start(flags, words):
    with pytest.raises((ValueError, OSError), match=words):
        app.main(flags, block=False)


@pytest.mark.parametrize(
    "host, own",
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("127.9.9.9", True),
        ("0.0.0.0", False),
        ("192.168.1.2", False),
        ("example.org", False),
    ],
)
def test_which_hosts_are_this_machine(host, own):
    assert app.is_loopback(host) == own


def test_without_gradio_it_says_what_to_install(weights, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install -r requirements-app.txt"):
        app.main(["--style", weights["style"]])
