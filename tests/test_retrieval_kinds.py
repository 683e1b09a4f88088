"""Kinds of indexes: refused before an image is encoded, changed later, made again after a fault."""

import os

import pytest
from tiny.retrieval import VIT, draw

from common.vectors import vector_store
from common.vectors.extractor import Extractor
from common.vectors.vector_store import VectorStore, index_folder
from retrieval import build_index, search


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "images", range(20))
    return tmp_path / "images"


def index(folder, *more):
    made = ["--vit_checkpoint", VIT, "--image_size", "32", "--pooling", "mean", "--device", "cpu"]
    place = folder.parent / "index"
    return build_index.main(["--index_dir", str(place), "--image_dir", str(folder), *made, *more])


def nearest(folder):
    query = folder / "class_1" / "001.png"
    arguments = ["--index_dir", str(folder.parent / "index"), "--image", str(query), "--device", "cpu", "--json"]
    (row,) = search.main([*arguments, "--top_k", "1"])
    return row["found"][0]["image"] == str(query)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("IVF64,Flat", "at least 64 vectors, and there are 20; 'ivf' chooses"),
        ("OPQ4,PQ4x4", "at least 256"),
        ("PQ8", "at least 256"),
        ("IVF4,PQ8x10", "at least 1,024"),
        ("NSG16,Flat", "at least 200"),
        ("PQ7x4", "FAISS refuses it for vectors of width 64"),
        ("tree", "FAISS refuses it"),
        ("IDMap,Flat", "leave IDMap out"),
        ("IVF0,Flat", "numbers start at 1"),
    ],
)
def test_kinds_that_do_not_fit_are_refused_before_anything_is_encoded(folder, kind, message, monkeypatch):
    monkeypatch.setattr(Extractor, "embed", lambda *arguments: pytest.fail("images were encoded"))
    with pytest.raises(ValueError, match=message):
        index(folder, "--kind", kind)
    assert not (folder.parent / "index").exists()


@pytest.mark.parametrize("step", ["write_shard", "build_index", "write_index", "write_json"])
def test_the_same_command_makes_a_half_made_index_again(folder, step, monkeypatch):
    real, calls = getattr(vector_store, step), []

    def full(*arguments, **options):
        calls.append(step)
        if step != "write_json" or len(calls) == 2:  # the first writes an empty index's metadata
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    monkeypatch.setattr(vector_store, step, full)
    with pytest.raises(OSError, match="No space"):
        index(folder, "--kind", "ivf")
    monkeypatch.setattr(vector_store, step, real)
    assert index(folder, "--kind", "ivf")["images"] == 20 and nearest(folder)


def test_the_kind_of_an_index_can_be_changed(folder, monkeypatch):
    index(folder, "--kind", "hnsw")
    monkeypatch.setattr(
        Extractor, "embed", lambda self, paths, quiet: iter(()) if not paths else pytest.fail("encoded")
    )
    for kind in ("flat", "ivf", "IVF2,SQ8", "exact"):
        assert index(folder, "--kind", kind) == {"added": 0, "removed": 0, "images": 20}
        assert VectorStore(folder.parent / "index").metadata["kind"] == kind
    with pytest.raises(ValueError, match="at least 99 vectors"):
        index(folder, "--kind", "IVF99,Flat")
    assert VectorStore(folder.parent / "index").metadata["kind"] == "exact"


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "other"])
def test_a_damaged_index_file_is_named_and_made_again(folder, tmp_path, damage):
    index(folder, "--kind", "ivf")
    file = tmp_path / "index" / "index.faiss"
    data = file.read_bytes()
    other = data[:200] + bytes([data[200] ^ 1]) + data[201:]
    file.write_bytes({"bit": other, "cut": data[:-9], "empty": b"", "other": b"IxFI" + bytes(99)}[damage])
    with pytest.raises(ValueError, match="index.faiss: damaged, or an update was stopped; run build_index.py again"):
        nearest(folder)
    assert index(folder)["images"] == 20 and file.read_bytes() == data and nearest(folder)


@pytest.mark.parametrize("part", ["", "/key"])
def test_a_link_in_a_data_folder_is_not_written_through(folder, tmp_path, part):
    extractor = build_index.open_extractor(VIT, build_index.ExtractorOptions(image_size=32, device="cpu"))
    target, cache = tmp_path / "target", folder / ".image_index"
    target.mkdir()
    if part:
        cache.mkdir()
    os.symlink(target, cache / f"{extractor.metadata['key']}-32" if part else cache)
    with pytest.raises(ValueError, match=".image_index.* is a link"):
        index_folder(folder, extractor, quiet=True)
    assert not list(target.iterdir())
    assert len(index_folder(folder, extractor, cache_dir=target, quiet=True)) == 20
