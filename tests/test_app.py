"""The web page: what the tabs answer, mistakes as one line, text that stays text, nothing asked of the net.

Without gradio the answers alone are tested; without Chromium and playwright the page is driven by gradio's client.
"""

import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny.page import EVIL, QUESTION, TEXTS
from tiny.retrieval import MADE
from torchvision.transforms.functional import pil_to_tensor

import app
from blip2_gated.inference import what_if
from clip.tokenizer import CLIPTokenizer
from common.images.io import list_images, open_image
from common.models.tokenizer import train_tokenizer
from common.vectors.vector_store import VectorStore
from retrieval import build_index
from style_comparator import main as compare_styles
from webpage import answers
from webpage.language import foreign_letters, language_warning
from webpage.models import Models


def test_likeness_is_the_comparators(page_models, page_weights, page_pictures):
    words, *maps = answers.compare_styles(page_models, *page_pictures)
    found = compare_styles([*page_pictures, "--weights", page_weights["style"], "--device", "cpu"])
    assert f"style similarity: {found['similarity']:.4f}" in words
    assert [one.size for one in maps] == [(320, 320)] * 2
    assert not torch.equal(*(pil_to_tensor(one) for one in maps))


def test_search_finds_the_image_itself_first(page_models, page_pictures):
    found = answers.search_by_image(page_models, page_pictures[1], 4)
    scores = [float(match.caption.split()[0]) for match in found]
    assert len(found) == 4 and scores[0] == 1 and scores == sorted(scores, reverse=True)
    assert found[0].path.endswith("item2_img.png") and found[0].caption.endswith("item2_img.png")


def test_words_find_what_clip_finds(page_models):
    model = page_models.clip_model
    found = answers.search_by_words(page_models, " a red star ", 100)
    paths = list_images(page_models.folder)
    pixels = torch.stack([model.preprocess(open_image(path)) for path in paths])
    with torch.no_grad():
        cosines = (model.encode_image(pixels) @ model.encode_text(["a red star"]).T)[:, 0]
    assert len(found) == len(paths) == 10
    assert [float(match.caption.split()[0]) for match in found] == pytest.approx(
        sorted(cosines.tolist(), reverse=True), abs=6e-4
    )


def test_an_index_is_searched_as_a_folder_is(page_models, page_weights, page_pictures, tmp_path):
    build_index.main(
        [
            "--index_dir",
            str(tmp_path / "index"),
            "--image_dir",
            page_weights["folder"],
            "--vit_checkpoint",
            page_weights["clip"],
            "--device",
            "cpu",
        ]
    )
    indexed = Models(index=str(tmp_path / "index"), device="cpu")
    for ask, question in ((answers.search_by_image, page_pictures[0]), (answers.search_by_words, "a red star")):
        captions = [[match.caption for match in ask(one, question, 5)] for one in (indexed, page_models)]
        values = [[float(caption.split()[0]) for caption in one] for one in captions]
        assert values[0] == pytest.approx(values[1], abs=2e-3)  # the index keeps 16 bits


@pytest.mark.parametrize("images, is_wide", [("/", True), ("/etc", True), ("~", True), ("~/pictures", False)])
def test_an_index_that_names_much_of_the_machine_must_be_confirmed(tmp_path, monkeypatch, images, is_wide):
    monkeypatch.setenv("HOME", str(tmp_path))
    VectorStore.create(tmp_path / "index", Path(images).expanduser(), MADE, 64)
    flags = Models(index=str(tmp_path / "index"))
    with pytest.raises(ValueError, match="--index_images") if is_wide else nullcontext():
        flags.check()
    (tmp_path / "moved").mkdir()
    flags = Models(index=flags.index, index_images=str(tmp_path / "moved"))
    flags.check()
    assert flags.shown_folder() == tmp_path / "moved"


def test_an_index_of_milvus_names_no_folder_to_be_shown(tmp_path):
    with pytest.raises(ValueError, match="--index_images"):
        Models(index="http://127.0.0.1:1#photos").check()
    flags = Models(index="http://127.0.0.1:1#photos", index_images=str(tmp_path))
    flags.check()
    assert flags.shown_folder() == tmp_path.resolve()


def test_a_found_file_that_is_gone_is_said_to_be(page_models, tmp_path):
    shutil.copytree(f"{page_models.folder}/style_0", tmp_path / "images")
    here = Models(clip=page_models.clip, folder=str(tmp_path / "images"), device="cpu")
    assert len(answers.search_by_words(here, "a star", 9)) == 4
    gone = list_images(tmp_path / "images")[-1]
    gone.unlink()
    found = answers.search_by_words(here, "a star", 9)
    missing = [gone.name in match.caption for match in found]
    assert sum(missing) == 1
    assert missing == [match.caption.endswith("(missing)") for match in found] == [not match.path for match in found]


