"""The index inside an image folder: moved with it, apart for each model, made again where it is damaged."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny.colours import Colours, draw_colours, extractor_of

from common.vectors.vector_store import CACHE, index_folder


@pytest.fixture
def folder(tmp_path):
    return draw_colours(tmp_path / "images")


def open_index(folder, encoder=None, **more):
    """-> the store, the number of images that were encoded for it"""
    encoder = encoder or Colours()
    extractor = extractor_of(encoder)
    encoder.seen = -1 if not list(folder.rglob("images.sqlite")) and not more else 0  # a blank image, for the width
    return index_folder(folder, extractor, quiet=True, **more), encoder.seen


def test_vectors_are_those_of_the_encoder(folder):
    store, encoded = open_index(folder)
    assert encoded == 20
    np.testing.assert_array_equal(store.vectors(), extractor_of(Colours()).encode(store.paths))  # float32
    assert open_index(folder)[1] == 0


def test_a_moved_folder_keeps_its_vectors(folder, tmp_path):
    names = [path.relative_to(folder) for path in open_index(folder)[0].paths]
    moved = shutil.move(folder, tmp_path / "elsewhere")
    store, encoded = open_index(moved)
    assert encoded == 0
    assert [path.relative_to(moved) for path in store.paths] == names
    assert all(path.is_file() for path in store.paths)


def test_models_never_share_vectors(folder):
    model, other = Colours(), Colours(128.001)
    other.register_buffer("scale", torch.ones(1), persistent=False)
    buffer = extractor_of(other).metadata["key"]
    other.scale[0] += 1e-6  # a buffer counts too
    assert len({extractor_of(model).metadata["key"], buffer, extractor_of(other).metadata["key"]}) == 3
    assert open_index(folder, model)[1] == 20
    assert open_index(folder, other)[1] == 21  # and a blank one
    assert open_index(folder)[1] == 0
    assert len(list((folder / CACHE).iterdir())) == 2


@pytest.mark.parametrize("damage", [lambda data: data[:-40_000], lambda data: b"", lambda data: data[:999] * 9])
def test_damaged_files_are_replaced(folder, damage, capsys):
    first, _ = open_index(folder)
    vectors = first.vectors()
    for file in (first.engine.table_file, first.engine.index_file):
        file.write_bytes(damage(file.read_bytes()))
    again, encoded = open_index(folder)
    assert encoded == 20 and "images.sqlite: damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(again.vectors(), vectors)


def test_what_an_earlier_version_left_is_replaced(folder):
    store, _ = open_index(folder)
    store.engine.table_file.unlink()
    (store.engine.folder / "shard-00000.npy").write_bytes(b"0")
    assert len(open_index(folder)[0]) == 20 and not (store.engine.folder / "shard-00000.npy").exists()


def test_vectors_can_be_kept_elsewhere(folder, tmp_path):
    assert open_index(folder, cache_dir=tmp_path / "cache")[1] == 21
    assert open_index(folder, cache_dir=tmp_path / "cache")[1] == 0
    assert not (folder / CACHE).exists()


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        open_index(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no image below it"):
        open_index(tmp_path)
    (tmp_path / "one.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of its 1 images can be read.*the file is empty"):
        open_index(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="NaN"):
        open_index(tmp_path, Colours(torch.nan))
