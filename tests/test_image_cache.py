"""Image cache: cached pixels equal decoded ones in every state of the cache; broken images are replaced and named."""

import json
import os
import pickle
import shutil
from contextlib import suppress

import numpy as np
import pytest
import torch
from conftest import draw_styles, flags, flip_a_bit, interrupt_after
from PIL import Image
from processes import torchrun
from tiny.style import assert_same_weights

import train
from batch_sampler import PKBatchSampler
from common.images import cache
from common.images.blob_store import FILE
from common.images.cache import ImageCache
from common.images.transforms import Augmentation
from common.samples.invented import read_bank
from common.training.loader import make_loader
from common.training.skip_log import SkipLog
from dataset import StyleDataset, find_samples
from targets import TargetShapes


@pytest.fixture
def paths(tmp_path):
    made = []
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (40 + number, 60, 3), dtype=np.uint8)
        made.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(made[-1])
    return made


def test_kept_equals_decoded(paths, tmp_path):
    paths[2].write_bytes(b"not an image")
    kept, fresh = ImageCache(32, tmp_path / "cache", quiet=True), ImageCache(32)
    assert kept.check(paths) == fresh.check(paths) and "2.png" in kept.check(paths)[str(paths[2])]
    for path in paths[:2] + paths[3:]:
        assert min(kept[path].shape[:2]) == 32
        np.testing.assert_array_equal(kept[path], fresh[path])
    with pytest.raises(ValueError, match="2.png"):
        kept[paths[2]]


def test_jpeg_is_smaller_and_the_same_whether_kept_or_not(tmp_path):
    path = tmp_path / "a.png"
    Image.radial_gradient("L").convert("RGB").resize((90, 60)).save(path)
    kept, fresh, exact = ImageCache(32, tmp_path, format="jpeg"), ImageCache(32, format="jpeg"), ImageCache(32)
    first = kept[path]
    kept.store.close()
    for pixels in (kept[path], fresh[path]):
        np.testing.assert_array_equal(pixels, first)
    assert 0 < np.abs(first.astype(int) - exact[path]).max() < 12
    assert len(kept._value(path)) < len(exact._value(path)) / 2
    assert ImageCache(32, tmp_path).store.get(b"") is None and len(list(tmp_path.glob("*-jpeg-*"))) == 1


def test_a_changed_file_is_decoded_again(paths, tmp_path):
    images = ImageCache(32, tmp_path / "cache")
    first = images[paths[0]]
    Image.new("RGB", (60, 40), "red").save(paths[0])
    os.utime(paths[0], (1, 1))
    assert not np.array_equal(images[paths[0]], first) and images[paths[0]][0, 0].tolist() == [255, 0, 0]
    assert ImageCache(16, tmp_path / "cache")[paths[0]].shape == (16, 24, 3)


def test_small_images_are_not_enlarged(tmp_path):
    Image.new("RGB", (5, 9)).save(tmp_path / "a.png")
    assert ImageCache(32)[tmp_path / "a.png"].shape == (9, 5, 3)


def test_a_bank_is_passed_to_other_processes_by_name(tmp_path):
    bank = read_bank(1, 2, 16, tmp_path)
    assert len(pickle.dumps(bank)) < 500 and (pickle.loads(pickle.dumps(bank)) == bank).all()
    part = pickle.loads(pickle.dumps(bank[0, 1:]))  # a part is its values
    assert not isinstance(part, np.memmap) and (part == bank[0, 1:]).all()


def test_a_damaged_bank_is_drawn_again(tmp_path, capsys):
    bank = np.array(read_bank(1, 2, 16, tmp_path))
    next(tmp_path.glob("*.bin")).write_bytes(b"")
    assert (read_bank(1, 2, 16, tmp_path) == bank).all() and "damaged" in capsys.readouterr().err


def test_the_size_is_said_and_old_caches_go(paths, tmp_path, capsys):
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in ("0123456789abcdef01234567.bin", "0123456789abcdef01234567.json", "invented-1.bin"):
        (folder / name).touch()
    ImageCache(32, folder, limit_gb=2).check(paths)
    said = capsys.readouterr().out
    assert "removed 2 files of an earlier version" in said and "about 0.0263 MB of at most 2.0 GB (CACHE_GB)\n" in said
    assert (folder / "invented-1.bin").exists()
    ImageCache(32, folder, limit_gb=1e-5).check(paths)
    assert "of at most 0.01 MB (CACHE_GB); the rest is decoded at each use" in capsys.readouterr().out


