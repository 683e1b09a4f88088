"""Pairs in Parquet tables and webdataset shards."""

import contextlib
import io
import json
import pickle
import tarfile

import datasets
import pyarrow.parquet
import pytest
from PIL import Image
from tiny.clip import PERSONA

from clip.dataset import find_pairs
from common.images.cache import ImageCache
from common.images.io import open_image
from common.images.webdataset import read_shard


def picture(path, colour="red", size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_parquet_with_images_inside_and_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    picture(tmp_path / "b.png", "blue")
    rows = {
        "image": [{"bytes": png("red"), "path": "a.png"}, {"bytes": None, "path": "b.png"}, None],
        "text": [["a red card", "red"], ["a blue card"], ["nothing"]],
    }
    table = tmp_path / "train-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.table(rows), table)
    pairs, skipped = find_pairs(tmp_path)
    assert [pair.texts for pair in pairs] == [("a red card", "red"), ("a blue card",)] and len(skipped) == 1
    images = ImageCache(16, tmp_path / "images")
    assert [images[pair.image][0, 0].tolist() for pair in pairs] == [[255, 0, 0], [0, 0, 255]]
    assert str(pickle.loads(pickle.dumps(pairs[0].image))) == f"{table} row 1"
    (tmp_path / "x.parquet").write_bytes(table.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"x.parquet: cannot be read as Parquet"):
        find_pairs(tmp_path / "x.parquet")


def test_parquet_of_plain_bytes_of_paths_alone_and_of_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    picture(tmp_path / "b.png", "blue")
    content = (tmp_path / "b.png").read_bytes()
    for name, images in (("bytes", [content, None]), ("paths", [{"bytes": None, "path": "b.png"}, None])):
        pyarrow.parquet.write_table(
            pyarrow.table({"image": images, "text": ["blue", "none"]}), tmp_path / f"{name}.parquet"
        )
        pairs, skipped = find_pairs(tmp_path / f"{name}.parquet")
        assert open_image(pairs[0].image).getpixel((0, 0)) == (0, 0, 255) and len(pairs) == len(skipped) == 1
    pyarrow.parquet.write_table(
        pyarrow.table({"image": pyarrow.array([], pyarrow.string())}), tmp_path / "none.parquet"
    )
    with pytest.raises(ValueError, match="none.parquet: holds no entry"):
        find_pairs(tmp_path / "none.parquet")


def png(colour="blue"):
    buffer = io.BytesIO()
    Image.new("RGB", (24, 20), colour).save(buffer, "PNG")
    return buffer.getvalue()


def make_shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_webdataset_shards_are_read_in_place(tmp_path):
    make_shard(
        tmp_path / "0.tar",
        {
            "000.png": png("red"),
            "000.txt": "\ufeffa red card\x85".encode(),
            "002.png": png(),
            "002.txt": "schön".encode("cp1252"),
            "sub/000.png": png(),
            "sub/000.json": json.dumps(PERSONA).encode(),
            "001.txt": b"no image",
            "../escape.png": png(),
            "../escape.txt": b"nothing is unpacked",
        },
    )
    make_shard(
        tmp_path / "1.tar", {"000.png": png("green"), "000.txt": b"a green card", "002.png": b"junk", "002.txt": b"x"}
    )
    pairs, skipped = find_pairs(tmp_path)
    assert [pair.texts[0] for pair in pairs] == [
        "a red card",
        "Mira. Red hair",
        "nothing is unpacked",
        "a green card",
        "x",
    ]
    bad_text, no_image = skipped.values()
    assert "not UTF-8 text in line 1" in bad_text and no_image == "no image in this sample"
    assert not (tmp_path.parent / "escape.png").exists()
    for cache in (None, tmp_path / "cache"):
        store = ImageCache(16, cache)
        unreadable = store.check([pair.image for pair in pairs])
        assert list(unreadable) == [str(pairs[4].image)] and "1.tar/002.png" in str(unreadable)
        red, green = (store[pairs[index].image][0, 0].tolist() for index in (0, 3))
        assert red == [255, 0, 0] and green == [0, 128, 0]
    (tmp_path / "2.tar").write_bytes(b"not a tar at all" * 100)
    with pytest.raises(ValueError, match="2.tar: cannot be read as an uncompressed tar"):
        find_pairs(tmp_path)


def test_a_shard_that_was_cut_between_two_members_is_named(tmp_path):
    kinds = {"png": png(), "txt": b"red"}
    make_shard(tmp_path / "0.tar", {f"{number}.{kind}": kinds[kind] for number in range(4) for kind in kinds})
    pairs, skipped = find_pairs(tmp_path / "0.tar")
    assert len(pairs) == 4 and not skipped
    content = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(content[: content.index(b"2.png\0")])
    pairs, skipped = find_pairs(tmp_path / "0.tar")
    assert len(pairs) == 2 and "end mark" in skipped[str(tmp_path / "0.tar")]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile(tmp_path, format):
    """Of plain files, which are read header by header, and of what tarfile alone understands."""
    plain = ["a.jpg", "sub/b.txt", "d/" * 45 + "deep.png", ".hidden.jpg"]
    for number, names in enumerate((plain, [*plain, "é" * 60 + ".jpg"], [*plain, "x" * 130 + ".jpg"], [])):
        path = tmp_path / f"{number}.tar"
        with tarfile.open(path, "w", format=format) as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(name), 1.5  # as webdataset's writer: a header of its own in PAX
                with contextlib.suppress(ValueError):  # USTAR has no long names
                    archive.addfile(member, io.BytesIO(name.encode()))
        with tarfile.open(path) as archive:
            expected = {(member.name, member.offset_data, member.size) for member in archive}
        found = {(m.name, m.offset, m.size) for members in read_shard(path).values() for m in members.values()}
        assert found == {member for member in expected if member[0] != ".hidden.jpg"}
        for cut in (100, 700, 1100):
            (tmp_path / "cut.tar").write_bytes(path.read_bytes()[:cut])
            with contextlib.suppress(ValueError):
                assert len(read_shard(tmp_path / "cut.tar")) <= len(found)
