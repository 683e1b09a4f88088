"""Vector stores of several processes, and of processes that are killed."""

import os
import shutil
import signal
import traceback

import numpy as np
import pytest
import torch.distributed
from processes import torchrun
from tiny.colours import Colours, draw_colours, expected, extractor_of, update
from tiny.retrieval import VIT

from common.vectors import faiss_folder, image_table, shares
from common.vectors.shards import l2_normalize
from common.vectors.shares import encode_share
from common.vectors.vector_store import VectorStore
from retrieval import build_index


@pytest.fixture
def folder(tmp_path):
    return draw_colours(tmp_path / "images")


def start_fork(function):
    """-> process id; status_of it is 0 where the function returned"""
    if child := os.fork():
        return child
    status = 1
    try:
        function()
        status = 0
    finally:
        traceback.print_exc()
        os._exit(status)


def status_of(child):
    return os.waitpid(child, 0)[1]


def encode_together(rank, meeting, place, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    encoder = Colours()
    if rank:
        skipped = encode_share(None, extractor_of(encoder), quiet=True)
        assert encoder.seen == 11 and "broken.png" in "".join(skipped)
    else:
        counts = update(place, folder, encoder)[1:]
        assert counts == ({"added": 20, "removed": 0, "images": 20}, 9)


def test_two_processes_make_what_one_makes(folder, tmp_path):
    (folder / "a" / "broken.png").write_bytes(b"no image")
    one, *_ = update(tmp_path / "one", folder)
    second = start_fork(lambda: encode_together(1, tmp_path / "meeting", tmp_path / "two", folder))
    first = start_fork(lambda: encode_together(0, tmp_path / "meeting", tmp_path / "two", folder))
    assert status_of(first) == status_of(second) == 0
    two = VectorStore(tmp_path / "two")
    assert two.engine.stamps() == one.engine.stamps() and not list(two.engine.parts.glob("*"))  # in the same order
    np.testing.assert_array_equal(two.vectors(), one.vectors())
    assert two.engine.index_file.read_bytes() == one.engine.index_file.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["build_index", "extract_features"])
def test_torchrun_writes_to_either(script, folder, tmp_path):
    pytest.importorskip("milvus_lite", reason="requirements-milvus.txt is not installed")
    made = ["--image_dir", str(folder), "--vit_checkpoint", VIT, "--image_size", "32", "--device", "cpu"]
    one, two = str(tmp_path / "one"), str(tmp_path / "two.db#photos")
    build_index.main(["--index_dir", one, *made])
    flag = "--index_dir" if script == "build_index" else "--output"
    torchrun(f"retrieval/{script}.py", [flag, two, *made])
    one, two = VectorStore(one), VectorStore(two)
    assert two.paths == one.paths and len(two) == 20
    np.testing.assert_allclose(two.vectors(), one.vectors(), atol=1e-3)


def test_a_kill_between_any_two_writes_loses_nothing(tmp_path, folder):
    """Every write is at once followed by SIGKILL, one after the other, while images come, change and go."""
    place, killed = str(tmp_path / "index"), 0
    query = l2_normalize(np.random.default_rng(1).standard_normal((1, 12)))
    update(place, folder, kind="hnsw")
    draw_colours(folder, numbers=range(100, 103), subfolders=("a",))
    sorted((folder / "b").iterdir())[0].unlink()
    shutil.copytree(place, tmp_path / "before")
    for write in range(99):
        if not status_of(start_fork(lambda write=write: killed_after(write, place, folder))):
            break
        store, killed = VectorStore(place), killed + 1
        assert store.search(query, 99)[1][0] == expected(store, query[0], 99)
        store, *_ = update(place, folder)
        assert store.paths == sorted(folder.rglob("*.png"))
        assert store.search(query, 99)[1][0] == expected(store, query[0], 99)
        shutil.rmtree(place)
        shutil.copytree(tmp_path / "before", place)
    assert killed >= 5


def killed_after(write, place, folder):
    left, shares.SAVED_ROWS = [write], 2

    def counted(function):
        def call(*arguments, **options):
            result = function(*arguments, **options)
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for owner, name in ((image_table.ImageTable, "add"), (image_table.ImageTable, "remove"),
                        (faiss_folder, "write_index"), (faiss_folder, "write_json")):  # fmt: skip
        setattr(owner, name, counted(getattr(owner, name)))
    update(place, folder)
