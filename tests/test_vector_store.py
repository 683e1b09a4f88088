"""One suite for both engines of a vector store: what is encoded, found, filtered and removed, whatever its name."""

import os
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from tiny.colours import Colours, draw_colours, expected, extractor_of, update
from tiny.retrieval import MADE

from common.vectors.extractor import Extractor, ExtractorOptions
from common.vectors.filters import Filter
from common.vectors.records import Stamp
from common.vectors.shards import l2_normalize
from common.vectors.vector_store import VectorStore, check_kind

HOSTILE = [
    'a"; drop',
    "b' or 1 == 1 --",
    "c\\d",
    "图\u2028",
    "new\nline",
    "\x01\x7f",
    "100%_",
    "{} {0}",
    "😀",
    "a",
    "a ",
]
DAY = 24 * 3600


@pytest.fixture(params=["folder", "milvus"])
def place(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return str(tmp_path / "index")
    pytest.importorskip("milvus_lite", reason="requirements-milvus.txt is not installed")
    import faiss
    from milvus_lite.server_manager import server_manager_instance

    # pytorch-metric-learning, in other tests, replaces FAISS's search by one that milvus-lite cannot call.
    for kind in vars(faiss).values():
        if isinstance(kind, type) and "search_numpy" in vars(kind):
            monkeypatch.setattr(kind, "search", vars(kind)["search_numpy"])

    request.addfinalizer(lambda: server_manager_instance.release_server(str(tmp_path / "index.db")))
    return str(tmp_path / "index.db#photos")


@pytest.fixture
def folder(tmp_path):
    return draw_colours(tmp_path / "images")


def test_search_is_exact(place, folder):
    store, counts, encoded = update(place, folder)
    assert counts == {"added": 20, "removed": 0, "images": 20} and encoded == 20
    assert store.paths == sorted(folder.rglob("*.png")) and store.image_dir == folder
    vectors = Extractor(Colours(), "colours").encode(store.paths)
    np.testing.assert_allclose(store.vectors(), vectors, atol=1e-3)
    queries = l2_normalize(np.random.default_rng(0).standard_normal((7, 12)))
    scores, paths = store.search(queries, 5)
    images = store.paths
    for query, row, matches in zip(queries, scores, paths):
        assert matches == expected(store, query, 5)
        np.testing.assert_allclose(row, [query @ vectors[images.index(path)] for path in matches], atol=2e-3)
    assert [len(row) for row in store.search(queries, 99)[1]] == [20] * 7
    for paths, block in store.blocks():
        np.testing.assert_array_equal(block, store.vectors()[[images.index(path) for path in paths]])
    with pytest.raises(ValueError, match="width 12"):
        store.search(queries[:, :5], 1)


def test_images_come_change_and_go(place, folder):
    first, *_ = update(place, folder)
    assert update(place, folder)[1:] == ({"added": 0, "removed": 0, "images": 20}, 0)
    changed, gone, touched = first.paths[3], first.paths[5], first.paths[7]
    shutil.copy(first.paths[0], changed)
    gone.unlink()
    shutil.copy(first.paths[1], folder / "new.png")
    os.utime(touched, ns=(0, touched.stat().st_mtime_ns + 1))
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    store, counts, encoded = update(place, folder)
    assert counts == {"added": 3, "removed": 3, "images": 20} and encoded == 3
    kept = [path for path in sorted(folder.rglob("*.png")) if path.name != "broken.png"]
    assert store.paths == kept
    np.testing.assert_allclose(store.vectors(), Extractor(Colours(), "colours").encode(kept), atol=1e-3)
    assert sorted(store.search(store.vectors()[:1], 99)[1][0]) == kept
    touched.write_bytes(b"")  # an indexed image that is broken now
    assert update(place, folder)[1] == {"added": 0, "removed": 1, "images": 19}


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_filters(place, folder, kind):
    """The same images as by a loop over the files, whatever folders are called."""
    for number, name in enumerate(HOSTILE):
        draw_colours(folder / "more" / name, numbers=range(100 + 3 * number, 103 + 3 * number), subfolders=("x",))
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        os.utime(path, ns=(0, (1_000_000_000 + number % 5 * DAY) * 10**9))
    far = draw_colours(folder / "far", numbers=[999]) / "b" / "图 999.png"
    os.utime(far, (2**33, 2**33 + 2**31))  # in the year 2310, which nanoseconds in 64 bits do not reach
    store, *_ = update(place, folder, kind=kind)
    day = [datetime.fromtimestamp(1_000_000_000 + number * DAY) for number in range(5)]
    cases = [
        *((Filter(folder=f"more/{name}"), lambda path, name=name: path.parts[-3] == name) for name in HOSTILE),
        *((Filter(folder=f"more/{name}/x/"), lambda path, name=name: path.parts[-3] == name) for name in HOSTILE),
        (Filter(label=["x"]), lambda path: path.parent.name == "x"),
        (Filter(label=["a", HOSTILE[0], "none"]), lambda path: path.parent.name == "a"),
        (Filter(folder=str(folder / "more")), lambda path: "more" in path.parts),
        (Filter(folder="."), lambda path: True),
        (Filter(folder="mo"), lambda path: False),
        (Filter(since="2200-01-01"), lambda path: path == far),
        (Filter(since="9999-12-30"), lambda path: path == far),
        (Filter(until="0001-01-02"), lambda path: False),
        (Filter(since=f"{day[2]:%Y-%m-%d}"), lambda path: path.stat().st_mtime >= day[2].timestamp()),
        (Filter(until=f"{day[2]:%Y-%m-%d}"), lambda path: path.stat().st_mtime <= day[2].timestamp()),
        (Filter(until=day[2].isoformat()), lambda path: path.stat().st_mtime < day[2].timestamp()),
        (
            Filter("more", ["x"], since=day[1].isoformat(), until=f"{day[3]:%Y-%m-%d}"),
            lambda path: "more" in path.parts and day[1].timestamp() <= path.stat().st_mtime <= day[3].timestamp(),
        ),
    ]
    query = l2_normalize(np.random.default_rng(0).standard_normal((1, 12)))
    ranked = expected(store, query[0], 99)
    for filter, keep in cases:
        (found,) = store.search(query, 99, filter=filter)[1]
        assert found == [path for path in ranked if keep(path)], filter
    assert store.search(query, 2, filter=filter)[1][0] == found[:2]
    assert len(store) == 21 + 3 * len(HOSTILE)


@pytest.mark.parametrize(
    "filter, message",
    [
        (Filter(folder="../x"), r"--folder \.\./x: expected a folder below"),
        (Filter(folder="/etc"), "--folder /etc: expected a folder below"),
        (Filter(since="yesterday"), "--since yesterday: expected a day or a time, as 2026-05-31"),
        (Filter(until="2026-02-30"), "--until 2026-02-30: expected a day"),
        (Filter(label=["a\0b"]), "is no name of an image's folder"),
        (Filter(folder="\udce9"), "is no name of an image's folder"),
    ],
)
def test_filters_that_mean_nothing(filter, message):
    with pytest.raises(ValueError, match=message):
        filter.conditions(Path("/images"))


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf", "IVF2,PQ4x4fs", "PCAR8,HNSW8", "NSG8,Flat"])
def test_a_random_history_is_that_of_a_dictionary(place, kind, tmp_path):
    if ".db" in place and kind != "flat":
        pytest.skip("a kind of FAISS")
    random = np.random.default_rng(0)
    store, rows = VectorStore.create(place, tmp_path, MADE, 12, kind), {}
    exact = kind in ("flat", "hnsw")  # for so few, hnsw finds all
    for step in range(6):
        added = [Stamp(f"{random.integers(3)}/{HOSTILE[random.integers(10)]}{random.integers(99)}.png", step, 1)
                 for _ in range(400 if not step else 9)]  # fmt: skip
        vectors = l2_normalize(random.standard_normal((len(added), 12))).astype(np.float16).astype(np.float32)
        known = {stamp.name: (stamp, vector) for stamp, vector in zip(added, vectors)}
        store.add(known.values())
        rows |= known
        gone = random.choice(sorted(rows), 20 if step == 3 else 7, replace=False).tolist()
        store.engine.remove(gone)
        rows = {name: row for name, row in rows.items() if name not in gone}
        if step % 2:  # at other times, the index knows of neither
            store.engine.finish()
        store = VectorStore(place)
        assert sorted(store.engine.stamps()) == sorted(stamp for stamp, _ in rows.values())
        query = l2_normalize(random.standard_normal((1, 12)))
        for filter, start in ((Filter(), ""), (Filter(folder="1"), "1/")):
            cosines = {
                tmp_path / name: float(row[1] @ query[0]) for name, row in rows.items() if name.startswith(start)
            }
            (found,) = store.search(query, 999, filter=filter)[1]
            assert set(found) <= set(cosines) and len(set(found)) == len(found)
            if exact or start and ".db" not in place:  # few of all: compared one by one
                assert len(found) == len(cosines)
                np.testing.assert_allclose([cosines[path] for path in found], sorted(cosines.values())[::-1], atol=2e-3)


def test_an_empty_store_and_another_encoder(place, folder):
    with pytest.raises(FileNotFoundError, match="make one with build_index.py"):
        VectorStore(place)
    assert not Path(place.partition("#")[0]).exists()
    extractor = extractor_of(Colours())
    store = VectorStore.create(place, folder, extractor.metadata, 12)
    assert len(store) == 0 and store.paths == []
    with pytest.raises(ValueError, match="holds no image yet"):
        store.search(np.ones((1, 12)), 1)
    store.update(extractor, quiet=True)
    for other, message in ((Colours(127.0), "other weights"), (Colours(), "flip False, not True")):
        options = ExtractorOptions(flip="flip" in message, device="cpu")
        with pytest.raises(ValueError, match=message):
            VectorStore(place).update(Extractor(other, "colours", options), quiet=True)
    assert len(VectorStore(place)) == 20
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of its 1 images can be read.*the file is empty"):
        VectorStore(place).update(extractor, quiet=True)


class Interrupted(Colours):
    def native_vectors(self, pixels):
        if self.seen == 9:
            raise KeyboardInterrupt
        return super().native_vectors(pixels)


def test_an_interrupted_update_keeps_what_it_has_done(place, folder):
    with pytest.raises(KeyboardInterrupt):
        update(place, folder, Interrupted())
    query = l2_normalize(np.ones((1, 12)))
    assert len(VectorStore(place).search(query, 99)[1][0]) == 9  # of an index that is not finished
    assert update(place, folder)[1:] == ({"added": 11, "removed": 0, "images": 20}, 11)


def test_a_part_of_a_killed_process_is_taken_in(place, folder):
    store, *_ = update(place, folder, Colours())
    late = folder / "late.png"
    shutil.copy(store.paths[0], late)
    part = VectorStore.create(store.engine.parts, folder, store.metadata, 12)  # holds a table of one image
    part.engine.table.add([Stamp.of(late, folder)], store.vectors()[:1])
    shutil.move(part.engine.table_file, store.engine.parts / "part-00001.sqlite")
    assert update(place, folder)[1:] == ({"added": 0, "removed": 0, "images": 21}, 0)


def test_the_kind_can_be_changed(place, folder):
    store, *_ = update(place, folder)
    for kind in ("hnsw", "ivf", "flat"):
        store.engine.change_kind(kind)
        store, counts, encoded = update(place, folder)
        assert counts["images"] == 20 and not encoded and store.metadata["kind"] == kind
        assert store.search(store.vectors()[:3], 1)[1] == [[path] for path in store.paths[:3]]
    with pytest.raises(ValueError, match="index 'tree'"):
        check_kind(place, "tree", 20, 12)


def test_milvus_that_is_not_there(monkeypatch):
    pytest.importorskip("pymilvus")
    with pytest.raises(
        ValueError, match=r"http://127.0.0.1:1#images: cannot be opened .* is the server there\?"
    ) as info:
        VectorStore("http://user:secret@127.0.0.1:1")
    assert "secret" not in str(info.value) and "\n" not in str(info.value)
    with pytest.raises(ValueError, match="a collection is named by letters"):
        VectorStore("http://127.0.0.1:1#drop table")
    monkeypatch.setitem(__import__("sys").modules, "pymilvus", None)
    with pytest.raises(ValueError, match="needs pymilvus; pip install -r requirements-milvus.txt"):
        VectorStore("https://host:19530")
