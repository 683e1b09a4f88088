"""Folders of unknown origin: what they say leads nowhere else, and writes nowhere else."""

import json
import os

import numpy as np
import pytest
from tiny.retrieval import MADE

from common.text.files import write_atomically
from common.training.run import Run
from common.vectors.shards import Shard, read_shard, shard_numbers, write_shard
from common.vectors.vector_store import VectorStore


def new_run(folder, resume=False):
    return Run(folder / "run", folder / "logs", {}, resume, "mine")


@pytest.mark.parametrize(
    "name", ["../../outside", "/tmp/outside", "..", ".", "", "a/b", "a\\b", "last", "a\0b", 5, None]
)
@pytest.mark.parametrize("resume", [False, True])
def test_the_name_of_a_run_is_a_folder_in_it(tmp_path, name, resume):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"name": name}))
    (tmp_path / "run" / "best.pth").write_text("weights")
    with pytest.raises(ValueError, match="run.json: name"):
        new_run(tmp_path, resume)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert (tmp_path / "run" / "best.pth").read_text() == "weights"


@pytest.mark.parametrize("text", ["[]", "{}", "", "\xff", '{"name": "a", "name": "b"}', '{"name": "a", "trackers": 3}'])
def test_a_broken_record_of_a_run_is_one_line(tmp_path, text):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="run.json"):
        new_run(tmp_path)


def test_links_in_a_run_folder_are_not_written_through(tmp_path):
    for name in ("run", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "target" / "file").write_text("precious")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "target" / "file")
    (tmp_path / "run" / "run.json").write_text('{"name": "theirs"}')
    (tmp_path / "run" / "theirs").symlink_to(tmp_path / "target")
    run = new_run(tmp_path)
    with pytest.raises(ValueError, match="theirs: is a link"):
        run.start_logging(0)
    run.lock.close()
    assert [path.read_text() for path in (tmp_path / "target").iterdir()] == ["precious"]
    assert (tmp_path / "run" / "run.json").is_file()


def test_a_link_that_waits_under_the_name_of_an_unfinished_file(tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("precious")
    monkeypatch.setattr("os.getpid", lambda: 7)
    (tmp_path / ".a.json.7.partial").symlink_to(tmp_path / "precious")
    with write_atomically(tmp_path / "a.json") as file:
        file.write(b"{}")
    assert (tmp_path / "precious").read_text() == "precious" and (tmp_path / "a.json").read_bytes() == b"{}"
    (tmp_path / "b.json").symlink_to(tmp_path / "precious")
    with write_atomically(tmp_path / "b.json") as file:
        file.write(b"{}")
    assert (tmp_path / "precious").read_text() == "precious" and not (tmp_path / "b.json").is_symlink()


@pytest.mark.parametrize(
    "changes, words",
    [
        *(({name: ...}, f"{name} is missing") for name in (*MADE, "image_dir")),
        ({"pooling": "x"}, "pooling: expected"),
        ({"tiles": 10**9}, "tiles: expected"),
        ({"tiles": 0}, "tiles: expected"),
        ({"image_size": 10**6}, "image_size: expected"),
        ({"width": 0}, "width: expected"),
        ({"dtype": "object"}, "dtype: expected"),
    ],
)
def test_the_metadata_of_an_index(tmp_path, changes, words):
    VectorStore.create(tmp_path, tmp_path, MADE, 64)
    content = json.loads((tmp_path / "metadata.json").read_text()) | changes
    content = {name: value for name, value in content.items() if value is not ...}
    (tmp_path / "metadata.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"metadata.json: {words}"):
        VectorStore(tmp_path)


def test_shards_that_are_none(tmp_path):
    write_shard(tmp_path, 3, Shard(np.ones((1, 2), np.float16), [["a.png", "0"]], {}))
    for name in ("shard-x.json", "shard--0001.json", "shard-99999999999999999999.json"):
        (tmp_path / name).write_text("{}")
    assert shard_numbers(tmp_path) == [3]
    (tmp_path / "shard-00003.npy").unlink()
    os.mkfifo(tmp_path / "shard-00003.npy")  # which nobody writes to
    with pytest.raises(ValueError, match="shard-00003.npy: damaged"):
        read_shard(tmp_path, 3)
