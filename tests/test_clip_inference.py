"""clip/inference.py as it is typed, its numbers against plain loops."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import flags
from PIL import Image

from clip.checkpoint import load_clip, save_clip
from clip.inference import main, rank_texts
from clip.match_pictures import heatmap_names
from clip.model import CLIPModel
from clip.pairs import TrueTexts, read_texts
from common.images.folders import list_images
from common.samples.layouts import create_sample_dataset


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model that has learnt nothing, small enough to be made in a moment."""
    vision = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 16, "head_width": 8}
    text = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    architecture = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    tokenizer = {"kind": "clip", "context_length": 20}
    model = CLIPModel(config={"architecture": architecture, "sigmoid": False, "tokenizer": tokenizer})
    path = tmp_path_factory.mktemp("model") / "best_model.pth"
    save_clip(path, model)
    return path


@pytest.fixture
def samples(tmp_path):
    create_sample_dataset(tmp_path / "data", 7, layout="captions", size=48)
    return tmp_path / "data"


def arguments(samples, weights, tmp_path, *more):
    return [
        "--data_root",
        str(samples / "images"),
        "--model",
        str(weights),
        "--output_dir",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--batch_size",
        "3",
        *map(str, more),
    ]


def vectors_of(weights, samples, texts):
    model, _ = load_clip(weights)
    images = [Image.open(path).convert("RGB") for path in sorted((samples / "images").iterdir()) if path.is_file()]
    with torch.no_grad():
        pixels = torch.stack([model.preprocess(image) for image in images])
        return model, model.encode_image(pixels), torch.cat([model.encode_text([text]) for text in texts])


def test_every_image_gets_its_best_text_and_a_heat_map(samples, weights, tmp_path, capsys):
    result = main(arguments(samples, weights, tmp_path, "--metadata", samples / "data.json", "--top_k", 3))
    entries = json.loads((samples / "data.json").read_text())
    texts = [entry["caption"] for entry in entries]
    model, images, vectors = vectors_of(weights, samples, texts)
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert rows == result["images"] and len(rows) == 7
    for number, (row, image) in enumerate(zip(rows, images)):
        cosines = [float(image @ vector) for vector in vectors]
        order = sorted(range(7), key=lambda one: -cosines[one])
        total = sum(math.exp(model.scale.item() * one) for one in cosines)
        assert row["image"] == entries[number]["image_path"].removeprefix("images/")
        assert row["text"] == texts[order[0]]
        assert [one["text"] for one in row["top"]] == [texts[one] for one in order[:3]]
        for one, place in zip(row["top"], order):
            assert one["score"] == pytest.approx(cosines[place], abs=1e-5)
            expected = math.exp(model.scale.item() * cosines[place]) / total
            assert one["probability"] == pytest.approx(expected, abs=1e-4)
        assert row["true_rank"] == order.index(number) + 1
        with Image.open(tmp_path / "out" / row["heatmap"]) as picture:
            assert picture.width > 640 and len(picture.convert("L").getcolors(256)) > 50
    assert Image.open(tmp_path / "out" / "overview.png").height > 200
    said = capsys.readouterr().out
    assert "the best text is the true one for" in said and "of 7 images (7 texts)" in said
    assert rows[0]["text"] in said and str(tmp_path / "out") in said


def test_queries_find_images(samples, weights, tmp_path, capsys):
    queries = ["a red house", "two 鸟"]
    result = main(arguments(samples, weights, tmp_path, "--query", *queries, "--top_k", 4, "--json"))
    _, images, vectors = vectors_of(weights, samples, queries)
    names = sorted(path.name for path in (samples / "images").iterdir() if path.is_file())
    for row, query, vector in zip(result["queries"], queries, vectors):
        expected = sorted(zip((images @ vector).tolist(), names), reverse=True)[:4]
        assert row["query"] == query and [one["image"] for one in row["matches"]] == [name for _, name in expected]
        assert [one["score"] for one in row["matches"]] == pytest.approx([score for score, _ in expected], abs=1e-5)
    assert Image.open(tmp_path / "out" / "search.png").width > 600
    assert json.loads(capsys.readouterr().out) == result  # JSON and nothing else
    assert "images" not in result and not (tmp_path / "out" / "results.jsonl").exists()


