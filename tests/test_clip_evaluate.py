"""Evaluation from files to numbers: with a model whose answers are known, with a tiny real one, and on real data."""

import json
import re

import pytest
import torch
from PIL import Image
from tiny.clip import COLOURS, write_colours

from clip import evaluate
from clip.dataset import find_pairs
from clip.preprocessing import Resize
from clip.report import plot_metrics


class Oracle(torch.nn.Module):
    """Knows colours and their names; `confused` are seen as others."""

    image_size, pad_id, context_length = 16, 0, 77
    preprocess = Resize(16)

    def __init__(self, **confused):
        super().__init__()
        self.confused = confused

    @property
    def tokenizer(self):
        return self

    def encode(self, texts):
        names = list(COLOURS)
        words = [re.findall(r"\w+", text) for text in texts]
        return [[1 + names.index(word) if word in names else 9 for word in one] for one in words], 0

    def tokenize(self, texts):
        tokens = self.encode(texts)[0]
        return torch.tensor([[*one, *[0] * (40 - len(one))] for one in tokens])

    def encode_image(self, image):
        colours = torch.tensor(list(COLOURS.values())).float()
        seen = torch.cdist(image.float().mean((2, 3)), colours).argmin(1)
        names = [self.confused.get(name, name) for name in (list(COLOURS)[index] for index in seen)]
        return torch.eye(8)[[list(COLOURS).index(name) for name in names]]

    def encode_text(self, tokens):
        known = torch.where((tokens > 0) & (tokens < 9), tokens, 0).max(1).values
        return torch.eye(8)[torch.where(known > 0, known - 1, 7)]


@pytest.fixture
def data(tmp_path):
    return write_colours(tmp_path / "pairs")


@pytest.fixture
def run(data, tmp_path, monkeypatch):
    def start(*arguments, model=None, content=None):
        monkeypatch.setattr(evaluate, "load_clip", lambda path, device: (model or Oracle(), content or {}))
        output = ["--output_dir", str(tmp_path / "out"), "--device", "cpu"]
        return evaluate.main(["--weights", "oracle", "--data_dir", str(data), *output, *arguments])

    return start


