"""Evaluation from files to numbers: with a model whose answers are known, with a tiny real one, and on real data."""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clip import evaluate
from clip.checkpoint import save_clip
from clip.csv_labels import read_column
from clip.dataset import PairDataset, find_pairs
from clip.embed import embed_images, embed_pairs, embed_texts
from clip.linear_probe import linear_probe
from clip.model import CLIPModel
from clip.plots import plot_metrics
from clip.zero_shot import class_vectors, zero_shot
from common.images.cache import ImageCache

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 160, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}
CPU = torch.device("cpu")


class Oracle(torch.nn.Module):
    """Knows colours and their names; `confused` are seen as others."""

    image_size, pad_id, context_length = 16, 0, 77

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
    """Six colours, five pictures of each, two texts of each picture."""
    folder = tmp_path / "pairs"
    (folder / "images").mkdir(parents=True)
    entries = []
    for colour, value in COLOURS.items():
        for number in range(5):
            Image.new("RGB", (20, 24), value).save(folder / "images" / f"{colour}{number}.png")
            entries.append(
                {
                    "image_path": f"images/{colour}{number}.png",
                    "category": colour,
                    "caption": [f"a {colour} picture without anything on it", f"All is {colour}."],
                }
            )
    (folder / "data.json").write_text(json.dumps(entries))
    return folder


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
    assert "zero-shot classification: not measured, these images have 0 classes" in said.out
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
    assert read_column(csv, "kind", pairs, "--classes_csv")[:3] == ["a", "b", ""]
    moved = data / "images" / "more"
    moved.mkdir()
    (data / "images" / "red0.png").rename(moved / "red1.png")
    entries = json.loads((data / "data.json").read_text())
    entries[0]["image_path"] = "images/more/red1.png"
    (data / "data.json").write_text(json.dumps(entries))
    csv = table(tmp_path / "t.csv", [("image", "kind"), ("red1.png", "a"), ("more/red1.png", "b"), ("red2.png", "c")])
    assert read_column(csv, "kind", find_pairs(data)[0], "--classes_csv")[:3] == ["b", "", "c"]  # two end in red1.png
    with pytest.raises(ValueError, match="names none of the 30 images; the first is called images/more/red1.png"):
        read_column(table(tmp_path / "t.csv", [("image", "kind"), ("x.png", "a")]), "kind", find_pairs(data)[0], "--x")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    architecture = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    tokenizer = {"kind": "clip", "context_length": 32}
    return CLIPModel(config={"architecture": architecture, "sigmoid": False, "tokenizer": tokenizer})


def test_batches_and_threads_change_nothing(model, data):
    pairs, _ = find_pairs(data)
    store = ImageCache([pair.image for pair in pairs], 48, cache_dir=None, quiet=True)
    dataset = PairDataset(pairs, store, 32, model.tokenizer)
    model.train()
    found = embed_pairs(model, dataset, CPU, batch_size=7, quiet=True)
    assert model.training
    assert found.image_vectors.shape == (30, 24) and found.text_vectors.shape == (60, 24)
    assert found.image_of_text.tolist() == [index // 2 for index in range(60)]
    assert found.texts[2] == pairs[1].texts[0]
    model.eval()
    with torch.inference_mode():
        images = model.encode_image(torch.stack([dataset[index]["image"] for index in range(30)]))
        texts = torch.cat([model.encode_text(model.tokenize([text])) for text in found.texts])
    assert torch.allclose(found.image_vectors, images, atol=1e-6)
    assert torch.allclose(found.text_vectors, texts, atol=1e-6)
    one = embed_images(model, dataset, CPU, 30, threads=1, quiet=True)
    assert torch.allclose(one, images, atol=1e-6)
    twice = embed_texts(model, ["a", "a longer text", "a"], CPU, batch_size=1)
    assert torch.equal(twice[0], twice[2]) and not torch.equal(twice[0], twice[1])


def test_an_image_that_cannot_be_read_stops_encoding(model):
    class Broken(list):
        def __getitem__(self, index):
            raise ValueError("image 3 is broken")

    with pytest.raises(ValueError, match="image 3 is broken"):
        embed_images(model, Broken(range(5)), CPU, quiet=True)


def test_class_vectors_against_their_definition(model):
    templates = ["a photo of {}.", "{}, a thing"]
    found = class_vectors(model.eval(), ["frog", "red car"], templates, CPU)
    for vector, name in zip(found, ["frog", "red car"]):
        parts = [embed_texts(model, [template.format(name)], CPU)[0] for template in templates]
        assert torch.allclose(vector, F.normalize(sum(parts) / 2, dim=0), atol=1e-6)


def test_zero_shot_against_a_loop(model):
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(40, 24, generator=generator), dim=1)
    labels = [f"thing {index % 7}" for index in range(40)]
    found = zero_shot(model, vectors, labels, CPU, ["a {}"])
    classes = class_vectors(model, sorted(set(labels)), ["a {}"], CPU)
    hits = {1: 0, 5: 0}
    for vector, label in zip(vectors, labels):
        order = sorted(range(7), key=lambda index: -float(vector @ classes[index]))
        for k in hits:
            hits[k] += f"thing {order.index(int(label[-1]))}" in [f"thing {place}" for place in range(k)]
    assert found["top1"]["value"] == pytest.approx(100 * hits[1] / 40)
    assert found["top5"]["value"] == pytest.approx(100 * hits[5] / 40)
    assert found["top1"]["chance"] == pytest.approx(100 / 7) and found["top5"]["chance"] == pytest.approx(500 / 7)
    same = zero_shot(model, torch.zeros(40, 24), labels, CPU)
    assert same["top1"]["value"] == 0  # a model that tells nothing apart
    assert "{}的图片。" in zero_shot(model, vectors, ["青蛙", "汽车"] * 20, CPU)["templates"]


