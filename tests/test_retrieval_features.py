"""Extraction: the order of files, what is broken, resuming, sharing, tiles, and the two forms of features."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, flags
from PIL import Image
from processes import SINGLE_THREAD
from torch.utils.data import DataLoader

from common.images.io import list_images, open_image
from common.images.tiling import Tiling
from common.vectors.extractor import ExtractorOptions, ImageFiles, collate
from common.vectors.feature_files import read_features
from common.vectors.feature_set import FeatureSet
from retrieval import extract_features
from retrieval.encoders import open_encoder, open_extractor

VIT = "test_vit:random"


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for number in range(23):
        path = tmp_path / "images" / f"class {number % 3}" / f"图 {number:02}.{'png' if number % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 30 + number, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def extract(folder, output, *more):
    made = flags(image_dir=folder, output=output, vit_checkpoint=VIT, image_size=32, batch_size=4, device="cpu")
    return extract_features.main([*made, *more])


def one_at_a_time(paths):
    encoder = open_encoder(VIT, image_size=32)
    with torch.no_grad():
        return np.stack([encoder(encoder.preprocess(open_image(path))[None])[0].numpy() for path in paths])


def test_one_file(folder, tmp_path, capsys):
    extract(folder, tmp_path / "f.npz")
    said = capsys.readouterr().out.splitlines()
    assert said == ["找到 23 张图像", f"特征已保存到 {tmp_path / 'f.npz'}", "特征形状: (23, 64)"]
    with np.load(tmp_path / "f.npz") as plain:  # by anybody
        assert plain["image_paths"].tolist() == [str(path) for path in list_images(folder)]
        assert plain["features"].dtype == np.float32
        np.testing.assert_allclose(plain["features"], one_at_a_time(list_images(folder)), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("f.")] == ["f.npz"]
    found = read_features(tmp_path / "f.npz")
    assert (
        found.metadata["pooling"] == "native"
        and found.metadata["image_dir"] == str(folder)
        and len(set(found.digests)) == 23
    )


@pytest.mark.parametrize("shard_size", [5, 23, 100])
def test_a_folder_of_shards(folder, tmp_path, shard_size):
    extract(folder, tmp_path / "f.npz")
    extract(folder, tmp_path / "shards", "--shard_size", str(shard_size))
    one, many = read_features(tmp_path / "f.npz"), read_features(tmp_path / "shards")
    assert many.paths == one.paths and many.digests == one.digests and len(many.parts) == -(-23 // shard_size)
    assert isinstance(many.parts[0], np.memmap) and many.parts[0].dtype == np.float16
    np.testing.assert_allclose(many.all(), one.all(), atol=5e-4)
    np.testing.assert_array_equal(np.concatenate(list(many.blocks(7))), many.all())


def test_processes_share_the_shards(folder, tmp_path):
    extract(folder, tmp_path / "alone", "--shard_size", "4")
    for rank in (2, 0, 1):  # in any order, together or not
        result = extract(folder, tmp_path / "shared", "--shard_size", "4", "--rank", str(rank), "--world_size", "3")
        assert (result is None) == (rank != 1)
    alone, shared = read_features(tmp_path / "alone"), read_features(tmp_path / "shared")
    assert shared.paths == alone.paths and shared.metadata == alone.metadata
    np.testing.assert_array_equal(shared.all(), alone.all())


def test_more_processes_than_shards(folder, tmp_path):
    """The last ones have nothing to do, and leave nothing behind when they come late."""
    assert extract(folder, tmp_path / "f.npz", "--rank", "0", "--world_size", "2") is not None
    assert extract(folder, tmp_path / "f.npz", "--rank", "1", "--world_size", "2") is None
    assert not (tmp_path / "f.npz.parts").exists()


@pytest.mark.slow
def test_two_processes_make_one_file(folder, tmp_path):
    words = flags(image_dir=folder, output=tmp_path / "f.npz", vit_checkpoint=VIT, image_size=32, shard_size=3)
    command = [sys.executable, str(ROOT / "retrieval/extract_features.py"), *words, "--device", "cpu"]
    environment = {**SINGLE_THREAD, "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [one.communicate()[0] for one in running]
    assert [one.returncode for one in running] == [0, 0] and "".join(said).count("特征形状: (23, 64)") == 1
    assert read_features(tmp_path / "f.npz").paths == [str(path) for path in list_images(folder)]
    assert not (tmp_path / "f.npz.parts").exists()


def test_a_killed_run_goes_on(folder, tmp_path):
    """After the vectors of the third shard, before the list of its images."""
    extract(folder, tmp_path / "whole", "--shard_size", "2")
    code = (
        "import os, signal, sys; sys.path.insert(0, '.')\n"
        "from common.vectors import shards\n"
        "from retrieval import extract_features\n"
        "write = shards.write_jsonl\n"
        "def killed(path, rows):\n"
        "    if '00002' in path.name: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(path, rows)\n"
        "shards.write_jsonl = killed\n"
        "extract_features.main(sys.argv[1:])\n"
    )
    words = flags(
        image_dir=folder, output=tmp_path / "f", vit_checkpoint=VIT, image_size=32, device="cpu", shard_size=2
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, env=SINGLE_THREAD, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "f").glob("shard-*.json")}
    assert len(there) == 2 and (tmp_path / "f" / "shard-00002.npy").is_file()
    with pytest.raises(ValueError, match="of 12 shards; run extract_features.py again"):
        read_features(tmp_path / "f")
    extract(folder, tmp_path / "f", "--shard_size", "2")
    assert all(path.stat().st_mtime_ns == before for path, before in there.items())  # not made again
    np.testing.assert_allclose(read_features(tmp_path / "f").all(), read_features(tmp_path / "whole").all(), atol=1e-3)


def test_going_on_with_something_else_is_refused(folder, tmp_path):
    extract(folder, tmp_path / "f")
    for more, what in (
        (["--pooling", "cls"], "pooling native, not cls"),
        (["--flip"], "flip False, not True"),
        (["--shard_size", "5"], "shard_size 8192, not 5"),
    ):
        with pytest.raises(ValueError, match=f"f: holds other vectors .{what}.; delete it"):
            extract(folder, tmp_path / "f", *more)
    list_images(folder)[4].rename(folder / "another.png")
    with pytest.raises(ValueError, match="other images"):
        extract(folder, tmp_path / "f")


def test_broken_images_are_named_and_the_order_stays(folder, tmp_path, capsys):
    good = list_images(folder)
    (folder / "class 0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (folder / "class 2" / "图 05a.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for output in ("f.npz", "shards"):
        found = extract(folder, tmp_path / output, "--shard_size", "7")
        assert found.paths == [str(path) for path in good]
        said = capsys.readouterr().err
        assert "broken.png: " in said and "git lfs pull" in said
    np.testing.assert_allclose(read_features(tmp_path / "f.npz").all(), one_at_a_time(good), atol=1e-5)
    for file in (tmp_path / "f.skipped.jsonl", tmp_path / "shards" / "skipped.jsonl"):
        assert len([json.loads(line) for line in file.read_text().splitlines()]) == 2


def test_nothing_but_broken_images(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of its images could be read"):
        extract(tmp_path / "images", tmp_path / "f.npz")


def test_a_list_gives_the_order(folder, tmp_path):
    names = [str(path.relative_to(folder)) for path in list_images(folder)][::-2]
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n\n")
    found = extract(folder, tmp_path / "f.npz", "--image_list", str(tmp_path / "list.txt"))
    assert found.paths == [str(folder / name) for name in names]


def test_tiles_are_averaged(folder, tmp_path):
    path = tmp_path / "wide.png"
    Image.effect_noise((400, 200), 90).convert("RGB").save(path)
    extractor = open_extractor(VIT, ExtractorOptions(tiles=4, image_size=32, device="cpu"))
    encoder = extractor.encoder
    tiles = Tiling(32, tokens=0, max_tiles=4).cut(open_image(path), 4)
    assert len(tiles) == 3  # two and the thumbnail
    with torch.no_grad():
        mean = encoder(torch.stack([encoder.preprocess(tile) for tile in tiles])).mean(0)
    np.testing.assert_allclose(extractor.encode([path])[0], (mean / mean.norm()).numpy(), atol=1e-5)
    images = list_images(folder)[:5]
    mixed = extractor.encode([images[0], path, *images[1:]])  # images of one tile and of several in a batch
    np.testing.assert_allclose(mixed[1], extractor.encode([path])[0], atol=1e-5)
    np.testing.assert_allclose(mixed[[0, *range(2, 6)]], extractor.encode(images), atol=1e-5)


def test_loader_processes_change_nothing(folder):
    (folder / "class 1" / "broken.png").write_bytes(b"no image")
    encoder = open_encoder(VIT, image_size=32)
    paths = list_images(folder)
    files = ImageFiles(paths[3:], encoder.preprocess, 32)
    for alone, shared in zip(
        *(DataLoader(files, 4, num_workers=count, collate_fn=collate) for count in (0, 2)), strict=True
    ):
        assert alone[0] == shared[0] and torch.equal(alone[1], shared[1])
    (record,), pixels = collate([ImageFiles([folder / "class 1" / "broken.png"], encoder.preprocess, 32)[0]])
    assert record.problem and pixels.shape == (0, 3, 32, 32)


def test_equal_files_have_equal_digests(folder):
    first, second = list_images(folder)[:2]
    shutil.copy(first, folder / "copy.jpg")
    files = ImageFiles([first, second, folder / "copy.jpg"], open_encoder(VIT).preprocess, 32)
    digests = [files[index][0].digest for index in range(3)]
    assert digests[0] == digests[2] != digests[1] and len(digests[0]) == 16


def test_features_of_another_program(tmp_path):
    np.savez(tmp_path / "f.npz", features=np.ones((2, 3)), image_paths=["a/b.jpg", "c/d.jpg"])
    found = read_features(tmp_path / "f.npz")
    assert isinstance(found, FeatureSet) and found.paths == ["a/b.jpg", "c/d.jpg"] and found.digests == ["", ""]
    np.savez(tmp_path / "g.npz", vectors=np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"g.npz: expected features \(N, D\) and image_paths \(N,\), found vectors"):
        read_features(tmp_path / "g.npz")
    (tmp_path / "h.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="h.npz: cannot be read as .npz"):
        read_features(tmp_path / "h.npz")
    with pytest.raises(FileNotFoundError, match="nowhere.npz: no such file or folder of features"):
        read_features(tmp_path / "nowhere.npz")


@pytest.mark.parametrize(
    "more, message",
    [
        (["--rank", "2", "--world_size", "2"], "--rank 2: expected 0 to 1"),
        (["--shard_size", "0"], "--shard_size"),
        (["--tiles", "0"], "--tiles"),
        (["--batch_size", "0"], "--batch_size"),
        (["--image_list", "none.txt"], "none.txt: no such file"),
        (["--pooling", "mean", "--layer", "-99"], "--layer -99"),
    ],
)
def test_mistakes(folder, tmp_path, more, message):
    with pytest.raises((ValueError, OSError), match=message):
        extract(folder, tmp_path / "f.npz", *more)