def test_all_known(run, data, tmp_path, capsys):
    report = run()
    numbers = report["retrieval"]
    assert numbers["rsum"]["value"] == 600 and numbers["rsum"]["interval"][1] == 600
    assert 500 < numbers["rsum"]["interval"][0] < 600  # thirty images without a miss do not prove that there is none
    assert numbers["i2t_r1"]["chance"] == pytest.approx(100 / 6)  # 10 of 60 texts are true
    assert numbers["t2i_mean_rank"] == {"value": 1, "chance": pytest.approx(31 / 6)}  # 5 of 30 images
    assert report["similarity"]["similarity_gap"] == 1
    assert (report["images"], report["texts"], report["unique_texts"]) == (30, 60, 12)
    assert all(
        report["retrieved_text"][name]["value"] > 99.9 > report["retrieved_text"][name]["chance"]
        for name in ("bleu", "rouge1", "rouge2", "rougeL")
    )
    assert report["zero_shot"]["top1"]["value"] == 100 and report["zero_shot"]["classes"] == 6
    assert report["linear_probe"]["top1"]["value"] == 100 and report["linear_probe"]["test_images"] == 9
    printed = capsys.readouterr().out
    for words in (
        "R@1, %",
        "median rank",
        "RSum",
        "true pairs",
        "text retrieved by each image",
        "BLEU",
        "ROUGEL",
        "zero-shot",
        "linear probe",
        "chance",
        "95 % interval",
    ):
        assert words in printed
    out = tmp_path / "out"
    assert json.loads((out / "evaluation.json").read_text()) == report
    plot_metrics(out / "both.png", numbers, report["similarity"])
    for name in ("similarity.png", "retrieval.png", "both.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300 and len(picture.getcolors(2**24)) > 50
    lines = [json.loads(line) for line in (out / "per_query.jsonl").read_text().splitlines()]
    assert [line["direction"] for line in lines] == ["i2t"] * 30 + ["t2i"] * 60
    assert lines[0] == {
        "direction": "i2t",
        "query": "images/red0.png",
        "rank": 1,
        "retrieved": "a red picture without anything on it",
        "retrieved_score": 1,
        "true_score": 1,
        "true_in_gallery": 10,
        "true": ["a red picture without anything on it", "All is red."],
    }
    assert lines[31]["query"] == "All is red." and lines[31]["true"] == ["images/red0.png"]


def test_one_colour_taken_for_another(run, tmp_path):
    """Red seen as green: five of thirty images have no true text before any false one, as have their ten texts; the ten
    green texts find five red images no worse than the green ones."""
    report = run(model=Oracle(red="green"))
    value = {name: number["value"] for name, number in report["retrieval"].items()}
    assert value["i2t_r1"] == value["i2t_r10"] == pytest.approx(100 * 25 / 30)
    assert value["t2i_r1"] == value["t2i_r5"] == pytest.approx(100 * 40 / 60)
    assert value["t2i_r10"] == pytest.approx(100 * 50 / 60)  # rank 6
    assert value["i2t_mean_rank"] == pytest.approx((25 + 5 * 51) / 30)
    assert value["t2i_mean_rank"] == pytest.approx((40 + 10 * 6 + 10 * 26) / 60)
    low, high = report["retrieval"]["i2t_r1"]["interval"]
    assert low < 100 * 25 / 30 < high < 100
    assert report["zero_shot"]["top1"]["value"] == pytest.approx(100 * 25 / 30)
    assert 80 < report["retrieved_text"]["rouge1"]["value"] < 100
    first = json.loads((tmp_path / "out" / "per_query.jsonl").read_text().splitlines()[0])
    assert (
        first["rank"] == 51
        and "green" in first["retrieved"]
        and (first["retrieved_score"], first["true_score"]) == (1, 0)
    )


def test_json_alone(run, capsys):
    report = run("--json")
    assert json.loads(capsys.readouterr().out) == report


def test_what_is_missing_is_said(run, data, capsys):
    (data / "images" / "red0.png").write_bytes(b"no image")
    entries = json.loads((data / "data.json").read_text())
    for entry in entries:
        del entry["category"]
    (data / "data.json").write_text(json.dumps(entries))
    report = run()
    said = capsys.readouterr()
    assert report["skipped"] == 1 and report["images"] == 29 and "red0.png" in said.err
    assert "not_measured" in report["zero_shot"] and "not_measured" in report["linear_probe"]
    assert "zero-shot classification, linear probe: not measured, these images have 0 classes" in said.out
    assert "--classes_csv" in said.out
    assert "not_measured" in run("--classes", "folder")["zero_shot"]  # all in images/


def table(path, rows):
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return str(path)


def test_splits_and_classes_of_tables(run, tmp_path):
    rows = [
        (f"{colour}{number}.png", colour[0], "train" if number else "test") for colour in COLOURS for number in range(5)
    ]
    csv = table(tmp_path / "index.csv", [("image", "initial", "split"), *rows[:-1]])
    report = run("--split_csv", csv, "--split", "test", "--classes_csv", csv, "--class_column", "initial")
    assert report["images"] == 6 and report["texts"] == 12 and report["split"] == "test"
    assert report["linear_probe"]["images_to_fit"] == 20 and report["linear_probe"]["test_images"] == 5
    assert report["linear_probe"]["skipped_classes"] == ["w"]  # three images to fit to; "b" is blue and black
    assert report["zero_shot"]["classes"] == 5 and report["zero_shot"]["images_without_class"] == 0
    twice = table(tmp_path / "twice.csv", [("image", "split"), ("red0.png", "test"), ("red0.png", "train")])
    with pytest.raises(ValueError, match="twice.csv: red0.png is both 'test' and 'train'"):
        run("--split_csv", twice, "--split", "test")
    assert run("--limit", "7")["images"] == 7
    assert run("--limit", "7")["retrieval"] == run("--limit", "7")["retrieval"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--split", "val"], "--split val: without --split_csv"),
        (["--split_csv", "{csv}"], "--split_csv: name one of its splits with --split"),
        (["--split_csv", "{csv}", "--split", "dev"], "--split dev: not in .*test, train"),
        (["--classes_csv", "{csv}", "--class_column", "kinds"], "unknown column 'kinds'; did you mean kind?"),
        (["--classes_csv", "nowhere.csv"], r"nowhere.csv: no such file \(--classes_csv\)"),
        (["--templates", "a photo"], "--templates 'a photo': expected {}"),
        (["--batch_size", "0"], "--batch_size"),
        (["--data_dir", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_mistakes_are_named(run, tmp_path, arguments, message):
    csv = table(tmp_path / "t.csv", [("image", "split", "kind"), ("red0.png", "test", "a"), ("red1.png", "train", "a")])
    with pytest.raises((ValueError, OSError), match=message):
        run(*(argument.replace("{csv}", csv) for argument in arguments))


def test_images_of_a_table_by_the_end_of_their_path(tmp_path, data):
    pairs, _ = find_pairs(data)
    csv = table(
        tmp_path / "t.csv", [("file_name", "kind"), ("red0.png", "a"), ("images/red1.png", "b"), ("2.png", "c")]
    )
    assert evaluate.read_column(csv, "kind", pairs, "--classes_csv")[:3] == ["a", "b", ""]
    moved = data / "images" / "more"
    moved.mkdir()
    (data / "images" / "red0.png").rename(moved / "red1.png")
    entries = json.loads((data / "data.json").read_text())
    entries[0]["image_path"] = "images/more/red1.png"
    (data / "data.json").write_text(json.dumps(entries))
    csv = table(tmp_path / "t.csv", [("image", "kind"), ("red1.png", "a"), ("more/red1.png", "b"), ("red2.png", "c")])
    assert evaluate.read_column(csv, "kind", find_pairs(data)[0], "--classes_csv")[:3] == [
        "b",
        "",
        "c",
    ]  # two end in red1.png
    with pytest.raises(ValueError, match="names none of the 30 images; the first is called images/more/red1.png"):
        evaluate.read_column(
            table(tmp_path / "t.csv", [("image", "kind"), ("x.png", "a")]), "kind", find_pairs(data)[0], "--x"
        )
