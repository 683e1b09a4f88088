"""The table of pairs: what it holds, how it is split, what a million of them take."""

import json
import os
import pickle
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from clip.dataset import find_pairs, split_pairs
from clip.pair_columns import ColumnBuilder
from clip.pair_table import PairTable
from common.images.file_lookup import find_files
from common.images.webdataset import TarMember

EXPECTED = [53, 9, (11, "bc07c0bceed5"), (11, "5e9440ae8341"), (11, "29996ac507ac"), (10, "318b7083090d")]


def write_pairs(folder, count=60):
    """Characters of two or three, first texts of two, a link; every seventh entry is broken in one way or another."""
    lines = []
    for number in range(count):
        path = folder / f"{number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number)) if number != 50 else path.symlink_to(folder / "1" / "001.png")
        record = {"file_name": path.relative_to(folder).as_posix(), "text": [f"text {number // 2}", f"more {number}"]}
        record["character"] = f"c{number // 3}" if number % 5 == 0 or number % 4 == 1 else ""
        broken = [{}, {"text": 5}, {"file_name": "0/none.png"}, {"file_name": "../x.png"}, {"text": ""}]
        lines.append(record | broken[number % 5] if number % 7 == 3 else record)
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n[]")
    return folder


def test_splits_are_those_of_earlier_versions(tmp_path):
    """Digests of the validation sets that versions with a Python object for each pair drew."""
    pairs, skipped = find_pairs(write_pairs(tmp_path))
    assert len(pairs) == EXPECTED[0] and len(skipped) == EXPECTED[1]
    for seed, (count, digest) in enumerate(EXPECTED[2:]):
        train, val = split_pairs(pairs, 0.2, seed)
        keys = " ".join(val.values("key"))
        assert (len(val), blake2b(keys.encode(), digest_size=6).hexdigest()) == (count, digest)
        assert sorted(train.values("key") + val.values("key")) == sorted(pairs.values("key"))


def test_skipped_entries_are_named_in_the_order_of_the_index(tmp_path):
    _, skipped = find_pairs(write_pairs(tmp_path))
    places, reasons = [int(name.rpartition(" ")[2]) for name in skipped], list(skipped.values())
    assert places == [4, 18, 25, 32, 39, 53, 60, 61, 62]
    for reason, words in zip(reasons, ("leaves", "no such image: ", "no text", "got a number", "leaves", "no such")):
        assert words in reason


def test_entries_of_one_image_become_one_pair(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text(name)
    rows = [("b.png", "one", "B"), ("a.png", ["x", "y", "x"], "A"), ("./b.png", "two", "C"), ("b.png", "one", "")]
    lines = [json.dumps({"file_name": name, "text": text, "label": label}) for name, text, label in rows]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    pairs, _ = find_pairs(tmp_path)
    assert [(pair.key, pair.texts, pair.label) for pair in pairs] == [
        ("b.png", ("one", "two"), "B"),
        ("a.png", ("x", "y"), "A"),
    ]
    codes, pair_of_text = pairs.select([1, 0]).text_codes()
    assert pairs.texts_of(codes) == ["x", "y", "one", "two"] and pair_of_text.tolist() == [0, 0, 1, 1]


def made(count):
    """A table of `count` images with texts of their own; the images need not exist."""
    builder = ColumnBuilder(Path("/data"))
    for number in range(count):
        image = TarMember(Path(f"/data/{number // 1000}.tar"), f"{number:08}.jpg", 512 * number, 99)
        builder.add(number, "x", image, [f"a picture of {number} things"], ("", f"{number % 10}", ""))
    return PairTable(builder.build()[0])


def test_a_hundred_thousand_pairs_are_some_bytes_each():
    pairs = made(100_000)
    columns = pairs.columns
    arrays = [columns.names, columns.texts, columns.text_codes, columns.text_starts, columns.files, columns.places]
    size = sum(array.nbytes for array in [*arrays, *columns.labels.values(), pairs.rows])
    assert size < 160 * len(pairs)  # 36 of them the name and the text
    train, val = split_pairs(pairs, 0.1, 0)
    assert train.columns is val.columns is columns and len(val) == 10_000
    assert pairs[70_001].image == TarMember(Path("/data/70.tar"), "00070001.jpg", 512 * 70_001, 99)
    assert pairs[-1].texts == ("a picture of 99999 things",) and pairs[-1].key == "/data/99.tar/00099999.jpg"
    assert pairs.values("label")[:11] == [*"0123456789", "0"]


def test_a_part_of_a_table_survives_a_pickle_and_is_described_by_its_content():
    pairs = made(300)
    part = pickle.loads(pickle.dumps(pairs.select(np.arange(300) % 3 == 1)))
    assert [pair.key for pair in part] == [pair.key for pair in pairs][1::3] and list(part[2:4]) == list(pairs)[7:13:3]
    assert part.describe() != pairs.describe() == made(300).describe() != made(301).describe()
    names = {str(pairs[5].image), str(pairs[299].image), "/data/none.png"}
    assert [pair.key for pair in pairs.without(names)] == [pair.key for pair in pairs if pair.key not in names]
    assert len(pairs.without({})) == 300


def test_images_of_files_are_removed_by_name(tmp_path, monkeypatch):
    write_pairs(tmp_path)
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path, Path()):
        pairs, _ = find_pairs(root)
        gone = {str(pairs[7].image), str(pairs[0].image)}
        assert list(pairs.without(gone)) == [pair for pair in pairs if str(pair.image) not in gone]


@pytest.mark.parametrize("listed", [1, 1000])
def test_files_and_links_against_pathlib(tmp_path, monkeypatch, listed):
    monkeypatch.setattr("common.images.file_lookup.LISTED", listed)
    (tmp_path / "d").mkdir()
    for name in ("a", "d/b", "d/c"):
        (tmp_path / name).write_text(name)
    links = {"e": "d", "f": "d/b", "g": "f", "loop": "loop", "gone": "no", "d/h": "../a", "i": "d/../e/c", "up": ".."}
    for name, target in links.items():
        os.symlink(target, tmp_path / name)
    names = ["a", "d/b", "d/c", "e/b", "e/c", "f", "g", "loop", "gone", "d/h", "e/h", "i", "d", "none", "none/b"]
    names += [f"up/{tmp_path.name}/a", "x" * 300]
    is_file, codes = find_files(tmp_path, names)
    expected = [os.path.isfile(tmp_path / name) for name in names]  # noqa: PTH113, False for what is too long
    assert is_file.tolist() == expected and sum(expected) == 11
    real = [os.path.realpath(tmp_path / name) for name in names]
    for one in range(len(names)):
        for other in range(len(names)):
            if expected[one] and expected[other]:
                assert (codes[one] == codes[other]) == (real[one] == real[other]), (names[one], names[other])
