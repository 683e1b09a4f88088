"""The store below the image cache: kills, several processes, damage, limits, folders and disks that take nothing."""

import os
import pickle
import shutil
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import wait_until

from common.images import blob_store
from common.images.blob_store import FILE, BlobStore, make_room, stored_bytes

LARGE = 10**9  # bytes


def key(number: int) -> bytes:
    return f"{number:016}".encode()


def value(number: int) -> bytes:
    return np.random.default_rng(number).bytes(3000 + number % 5000)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(blob_store, "BATCH", 30_000)


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "cache" / "a", LARGE)


def in_child(function) -> int:
    """Run it in a forked process, which ends as a data loader's does -> its id."""
    if not (child := os.fork()):
        try:
            function()
            blob_store._close_all()
        finally:
            os._exit(0)
    return child


def wrong_or_missing(store: BlobStore, count: int) -> tuple[int, int]:
    found = [store.get(key(number)) for number in range(count)]
    wrong = sum(content not in (None, value(number)) for number, content in enumerate(found))
    return wrong, found.count(None)


def test_a_value_is_kept_for_every_other_process(store):
    for number in range(40):
        store.put(key(number), value(number))
    assert wrong_or_missing(store, 41) == (0, 1)
    copy = pickle.loads(pickle.dumps(store))
    store.close()
    assert wrong_or_missing(copy, 41) == (0, 1) and len(pickle.dumps(store)) < 500
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda number: store.get(key(number)) == value(number), range(40)))


def test_two_processes_write_and_read_at_once(store):
    def write(start):
        for number in range(start, 120, 2):
            store.put(key(number), value(number))
            assert store.get(key(number)) == value(number)

    store.put(key(120), value(120))  # a connection and a waiting value, which children must not share
    for child in [in_child(lambda start=start: write(start)) for start in (0, 1)]:
        assert os.waitpid(child, 0)[1] == 0
    assert wrong_or_missing(store, 121) == (0, 0)


def test_a_killed_writer_leaves_what_it_has_written(store, tmp_path):
    written = tmp_path / "written"  # how many values

    def write_for_ever():
        for number in range(10**6):
            store.put(key(number), value(number))
            if number % 10 == 9:
                store.close()
                written.write_text(str(number + 1))

    for trial in range(5):
        written.write_text("0")
        child = in_child(write_for_ever)
        wait_until(lambda trial=trial: int(written.read_text() or 0) >= 20 + 7 * trial)
        os.kill(child, signal.SIGKILL)  # in a transaction, most likely
        os.waitpid(child, 0)
        assert wrong_or_missing(store, int(written.read_text() or 0)) == (0, 0)
    store.put(key(10**7), b"goes on")
    store.close()
    assert store.get(key(10**7)) == b"goes on"


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("damage", ["flipped", "zeroed", "cut", "emptied"])
def test_damage_costs_values_and_no_more(store, seed, damage, capsys):
    for number in range(30):
        store.put(key(number), value(number))
    store.close()
    random, path = np.random.default_rng(seed), store.folder / FILE
    content = bytearray(path.read_bytes())
    start = int(random.integers(100 if seed % 2 else len(content)))  # the header, or anywhere
    if damage == "flipped":
        content[start] ^= 1 << int(random.integers(8))
    elif damage == "zeroed":
        content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    path.write_bytes(content[: {"cut": start, "emptied": 0}.get(damage, len(content))])
    assert wrong_or_missing(store, 30)[0] == 0
    for number in range(30):
        store.put(key(number), value(number))
    store.close()
    assert wrong_or_missing(store, 30) == (0, 0) or "damaged" not in capsys.readouterr().err
    assert wrong_or_missing(store, 30)[0] == 0


def test_a_value_of_another_key_is_missing(store):
    store.put(key(1), value(1))
    store.close()
    with sqlite3.connect(store.folder / FILE) as connection:
        connection.execute("UPDATE blobs SET key = ?", (key(2),))
    connection.close()
    assert store.get(key(2)) is None


def test_above_the_limit_nothing_more_is_kept(tmp_path):
    store = BlobStore(tmp_path / "a", 900_000)
    for number in range(300):
        store.put(key(number), value(number))
    store.close()
    assert store.is_full and stored_bytes(tmp_path) <= 900_000
    wrong, missing = wrong_or_missing(store, 300)
    assert wrong == 0 and 0 < missing < 250


def test_stores_of_other_data_make_room_unless_they_are_open(tmp_path):
    stores = [BlobStore(tmp_path / name, LARGE) for name in "abcd"]
    for store in stores:
        for number in range(30):
            store.put(key(number), value(number))
        store.close()
    for age, store in enumerate(stores):
        os.utime(store.folder, (age, age))
    child = in_child(lambda: (stores[2].get(key(0)), (tmp_path / "ready").touch(), time.sleep(30)))
    wait_until((tmp_path / "ready").exists)
    assert stores[1].get(key(0))  # open in this process
    assert make_room(tmp_path, LARGE, tmp_path / "d") == []
    assert make_room(tmp_path, 0, tmp_path / "d") == ["a"]
    assert {folder.name for folder in tmp_path.iterdir() if folder.is_dir()} == {"b", "c", "d"}
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert make_room(tmp_path, 0, tmp_path / "d") == ["c"] and stores[1].get(key(0)) == value(0)


def test_what_cannot_be_written_is_said_once_and_not_kept(tmp_path, capsys):
    (tmp_path / "file").touch()
    store = BlobStore(tmp_path / "file" / "cache" / "a", LARGE)
    for number in range(30):
        assert store.get(key(number)) is None
        store.put(key(number), value(number))
    store.close()
    assert capsys.readouterr().err.count("nothing more is cached") == 1


def test_a_full_disk_ends_the_keeping_but_not_the_reading(store, capsys):
    store.put(key(0), value(0))
    store.close()
    store.get(key(0))
    store._connection.execute("PRAGMA max_page_count = 4")  # SQLite takes both for the same
    for number in range(1, 99):
        store.put(key(number), value(number))
    store.close()
    assert store.get(key(0)) == value(0) and store.is_full and wrong_or_missing(store, 99)[0] == 0
    assert capsys.readouterr().err.count("nothing more is cached (database or disk is full)") == 1


def test_a_folder_that_is_removed_meanwhile_is_made_again(store):
    store.put(key(0), value(0))
    store.close()
    store.get(key(0))
    shutil.rmtree(store.folder.parent)
    for number in range(30):
        store.put(key(number), value(number))
    store.close()
    assert wrong_or_missing(store, 30)[0] == 0
    store.put(key(1), value(1))
    store.close()
    assert store.get(key(1)) == value(1)