def test_a_check_reads_a_few_evenly_spread(paths):
    for path in paths[3:]:
        path.write_bytes(b"")
    read = ImageCache(32)
    assert list(read.check(paths, 3)) == [str(paths[4])]  # of 0, 2 and 4
    assert list(read.check(paths)) == list(map(str, paths[3:]))


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Style data with one broken image that the check at the start does not read."""
    monkeypatch.setattr(cache, "CHECKED", 2)
    data = draw_styles(tmp_path / "broken", targets=False)
    (data / "style_1" / "item3_img.png").write_bytes(b"not an image")
    return data


def batches(data, log, folder=None, rank=0, world=1, workers=0):
    """Of an epoch, all devices' or one's."""
    samples, images = find_samples(data), ImageCache(48, folder, data=data, quiet=True)
    assert images.check(samples.images) == {}
    dataset = StyleDataset(samples, images, 32, TargetShapes(), Augmentation())
    dataset.skipped = SkipLog(log, limit=0.05, quiet=False)
    sampler = PKBatchSampler(dataset, 12, 4, rank=rank, world=world)
    return list(make_loader(dataset, sampler, torch.device("cpu"), workers))


def test_a_broken_image_is_named_once_by_all_processes_and_replaced_alike(broken, tmp_path, capfd):
    log = tmp_path / "skipped.jsonl"
    whole = batches(broken, tmp_path / "alone.jsonl")
    parts = [batches(broken, log, tmp_path / "cache", rank, 2, workers=2) for rank in range(2)]
    for batch, *halves in zip(whole, *parts, strict=True):
        assert torch.equal(batch["image"], torch.stack([half["image"] for half in halves], 1).flatten(0, 1))
    ((file, reason),) = (json.loads(line).values() for line in log.read_text().splitlines())
    assert file.endswith("style_1/item3_img.png") and "not an image" in reason
    assert capfd.readouterr().err.count("skipped: ") == 2  # of both logs
    for batch in whole:
        assert batch["style_ids"].bincount().tolist() == [4, 4, 4]  # the next of its style took its place
    with pytest.raises(ValueError, match="2 of 24 samples cannot be used, more than 5%"):
        for name in ("item5_img.png", "item6_img.png"):
            (broken / "style_2" / name).write_bytes(b"")
        batches(broken, None)


def test_resume_is_exact_in_every_state_of_the_cache(broken, tmp_path, run_arguments, monkeypatch):
    arguments = [*run_arguments, *flags(data_dir=broken, num_workers=0, dropout=0.2, save_steps=1)]
    train.main([*arguments, *flags(checkpoint_dir=tmp_path / "whole", cache_images=False)])
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        interrupt_after(patch, epoch=0)
        train.main(arguments)
    for state in ("full", "damaged", "empty", "small"):
        shutil.copytree(tmp_path / "checkpoints", tmp_path / state)
        kept = shutil.copytree(tmp_path / "cache", tmp_path / f"{state}_cache")
        (file,) = kept.glob(f"*/{FILE}")
        if state == "damaged":
            flip_a_bit(file)
        elif state == "empty":
            file.unlink()
        limit = 1e-5 if state == "small" else 0
        changed = flags(checkpoint_dir=tmp_path / state, cache_dir=kept, cache_gb=limit, resume=True)
        train.main([*arguments, *changed])
        assert_same_weights(tmp_path / "whole" / "model_epoch_2.pth", tmp_path / state / "model_epoch_2.pth")


@pytest.mark.slow
def test_two_devices_name_a_broken_image_once(tmp_path, run_arguments):
    data = draw_styles(tmp_path / "many", styles=3, images=120, targets=False)
    broken = data / "style_1" / "item77_img.png"
    broken.write_bytes(b"not an image")
    assert ImageCache(48).check(find_samples(data).images) == {}
    said = torchrun("train.py", [*run_arguments, *flags(data_dir=data, num_workers=2)])
    log = max((tmp_path / "logs").glob("*/skipped.jsonl")).read_text()
    assert said.count(f"skipped: {broken}: ") == log.count(f'"file": "{broken}"') == 1
