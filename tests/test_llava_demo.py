"""The demo of LLaVA: pretraining of its tower, its data, the report on its answers."""

import json

import pytest
import torch
from PIL import Image

from llava.config import PROMPTS
from llava.demo import SIDE, mean_recall, report_demo, write_demo_data
from llava.model import build_llava, build_tokenizer, small_language, small_vision
from llava.word_alignment import align_with_words, project_onto_words


def test_the_tower_learns_which_words_belong_to_a_picture():
    torch.manual_seed(0)
    captions = ["a red star", "a blue star", "two red birds", "two blue birds"]
    tokenizer = build_tokenizer(captions, 400)
    model, _ = build_llava(tokenizer, small_vision(32, 8, 32, 3), small_language(tokenizer, 32, 1))
    language = {name: value.clone() for name, value in model.model.language_model.layers.state_dict().items()}
    pixels, ids = torch.randn(4, 3, 32, 32), [tokenizer(caption)["input_ids"] for caption in captions]
    trained = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    first, _ = align_with_words(model, lambda rows: pixels[rows], ids, trained, steps=1)
    _, last = align_with_words(model, lambda rows: pixels[rows], ids, trained, steps=80)
    assert last < 0.2 * first
    project_onto_words(model, pixels, {token for row in ids for token in row})
    with torch.no_grad():
        patches = torch.stack(list(model.model.get_image_features(pixels).pooler_output))
    nearest = torch.cdist(patches, model.get_input_embeddings().weight).argmin(-1)  # (4, 16)
    shown = [torch.isin(row, torch.tensor(words)).float().mean() for row, words in zip(nearest, ids)]
    assert min(shown) > 0.9  # patches are the words of their caption
    assert all(
        torch.equal(value, language[name]) for name, value in model.model.language_model.layers.state_dict().items()
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """-> its folder, rows of test.jsonl, rows of train.jsonl"""
    folder = tmp_path_factory.mktemp("llava_world")
    write_demo_data(folder, 12)
    return folder, *(
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()] for name in ("test", "train")
    )


def test_unseen_scenes_are_unseen(world):
    folder, test, train = world
    texts, images = [row["text"] for row in test], {row["image"] for row in train}
    said = " ".join(turn["value"] for row in train for turn in row["conversations"])
    assert len(test) == 2 and len(images) == 10 and not images & {row["image"] for row in test}
    assert not any(text in said for text in texts) and len(train) == 40
    assert Image.open(folder / test[0]["image"]).size == (SIDE, SIDE)
    for row in test:
        assert len(row["keywords"]) == 2 and set(row["keywords"]) <= set(row["text"].replace(",", "").split())


def test_answers_are_true(world):
    _, _, train = world
    asked = [[turn["value"] for turn in row["conversations"]] for row in train]
    for first in range(0, len(asked), 4):
        (describe, caption), *questions = asked[first : first + 4]
        text = f"{caption[0].lower()}{caption[1:-1]}"
        assert describe.endswith(PROMPTS["en"]["describe"])
        assert [answer for _, answer in questions[:2]] == ["Yes", "No"]
        for question, answer in questions:
            fits = f'"{text}"' in question or f"Text: {text}\n" in question
            assert fits == (answer == "Yes" or answer.startswith("Score: 10\n"))
        assert questions[2][1].endswith(caption)


def test_the_demo_says_how_well_it_does(world, capsys):
    folder, rows, _ = world
    answered = [
        {
            "key": f"{number} {kind}",
            "image": row["image"],
            "text": row["text"] if good else "x",
            "description": row["text"].upper(),
            "score": 9 if good else 2,
            "expected_score": 5.0,
            "p_yes": 0.1 if good else 0.2,
        }
        for number, row in enumerate(rows)
        for kind, good in (("matching", True), ("other", False))
    ]
    report_demo(
        [*answered, {"key": "9 other", "image": "x", "text": "x", "error": "no such file"}], folder / "test.jsonl"
    )
    lines = capsys.readouterr().out.splitlines()
    examples, lines = lines[:-4], lines[-4:]
    assert f"right: {len(rows)} of {2 * len(rows)}" in examples[-1]  # P(Yes) is below a half for all
    shown = [line.split() for line in examples[1:-1]]
    assert [(words[-1], "not" in words) for words in shown[:2]] == [("WRONG", False), ("right", True)]
    assert len(shown) == 2 * len(rows)
    assert "AUC 1.000" in lines[0] and "AUC 0.500" in lines[1] and "AUC 0.000" in lines[2]
    assert "name 100%" in lines[3] and mean_recall(rows, ["nothing"] * len(rows)) == 0
