"""Questions in the formats that people have, and what is wrong with single ones."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny.blip2 import build

from blip2_gated.dataset import VqaDataset, read_samples
from blip2_gated.vqa_tables import Columns
from common.images.cache import ImageCache

COLUMNS = Columns(style="")
TEN = ["net"] * 4 + ["mesh"] * 3 + ["a net", "fence", "Net"]


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "train2014/COCO_train2014_000000458752.png", "0a1f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def read(folder, name, content, columns=COLUMNS):
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, encoding="utf-8")
    return read_samples(folder / name, folder, "csv", columns)


@pytest.mark.parametrize(
    "name, content",
    [
        ("q.csv", 'image,question,answers\na.png,What?,"' + json.dumps(TEN).replace('"', '""') + '"\n'),
        ("q.csv", f'image,question,answer\na.png,What?,"{TEN}"\n'),  # as pandas writes lists
        ("q.csv", f"image,question,{','.join(f'answer_{n}' for n in range(10))}\na.png,What?,{','.join(TEN)}\n"),
        ("q.tsv", f"image\tquestion\t{chr(9).join(f'answer{n}' for n in range(10))}\na.png\tWhat?\t" + "\t".join(TEN)),
        ("q.jsonl", json.dumps({"image": "a.png", "question": "What?", "answers": TEN})),
        ("q.json", [{"image": "a.png", "question": "What?", "answer": TEN}]),  # LAVIS
        ("q.json", [{"image": "a.png", "question": "What?", "direct_answers": TEN, "choices": ["net", "mesh"]}]),
        ("q.json", {"data": [{"image": "a.png", "question": "What?", "answers": TEN}], "dataset_name": "textvqa"}),
        (
            "q.json",
            [
                {
                    "image": "a.png",
                    "question": "What?",
                    "answers": [{"answer": text, "answer_confidence": "maybe"} for text in TEN],
                }
            ],
        ),
    ],
)
def test_ten_answers_are_read_in_every_format(folder, name, content):
    (sample,), skipped = read(folder, name, content)
    assert sample.answers == tuple(TEN) and sample.answer == "net" and not skipped


def test_questions_and_annotations_of_vqa_v2_are_joined(folder):
    questions = [
        {"image_id": 458752, "question": "What is this?", "question_id": 458752000},
        {"image_id": 458752, "question": "What color?", "question_id": 458752001},
        {"image_id": 458752, "question": "Where?", "question_id": 458752002},
        {"image_id": 458752, "question": "What color?", "question_id": 458752001},
    ]
    annotations = [
        {
            "question_id": number,
            "image_id": 458752,
            "question_type": "what",
            "answer_type": "other",
            "multiple_choice_answer": "net",
            "answers": [
                {"answer": text, "raw_answer": "x", "answer_confidence": "yes", "answer_id": place}
                for place, text in enumerate(TEN, 1)
            ],
        }
        for number in (458752001, 458752000, 7)
    ]
    first, second = (folder / f"v2_{name}.json" for name in ("OpenEnded_mscoco_x_questions", "mscoco_x_annotations"))
    first.write_text(json.dumps({"info": {}, "questions": [*questions, 7]}))
    with pytest.raises(
        FileNotFoundError, match=r"v2_mscoco_x_annotations.json: no such file .*--data.answer_column ''"
    ):
        read_samples(first, folder, "csv", COLUMNS)
    assert len(read_samples(first, folder, "csv", Columns(answer="", style=""))[0]) == 4  # of a test split
    second.write_text(json.dumps({"annotations": annotations}))
    columns = Columns(style="", type="answer_type")
    samples, skipped = read_samples(second, folder, "csv", columns)
    assert read_samples(first, folder, "csv", columns)[0] == samples
    assert [(sample.question_id, sample.question, sample.answers) for sample in samples] == [
        (458752000, "What is this?", tuple(TEN)),
        (458752001, "What color?", tuple(TEN)),
        (458752001, "What color?", tuple(TEN)),
    ]
    assert samples[0].path.name == "COCO_train2014_000000458752.png" and samples[0].type == "other"
    assert "458752002 has 0 annotations" in skipped[f"{second}:entry 2"]
    assert "question_id 7 has no question" in skipped[f"{second}:entry 5"]
    assert skipped[f"{second}:entry 4"] == "not a JSON object"
    with pytest.raises(ValueError, match=r"q.json: questions without answers; annotations are looked for next to"):
        read(folder, "q.json", {"questions": questions})
    first.unlink()
    with pytest.raises(FileNotFoundError, match="the file of their questions is not next to it"):
        read_samples(second, folder, "csv", COLUMNS)


def test_questions_of_gqa_and_aokvqa_keep_their_ids(folder):
    samples, _ = read(folder, "q.json", {"02930152": {"imageId": "0a1f", "question": "Is it?", "answer": "no"}})
    assert [(one.question_id, one.answer, one.answers, one.path.name) for one in samples] == [
        ("02930152", "no", (), "0a1f.png")
    ]
    rows = [
        {"image_id": 458752, "question": "Is it?", "direct_answers": ["no", "yes", "no"], "question_id": name}
        for name in ("22MexNkBPpdZGX6sxbxVBH", "7", 7, None)
    ]
    samples, _ = read(folder, "q.json", rows)
    assert [sample.question_id for sample in samples] == ["22MexNkBPpdZGX6sxbxVBH", "7", 7, None]
    table = "image,question,answer,question_id\n" + "".join(f"a.png,Why?,so,{name}\n" for name in ("7", "007", "x", ""))
    assert [sample.question_id for sample in read(folder, "q.csv", table)[0]] == [7, "007", "x", None]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"answer": 3}, "answer: expected text, got a number (3)"),
        ({"answer": float("nan")}, "answer: expected text, got a number (nan)"),
        ({"answer": ["3", 3]}, "answer: expected text, got a number (3)"),
        ({"answer": [{"text": "3"}]}, "answer: expected text, got nothing"),
        ({"answer": "['net' 'net']"}, "a list that is neither JSON nor as Python writes it"),
        ({"answer": "[nan, 'net']"}, "a list that is neither JSON nor as Python writes it"),
        ({"answer": None}, "an empty question or answer"),
        ({"answer": []}, "an empty question or answer"),
        ({"question": " \n"}, "an empty question or answer"),
        ({"question": "half \ud83d"}, "question: text with half a character"),
        ({"question_id": True}, "question_id: expected a whole number or a text, got True"),
        ({"question_id": [7]}, "question_id: expected"),
        ({"image": "b.png"}, "b.png: no such file"),
        ({"image": "x" * 300 + ".png"}, "no such file"),
        ({"image": ""}, "names no image"),
        ({"image": 458753}, "458753: no such file"),
        ({"image": 2.5}, "image: expected text, got a number"),
        ({"style": {}}, "style: expected text, got an object"),
    ],
)
def test_one_bad_question_is_skipped_by_name(folder, change, words):
    good = {"image": "a.png", "question": "What?", "answer": "net", "style": "flat", "question_id": 1}
    samples, skipped = read(folder, "q.json", [good, good | change, good], Columns())
    assert [sample.number for sample in samples] == [0, 2]
    assert list(skipped) == [f"{folder / 'q.json'}:entry 1"] and words in skipped[f"{folder / 'q.json'}:entry 1"]


def test_text_that_looks_like_a_list_stays_text(folder):
    answers = ["[1, 2]", "[sic]", '["a" or not', "[]x"]
    table = "image,question,answer\n" + "".join('a.png,What?,"{}"\n'.format(a.replace('"', '""')) for a in answers)
    assert [sample.answer for sample in read(folder, "q.csv", table)[0]] == answers


def test_images_by_id_are_one_or_named(folder):
    (folder / "b").mkdir()
    (folder / "b" / "0a1f.jpg").touch()
    row = {"question": "What?", "answer": "net"}
    _, skipped = read(folder, "q.json", [row | {"image": "a.png"}, row | {"image": "0a1f"}])
    assert "0a1f: the id of several images" in skipped[f"{folder / 'q.json'}:entry 1"]
    samples, _ = read(folder, "q.json", [row | {"image": "train2014\\COCO_train2014_000000458752.png"}])
    assert samples[0].path == folder / "train2014" / "COCO_train2014_000000458752.png"


def test_a_missing_column_is_named(folder):
    row = {"image": "a.png", "question": "What?", "reply": "net"}
    for columns, words in (
        (COLUMNS, r"q.json: unknown column 'answer' \(it has image, question, reply; --data.answer_column"),
        (Columns(answer="reply"), "unknown column 'style'.*--data.style_column"),
        (Columns(answer="reply", style="", image="file"), "unknown column 'file'.*--data.image_column"),
        (Columns(answer="reply", style="", question="asked"), "unknown column 'asked'.*--data.question_column"),
    ):
        with pytest.raises(ValueError, match=words):
            read(folder, "q.json", [row, row], columns)
    assert read(folder, "q.json", [row], Columns(answer="reply", style=""))[0][0].answer == "net"


def test_what_cannot_be_encoded_is_skipped_by_name(folder):
    """A line break ends an answer of BLIP-2."""
    model, _ = build("film")
    row = {"image": "a.png", "question": "What?", "answer": "net"}
    first, second = read(folder, "q.json", [row, row])[0]
    samples, images = [first, replace(second, answer="two\nlines")], ImageCache(48)
    dataset = VqaDataset(samples, images, 32, model.prompts, model.styles)
    assert dataset.read(1) is None and torch.equal(dataset[1]["image"], dataset[0]["image"])  # the next in its place
    dataset.drop_broken()
    assert len(dataset) == 1
    assert dataset.file_of(0) == f"a.png (row {folder / 'q.json'}:entry 0)"
    ((place, reason),) = dataset.skipped.skipped.items()
    assert place == f"{folder / 'q.json'}:entry 1" and "a line break ends an answer" in reason