def test_linear_probe():
    generator = torch.Generator().manual_seed(0)
    labels = [f"class {index % 4}" for index in range(120)] + ["rare"] * 3
    centres = 3 * torch.randn(5, 6, generator=generator)
    vectors = centres[[index % 4 for index in range(120)] + [4] * 3] + torch.randn(123, 6, generator=generator)
    good = linear_probe(vectors, labels)
    assert good["top1"]["value"] > 90 and good["skipped_classes"] == ["rare"] and good["classes"] == 4
    assert (good["images_to_fit"], good["test_images"]) == (84, 36) and good["largest_class"] == 25
    nothing = linear_probe(torch.randn(123, 6, generator=generator), labels)
    assert nothing["top1"]["value"] < 45
    assert linear_probe(vectors, labels) == good
    training = [index < 100 for index in range(123)]
    assert linear_probe(vectors, labels, training)["test_images"] == 20
    with pytest.raises(ValueError, match="fewer than two classes have 4 images"):
        linear_probe(vectors[:5], labels[:5])
    with pytest.raises(ValueError, match="no image of these classes"):
        linear_probe(vectors, labels, [True] * 123)


def test_labels_that_were_asked_about_do_not_reach_the_fit():
    """Wrong labels on the images asked about change nothing but the score."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(60, 6, generator=generator)
    labels = ["left" if vector[0] < 0 else "right" for vector in vectors]
    training = [index < 40 for index in range(60)]
    turned = [label if fit else {"left": "right", "right": "left"}[label] for label, fit in zip(labels, training)]
    right, wrong = (linear_probe(vectors, one, training) for one in (labels, turned))
    assert right["C"] == wrong["C"]
    assert right["top1"]["value"] + wrong["top1"]["value"] == pytest.approx(100)


def test_val_is_what_training_validated_on(model, tmp_path):
    """The score that a checkpoint carries comes out of its own file and the folder again."""
    from clip import train
    from clip.dataset import create_sample_dataset

    create_sample_dataset(tmp_path / "data", num_samples=40, size=40)
    sorted((tmp_path / "data" / "images").iterdir())[3].write_bytes(b"broken")
    save_clip(tmp_path / "tiny.pth", model)
    folders = [
        word for name in ("checkpoint", "results", "log", "cache") for word in (f"--{name}_dir", str(tmp_path / name))
    ]
    train.main(
        [
            "--data_dir",
            str(tmp_path / "data"),
            "--model_name",
            str(tmp_path / "tiny.pth"),
            "--num_epochs",
            "1",
            "--batch_size",
            "8",
            "--val_split",
            "0.4",
            "--max_skipped",
            "0.2",
            "--device",
            "cpu",
            *folders,
        ]
    )
    weights = str(tmp_path / "checkpoint" / "best_model.pth")
    arguments = ["--weights", weights, "--data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]
    report = evaluate.main([*arguments, "--split", "val", "--device", "cpu"])
    best = json.loads((tmp_path / "results" / "training_results.json").read_text())["best"]
    assert report["retrieval"]["rsum"]["value"] == pytest.approx(best["val/rsum"])
    assert report["similarity"]["positive_similarity"] == pytest.approx(best["val/positive_similarity"], abs=1e-5)
    assert report["note"] == "" and report["images"] < 20
    whole = evaluate.main([*arguments, "--device", "cpu"])
    assert "--split val" in whole["note"] and whole["images"] > report["images"]


@pytest.mark.parametrize("index", ["data.json", "captions_zh.json"])
def test_an_untrained_model_on_real_data_scores_chance(model, real_data, tmp_path, index):
    save_clip(tmp_path / "untrained.pth", model)
    folder = real_data / "captions"
    report = evaluate.main(
        [
            "--weights",
            str(tmp_path / "untrained.pth"),
            "--data_dir",
            str(folder / index),
            "--limit",
            "300",
            "--classes_csv",
            str(folder / "index.csv"),
            "--output_dir",
            str(tmp_path / "out"),
            "--device",
            "cpu",
        ]
    )
    assert report["images"] == 300 > report["unique_texts"]
    for name, number in report["retrieval"].items():
        if "rank" not in name:
            low, high = number["interval"]
            assert low <= number["chance"] <= high + 1, name
        else:
            assert 0.8 * number["chance"] < number["value"] < 1.25 * number["chance"], name
    assert abs(report["similarity"]["similarity_gap"]) < 0.02
    assert report["zero_shot"]["top1"]["value"] < report["zero_shot"]["largest_class"] + 5
    assert report["retrieved_text"]["bleu"]["value"] < 10 and report["retrieved_text"]["rouge1"]["value"] < 40
