"""Kinds of indexes: refused before an image is encoded, changed later, made again after a fault."""

import os
import sqlite3

import pytest
from tiny.retrieval import VIT, draw

from common.vectors import faiss_folder
from common.vectors.extractor import Extractor
from common.vectors.image_table import ImageTable
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
        ("IDMap,Flat", "omit IDMap"),
        ("IVF0,Flat", "numbers start at 1"),
    ],
)
def test_kinds_that_do_not_fit_are_refused_before_anything_is_encoded(folder, kind, message, monkeypatch):
    monkeypatch.setattr(Extractor, "embed", lambda *arguments: pytest.fail("images were encoded"))
    with pytest.raises(ValueError, match=message):
        index(folder, "--kind", kind)
    assert not (folder.parent / "index").exists()


@pytest.mark.parametrize(
    "owner, step",
    [(ImageTable, "add"), (faiss_folder, "trained_index"), (faiss_folder, "write_index"), (faiss_folder, "write_json")],
)
def test_the_same_command_makes_a_half_made_index_again(folder, owner, step, monkeypatch):
    real, calls = getattr(owner, step), []

    def full(*arguments, **options):
        calls.append(step)
        if step != "write_json" or len(calls) == 2:  # the first writes an empty index's metadata
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    monkeypatch.setattr(owner, step, full)
    with pytest.raises(OSError, match="No space"):
        index(folder, "--kind", "ivf")
    monkeypatch.setattr(owner, step, real)
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


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "other", "gone"])
def test_a_damaged_index_file_is_named_and_made_again(folder, tmp_path, damage, capsys):
    index(folder, "--kind", "ivf")
    file = tmp_path / "index" / "index.faiss"
    data = file.read_bytes()
    other = data[:200] + bytes([data[200] ^ 1]) + data[201:]
    file.write_bytes({"bit": other, "cut": data[:-9], "empty": b"", "other": b"IxFI" + bytes(99), "gone": b""}[damage])
    if damage == "gone":
        file.unlink()
    assert nearest(folder)  # by the table
    assert "index.faiss: lacks 20 of 20 images, or is damaged" in capsys.readouterr().err
    assert index(folder)["images"] == 20 and file.read_bytes() == data and nearest(folder)
    assert "lacks" not in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["vector", "cut", "empty", "other", "trigger", "page"])
def test_a_damaged_table_is_never_believed(folder, tmp_path, damage, capsys):
    index(folder)
    file = tmp_path / "index" / "images.sqlite"
    data = file.read_bytes()
    (tmp_path / "index" / "index.faiss").unlink()
    if damage in ("vector", "trigger"):
        statement = {
            "vector": "UPDATE images SET vector = zeroblob(128) WHERE id = 7",
            "trigger": "CREATE TRIGGER t AFTER INSERT ON images BEGIN DELETE FROM images; END",
        }
        with sqlite3.connect(file) as connection:
            connection.execute(statement[damage])
        connection.close()
    else:
        changed = {"cut": data[: len(data) // 2], "empty": b"", "other": b"SQLite format 3\0" + bytes(999)}
        file.write_bytes(changed.get(damage, data[:16_384] + b"\xff" * 8 + data[16_392:]))
    with pytest.raises(ValueError, match=r"images.sqlite: .*damaged.*run build_index.py again"):
        nearest(folder)
    assert index(folder)["images"] == 20 and nearest(folder)
    assert ("all its images are encoded again" in capsys.readouterr().err) == (damage != "vector")


def test_an_index_of_an_earlier_version_is_refused(folder, tmp_path):
    index(folder)
    (tmp_path / "index" / "images.sqlite").unlink()
    (tmp_path / "index" / "shard-00000.json").write_text("{}")
    for use in (nearest, index):
        with pytest.raises(ValueError, match="of an earlier version.* build_index.py --index_dir NEW --image_dir"):
            use(folder)


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