def test_found_images_are_shown_with_their_true_texts(samples, weights, tmp_path, capsys):
    words = ("--metadata", samples / "data.json", "--query", "a red house", "--max_heatmaps", 2)
    result = main(arguments(samples, weights, tmp_path, *words))
    captions = {
        Path(entry["image_path"]).name: entry["caption"] for entry in json.loads((samples / "data.json").read_text())
    }
    matches, shown = result["queries"][0]["matches"], capsys.readouterr().out
    assert len(matches) == 5
    for match in matches:
        assert match["texts"] == [captions[match["image"]]]
        assert f"{match['score']:7.3f}  {match['image']}: {captions[match['image']]}" in shown
    files = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert files == ["overview.png", "scene_00000.png", "scene_00001.png", "search.png"]
    assert [row.get("heatmap") for row in result["images"][:3]] == ["scene_00000.png", "scene_00001.png", None]


def test_other_maps_and_a_second_call(samples, weights, tmp_path):
    captions = ("--metadata", samples / "data.json")
    calls, pictures = [], []
    for method in ("surgery", "chefer"):
        calls.append(main(arguments(samples, weights, tmp_path, *captions, "--heatmap_method", method)))
        pictures.append((tmp_path / "out" / calls[-1]["images"][0]["heatmap"]).read_bytes())
    assert calls[0] == calls[1] and pictures[0] != pictures[1]
    assert len(list((samples / "images" / ".image_index").iterdir())) == 1


def test_broken_images_and_lines_are_named(samples, weights, tmp_path, capsys):
    (samples / "images" / "zz.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    metadata = write_jsonl(
        tmp_path / "optimized_metadata.jsonl",
        [
            {"file_name": "images/scene_00000.png", "text": "a star"},
            {"file_name": "b.png", "text": "a star"},
            {"file_name": "c.png", "text": ""},
            {"file_name": "d.png", "text": "a moon " * 40},
        ],
    )
    with metadata.open("a") as file:
        file.write("not JSON\n")
    result = main(arguments(samples, weights, tmp_path, "--metadata", metadata))
    assert result["texts"] == 2 and result["truncated_texts"] == 1 and len(result["images"]) == 7
    assert len(result["skipped"]) == 3
    said = capsys.readouterr()
    assert "zz.png: a Git LFS pointer" in said.err and "line 3: no text" in said.err and "line 5: not JSON" in said.err
    assert "1 texts are longer than the model" in said.out
    written = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in written] == list(result["skipped"])
    assert result["images"][0]["true_rank"] in (1, 2) and "true_rank" not in result["images"][1]


def test_an_image_damaged_since_it_was_indexed_is_skipped(samples, weights, tmp_path, capsys):
    metadata = write_jsonl(tmp_path / "metadata.jsonl", [{"text": "a star"}])
    words = arguments(samples, weights, tmp_path, "--query", "a moon", "--metadata", metadata)
    before = main(words)
    path = list_images(samples / "images")[0]
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a bit that flips on the disk
    after = main(words)
    assert [row["image"] for row in after["images"]] == [row["image"] for row in before["images"]][1:]
    assert list(after["skipped"]) == [str(path)] and path.name in capsys.readouterr().err


def test_texts_of_every_metadata_format(tmp_path):
    lines = [
        {"file_name": "a/1.png", "character": "Ada", "appearance": "tall", "personality": "kind"},
        {"file_name": "a/2.png", "text": "Bob. short"},
        {"file_name": "./a/3.png", "text": "Bob. short"},
    ]
    texts, named, skipped = read_texts(write_jsonl(tmp_path / "metadata.jsonl", lines))
    assert texts == ["Ada. tall", "Ada. kind", "Bob. short"] and not skipped
    assert named == {"a/1.png": {0, 1}, "a/2.png": {2}, "a/3.png": {2}}
    assert read_texts(tmp_path / "metadata.jsonl", ["appearance"])[0] == ["tall", "Bob. short"]
    (tmp_path / "texts.txt").write_text("\ufeff一只猫\n\n a dog \n一只猫\n", encoding="utf-8")
    assert read_texts(tmp_path / "texts.txt")[:2] == (["一只猫", "a dog"], {})
    (tmp_path / "data.json").write_text('[{"image_path": "x.png", "caption": ["one", "two"]}]')
    assert read_texts(tmp_path / "data.json")[:2] == (["one", "two"], {"x.png": {0, 1}})


