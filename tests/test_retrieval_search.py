"""Indexing and searching a folder: what comes and goes, what is printed."""

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import flags
from PIL import Image
from tiny.retrieval import VIT, draw

from clip.checkpoint import save_clip
from clip.model import CLIPModel
from common.images.io import list_images, open_image
from common.vectors import shares
from common.vectors.extractor import Extractor, ExtractorOptions
from common.vectors.faiss_index import load_faiss
from common.vectors.vector_store import VectorStore
from retrieval import build_index, search
from retrieval.encoders import open_extractor


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "images", range(24))
    return tmp_path / "images"


def index(folder, place, *more):
    first = ["--image_dir", str(folder), "--vit_checkpoint", VIT, "--image_size", "32", "--pooling", "mean"]
    return build_index.main(["--index_dir", str(place), "--device", "cpu", *([] if place.exists() else first), *more])


def found_by(place, *queries, k=24, more=()):
    arguments = ["--index_dir", str(place), "--top_k", str(k), "--device", "cpu", "--json"]
    arguments += ["--image", *map(str, queries)] if queries else []
    return [[one["image"] for one in row["found"]] for row in search.main([*arguments, *more])]


@cache
def reference():
    return open_extractor(VIT, ExtractorOptions(pooling="mean", image_size=32, device="cpu"))


def expected_by(folder, query):
    extractor, paths = reference(), list_images(folder)
    cosines = extractor.encode(paths) @ extractor.encode([query])[0]
    return [str(paths[place]) for place in np.argsort(-cosines, kind="stable")]


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw", "IVF2,Flat"])
def test_images_come_and_go(folder, tmp_path, kind):
    """After every change an index that was kept up to date finds what one made from nothing does."""
    everything = ["--search_params", "nprobe=99"] if "ivf" in kind.lower() else []  # every cluster is searched: exact
    place, query = tmp_path / "index", folder / "class_1" / "001.png"
    assert index(folder, place, "--kind", kind) == {"added": 24, "removed": 0, "images": 24}
    assert set(found_by(place, query, more=everything)[0]) == set(expected_by(folder, query))
    assert found_by(place, query, k=5, more=everything)[0] == expected_by(folder, query)[:5]
    before = (place / "index.faiss").stat()
    assert index(folder, place) == {"added": 0, "removed": 0, "images": 24}
    assert (place / "index.faiss").stat() == before

    draw(folder, range(24, 28))
    (folder / "class_1" / "005.png").unlink()
    draw(tmp_path, [101])
    shutil.move(tmp_path / "class_1" / "101.png", folder / "class_2" / "002.png")  # changed
    assert index(folder, place) == {"added": 5, "removed": 2, "images": 27}
    assert found_by(place, query, more=everything)[0][:5] == expected_by(folder, query)[:5]
    assert set(found_by(place, query, k=99, more=everything)[0]) == {str(path) for path in list_images(folder)}

    for path in list_images(folder)[:18]:  # most of them go: a graph is built again
        if path != query:
            path.unlink()
    assert index(folder, place)["removed"] == 17
    assert read_index(place).ntotal == 10
    assert found_by(place, query, k=99, more=everything)[0] == expected_by(folder, query)
    assert index(folder, place) == {"added": 0, "removed": 0, "images": 10}


def read_index(place):
    return load_faiss().read_index(str(place / "index.faiss"))


def test_a_graph_passes_over_a_few_that_are_gone(folder, tmp_path):
    place, query = tmp_path / "index", folder / "class_3" / "003.png"
    index(folder, place, "--kind", "hnsw")
    for path in sorted((folder / "class_3").iterdir())[1:]:
        path.unlink()
    index(folder, place)
    assert read_index(place).ntotal == 24 and len(VectorStore(place)) == 19
    assert found_by(place, query, k=99)[0] == expected_by(folder, query)


def test_a_filter_of_the_command_line(folder, tmp_path, capsys):
    place, query = tmp_path / "index", folder / "class_3" / "003.png"
    index(folder, place)
    inside = [path for path in expected_by(folder, query) if "class_2" in path]
    assert found_by(place, query, more=["--folder", "class_2"])[0] == inside
    assert found_by(place, query, more=["--label", "class_2", "none", "--until", "2999-01-01"])[0] == inside
    capsys.readouterr()
    assert found_by(place, query, more=["--since", "2999-01-01"])[0] == []
    assert "no image of the index matches" in capsys.readouterr().err


def test_an_update_that_was_stopped(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shares, "SAVED_ROWS", 5)
    place, real = tmp_path / "index", Extractor.encode_pixels
    calls = []

    def encode_pixels(self, pixels, tiles):
        calls.append(len(tiles))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, pixels, tiles)

    monkeypatch.setattr(Extractor, "encode_pixels", encode_pixels)
    with pytest.raises(KeyboardInterrupt):
        index(folder, place, "--kind", "ivf", "--batch_size", "4")
    assert calls[:4] == [1, 4, 4, 4]  # a blank image for the width; then 12 of 24
    query = folder / "class_1" / "001.png"
    assert len(found_by(place, query)[0]) == 12
    assert "index.faiss: lacks 12 of 12 images" in capsys.readouterr().err
    calls[:] = [0] * 9
    assert index(folder, place) == {"added": 12, "removed": 0, "images": 24}
    assert sum(calls[9:]) == 12
    assert found_by(place, query, k=1)[0] == [str(query)]