def test_texts_are_matched_and_shown(page_models, page_pictures):
    ranked = answers.match_texts(page_models, page_pictures[0], TEXTS)
    assert sorted(one["text"] for one in ranked) == sorted({"a red house", EVIL, "two birds"})
    assert sum(one["probability"] for one in ranked) == pytest.approx(1)
    assert ranked[0]["score"] == max(one["score"] for one in ranked)
    maps = [answers.show_text(page_models, page_pictures[0], TEXTS, one["text"]) for one in ranked]
    assert maps[0].size == (480, 480) and not torch.equal(pil_to_tensor(maps[0]), pil_to_tensor(maps[1]))
    with pytest.raises(ValueError, match="match them again"):
        answers.show_text(page_models, page_pictures[0], TEXTS, "another")


@pytest.mark.parametrize("texts, words", [(" \n", "0 texts"), ("\n".join(map(str, range(51))), "at most 50")])
def test_too_few_and_too_many_texts(page_models, page_pictures, texts, words):
    with pytest.raises(ValueError, match=words):
        answers.match_texts(page_models, page_pictures[0], texts)


def test_plain_questions(page_models, page_pictures, monkeypatch):
    monkeypatch.setattr(answers, "MAX_NEW_TOKENS", 4)
    model = page_models.gated
    answer, styles = answers.ask_blip2(page_models, page_pictures[0], QUESTION)
    assert [answer] == model.predict_answers(model.prepare([page_pictures[0]]), [QUESTION])
    assert styles == what_if(model, page_pictures[0], QUESTION)[0].styles
    with pytest.raises(ValueError, match="the question is empty"):
        answers.ask_vitp(page_models, page_pictures[0], " ")
    matches = answers.search_by_vitp(page_models, page_pictures[1], 2)
    assert matches[0].caption.startswith("1.000") and matches[0].path == page_pictures[1]


def test_progress_of_a_folder_is_reported(page_models, tmp_path):
    shutil.copytree(f"{page_models.folder}/style_0", tmp_path / "images")
    here, reports = Models(clip=page_models.clip, folder=str(tmp_path / "images"), device="cpu"), []
    here.report = lambda *report: reports.append(report)
    answers.search_by_words(here, "a star", 9)
    assert reports[0][2] == "loading the CLIP model"
    assert reports[1:] == [(done, 4, "encoding the folder", "images") for done in range(1, 5)]


def test_the_other_style_is_told(page_models, page_pictures):
    as_is, other = what_if(page_models.gated, page_pictures[0], QUESTION, page_pictures[1])
    assert answers.what_if(page_models, page_pictures[0], QUESTION, page_pictures[1]) == [*as_is, *other]
    assert answers.what_if(page_models, page_pictures[0], QUESTION, None)[4] == {}


@pytest.mark.parametrize(
    "flags, words",
    [
        ([], "give one of"),
        (["--style", "no.pth"], "no.pth: no such file"),
        (["--clip", "no.pth"], "no such file"),
        (["--folder", ".", "--style", "x"], "give --clip or --vitp"),
        (["--vitp", "no"], "no: no such folder"),
        (["--clip", "x", "--share"], "--share.*ssh -L"),
        (["--index", "no"], "no: no such folder"),
        (["--index", ".", "--clip", "x", "--folder", "."], "only one of them"),
        (["--styl", "x"], "--styl"),
        (["--port", "x"], "--port"),
        (["--port", "70000"], "--port"),
        (["--llava_adapter", "x", "--clip", "x"], "--llava_adapter"),
    ],
)
def test_mistakes_at_the_start(flags, words):
    with pytest.raises((ValueError, OSError), match=words):
        app.open_page(flags)


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


def test_without_gradio_it_says_what_to_install(page_weights, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install -r requirements-app.txt"):
        app.open_page(["--style", page_weights["style"]])


@pytest.mark.parametrize(
    "text, foreign",
    [("a red star, 3 of 4", ""), ("une étoile", ""), ("一颗红色的星", "一颗红色的星"), ("star 星星 кот", "星星 кот")],
)
def test_letters_that_a_model_has_not_read(text, foreign):
    assert foreign_letters(CLIPTokenizer(), text) == foreign
    read = train_tokenizer(["一颗红色的星 星星кот一颗红色的星 une étoile"] * 9, 400, "<pad>", "<eos>")
    assert foreign_letters(read, text) == ""
    warning = language_warning(CLIPTokenizer(), text)
    assert f"“{foreign[:12]}" in warning if foreign else warning == ""