def test_true_texts_are_found_by_path_then_by_name(tmp_path):
    named = {"images/a.png": {0}, "b/c.png": {1}, "d/c.png": {2}, "e/f.png": {3}}
    true_texts = TrueTexts([tmp_path / "data" / "images", tmp_path / "data"], named)
    assert true_texts[tmp_path / "data/images/a.png"] == {0}
    assert true_texts[tmp_path / "data/images/b/c.png"] == {1}  # a path from the image folder
    assert true_texts[tmp_path / "data/images/c.png"] == set()  # two have this name
    assert true_texts[tmp_path / "data/images/f.png"] == {3}
    assert true_texts[tmp_path / "data/images/g.png"] == set()


def test_no_two_heat_maps_share_a_name():
    names = ["a/b.jpg", "a/b.png", "a/c.webp", "overview.png", "b.jpg"]
    found = heatmap_names([Path(name) for name in names])
    assert found == ["a/b.jpg.png", "a/b.png.png", "a/c.png", "overview.png.png", "b.png"]


def test_a_model_that_finds_everything_alike_gets_no_first_rank():
    row = rank_texts(torch.full((5,), 0.3), 10.0, 2, {1, 2})
    assert row["true_rank"] == 4 and row["top"][0]["probability"] == pytest.approx(0.2)
    assert rank_texts(torch.tensor([0.1, 0.5, 0.3]), 10.0, 9, {0, 2})["true_rank"] == 2
    assert "true_rank" not in rank_texts(torch.rand(3), 10.0, 1, set())


def test_mistakes_are_said_in_one_line(samples, weights, tmp_path):
    good = arguments(samples, weights, tmp_path)

    def with_flag(flag, value, *more):
        return [*good, *more, flag, str(value)]

    captions = ("--metadata", str(samples / "data.json"))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    (tmp_path / "pointer.jsonl").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "text.csv").write_text("a")
    cases = [
        (good, ValueError, "--metadata or --query"),
        (with_flag("--metadata", tmp_path / "none.jsonl"), FileNotFoundError, "none.jsonl: no such file"),
        (with_flag("--metadata", empty), ValueError, "empty.jsonl: holds no text"),
        (with_flag("--metadata", tmp_path / "pointer.jsonl"), ValueError, "Git LFS pointer"),
        (with_flag("--metadata", tmp_path / "text.csv"), ValueError, "text.csv: holds no text"),
        (with_flag("--data_root", tmp_path / "none", *captions), FileNotFoundError, "none: no such folder"),
        (with_flag("--model", tmp_path / "none.pth", *captions), (ValueError, OSError), "none.pth"),
        (with_flag("--heatmap_method", "magic", *captions), ValueError, "'magic': this image tower has"),
        (with_flag("--top_k", 0, *captions), ValueError, "--top_k"),
        (with_flag("--output_dir", samples / "images" / "maps", *captions), ValueError, "inside --data_root"),
    ]
    for argv, kind, words in cases:
        with pytest.raises(kind) as caught:
            main(argv)
        assert words in str(caught.value) and "\n" not in str(caught.value), caught.value
    assert not (samples / "images" / "maps").exists()


def test_real_photographs(real_data, weights, tmp_path):
    pairs = json.loads((real_data / "captions" / "data.json").read_text())
    pairs = pairs[:: len(pairs) // 8][:8]
    (tmp_path / "images").mkdir()
    for pair in pairs:
        shutil.copy(real_data / "captions" / pair["image_path"], tmp_path / "images")
    (tmp_path / "data.json").write_text(json.dumps(pairs))
    folders = flags(data_root=tmp_path / "images", output_dir=tmp_path / "out", cache_dir=tmp_path / "cache")
    result = main([*flags(metadata=tmp_path / "data.json", model=weights, device="cpu", json=True), *folders])
    assert len(result["images"]) == 8 and all("true_rank" in row for row in result["images"])