def test_text_finds_images(folder, tmp_path):
    torch.manual_seed(0)
    model = CLIPModel("small", image_size=32)
    save_clip(tmp_path / "clip.pth", model)
    places = {"index_dir": tmp_path / "index", "image_dir": folder, "vit_checkpoint": tmp_path / "clip.pth"}
    build_index.main(flags(**places, device="cpu"))
    (found,) = found_by(tmp_path / "index", more=["--text", "a frog"])
    paths = list_images(folder)
    with torch.no_grad():
        images = model.eval().encode_image(torch.stack([model.preprocess(open_image(path)) for path in paths]))
        cosines = (images @ model.encode_text(["a frog"]).T)[:, 0]
    assert sorted(found) == sorted(map(str, paths))
    ranked = [float(cosines[paths.index(type(paths[0])(path))]) for path in found]
    assert all(first >= second - 1e-3 for first, second in zip(ranked, ranked[1:]))  # half precision on disk
    with pytest.raises(ValueError, match="no text encoder"):
        place = tmp_path / "timm"
        build_index.main(["--index_dir", str(place), "--image_dir", str(folder), "--vit_checkpoint", VIT])
        found_by(place, more=["--text", "a frog"])


def test_contact_sheet(folder, tmp_path, capsys, monkeypatch):
    place = tmp_path / "index"
    index(folder, place)
    monkeypatch.chdir(folder)  # a heading is a query's path as it was typed: one line
    queries = [Path("class_0/000.png"), Path("class_1/001.png")]
    sheet = tmp_path / "new" / "s.png"
    search.main(flags(index_dir=place, image=queries, top_k=5, sheet=sheet, device="cpu"))
    sheet = Image.open(sheet).convert("RGB")
    heading, row = 48, 238
    assert sheet.size == (12 + 4 * 172, 12 + 2 * (heading + 2 * row))  # three beside the query, two in a second row
    for number, hue in enumerate((0, 1)):  # query, first and fourth find, by their place
        top = 12 + number * (heading + 2 * row) + heading
        for column, line in ((0, 0), (1, 0), (0, 1)):
            pixel = sheet.getpixel((12 + column * 172 + 80, top + line * row + 80))
            assert np.argmax(pixel) == hue, (number, column, pixel)
        assert sheet.getpixel((13, top + 80)) == (190, 30, 45) != sheet.getpixel((13 + 172, top + 80))
    assert "1.0000" in capsys.readouterr().out
    lost = folder / "class_0" / "004.png"
    lost.unlink()
    search.main(["--index_dir", str(place), "--image", str(queries[0]), "--sheet", str(tmp_path / "t.png")])


def test_broken_images_are_named_each_time(folder, tmp_path, capsys):
    (folder / "broken.png").write_bytes(b"no image")
    place = tmp_path / "index"
    for added in (24, 0):
        assert index(folder, place) == {"added": added, "removed": 0, "images": 24}
        assert "broken.png: not an image" in capsys.readouterr().err


def test_a_broken_query_is_skipped_and_named(folder, tmp_path, capsys):
    place = tmp_path / "index"
    index(folder, place)
    good, broken = list_images(folder)[0], tmp_path / "broken\x1b[31m.png"
    broken.write_bytes(b"\x89PNG")
    (rows,) = found_by(place, broken, good, k=2)
    assert rows == found_by(place, good, k=2)[0]
    assert "\x1b" not in (said := capsys.readouterr().err) and "skipped: " in said and "broken\\x1b[31m.png" in said
    with pytest.raises(ValueError, match="broken"):
        found_by(place, broken)


def test_mistakes(folder, tmp_path):
    place = tmp_path / "index"
    with pytest.raises(ValueError, match="a new index needs --image_dir and --vit_checkpoint"):
        build_index.main(["--index_dir", str(place)])
    with pytest.raises(FileNotFoundError, match="holds no index; make one with build_index.py"):
        found_by(place, folder / "class_0" / "000.png")
    index(folder, place)
    query = str(folder / "class_0" / "000.png")
    for more, message in (
        (["--kind", "IVF25,Flat"], "trained on at least 25 vectors, and there are 24"),
        (["--image_dir", str(tmp_path)], "is the index of"),
        (["--vit_checkpoint", "test_vit2:random"], "built with other weights"),
        (["--pooling", "cls"], "pooling mean, not cls; make a new index"),
        (["--flip"], "flip False, not True"),
    ):
        with pytest.raises(ValueError, match=message):
            index(folder, place, *more)
    for more, message in (
        ([], "nothing to search for"),
        (["--text", " "], "nothing to search for"),
        (["--image", str(tmp_path / "none.png")], "none.png: no such file"),
        (["--image", query, "--sheet", "found.jpg"], "--sheet found.jpg: is written as PNG"),
        (["--image", query, "--search_params", "nprobe=4"], "searched exactly; nothing to set"),
        (["--image", query, "--top_k", "0"], "--top_k"),
        (["--image", query, "--vit_checkpoint", "test_vit2:random"], "built with other weights"),
        (["--text", "a frog"], "words are compared with native vectors, this index has pooling mean"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            search.main(["--index_dir", str(place), "--device", "cpu", *more])


# --- evaluation as it is called ---------------------------------------------------------------------------------------
