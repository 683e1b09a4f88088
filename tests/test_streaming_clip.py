"""CLIP on streamed shards: equal weights from a disk, from a server, after a kill and on two devices."""

import json
from pathlib import Path

import pytest
import torch
from conftest import flags
from processes import kill_after_a_step, start_script, steps_in, torchrun
from safetensors.torch import load_file
from shard_server import Faults, picture, serve, write_shards, write_tar
from tiny.clip import clip_flags

from clip import train
from clip.training_data import PairDecoder
from common.images.transforms import Augmentation, SampleKey
from common.streaming import shard_reader
from common.training.trainer import Trainer


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), shards=4, samples=12)  # 54 pairs


@pytest.fixture
def arguments(tmp_path, tiny_clip, blank_curves):
    """Flags of a run but for its data: 6 steps an epoch."""
    return [*clip_flags("", tiny_clip, tmp_path)[2:], *flags(batch_size=8, num_epochs=2, stream_buffer=128)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model-checkpoint" / "last" / "model.safetensors")


def assert_equal(one, other):
    assert len(one) > 20 and [name for name in one if not torch.equal(one[name], other[name])] == []


def interrupt_in_step(patch, number):
    step = Trainer._step

    def interrupt(trainer, batches):
        if trainer.progress.step == number:
            raise KeyboardInterrupt
        return step(trainer, batches)

    patch.setattr(Trainer, "_step", interrupt)


def test_streamed_from_a_server_and_resumed_from_a_disk(shards, arguments, tmp_path, monkeypatch, capsys):
    local = ["--data_dir", str(shards), "--stream", *arguments]
    train.main(local)
    shown = capsys.readouterr().out
    assert "54 pairs to train on in 4 shards" in shown and "no validation (VAL_DATA names its data)" in shown
    whole = weights(tmp_path)
    with serve(shards, faults := Faults()) as url, monkeypatch.context() as patch:
        faults.unavailable["00002.tar"] = 2
        patch.setattr(shard_reader, "PAUSE", 0.001)
        interrupt_in_step(patch, 9)  # in the middle of the second epoch
        remote = ["--data_dir", f"{url}/{{00000..00003}}.tar", *arguments]
        with pytest.raises(KeyboardInterrupt):
            train.main(remote)
    results = train.main([*local, "--resume", "--num_workers", "0"])
    assert results["steps"] == 12
    assert_equal(whole, weights(tmp_path))
    write_tar(shards / "00004.tar", {"0.jpg": picture(0), "0.txt": b"one more"})
    (shards / "00004_stats.json").write_text('{"successes": 1}')
    try:
        with pytest.raises(ValueError, match='pairs was "54 in 4 shards.*now "55 in 5 shards'):
            train.main([*local, "--resume"])
    finally:
        (shards / "00004.tar").unlink()


def test_broken_samples_and_shards_are_named(arguments, tmp_path, capsys):
    folder = write_shards(tmp_path / "shards", shards=4, samples=12)
    content = (folder / "00001.tar").read_bytes()
    jpeg = picture(1003)
    (folder / "00001.tar").write_bytes(content.replace(jpeg, b"no picture" + jpeg[10:]))
    content = (folder / "00002.tar").read_bytes()
    (folder / "00002.tar").write_bytes(content[: len(content) // 2])
    validation = write_shards(tmp_path / "val", shards=1, samples=10)
    options = ["--max_skipped", "0.3", "--num_epochs", "1"]
    data = ["--data_dir", str(folder), "--stream", "--val_data", str(validation)]
    results = train.main([*data, *arguments, *options])
    assert results["steps"] == 6 and results["retrieval"]
    assert "10 images to validate" in capsys.readouterr().out
    logs = next((tmp_path / "logs").iterdir())
    (sample,), (shard,) = (
        [json.loads(line) for line in (logs / f"{name}.jsonl").read_text().splitlines()]
        for name in ("skipped", "skipped_shards")
    )
    assert sample["file"] == f"{folder}/00001.tar/000010003" and "000010003.jpg: " in sample["reason"]
    assert shard["file"] == f"{folder}/00002.tar" and "of its 14 samples are used" in shard["reason"]
    (folder / "00000.tar").write_bytes(b"")
    with pytest.raises(ValueError, match="2 of 4 shards cannot be used, more than 30%"):
        train.main([*data, *arguments, *options])


def test_a_bad_step_names_the_samples_of_its_batch(shards, arguments, second_step_is_bad, capsys):
    results = train.main(["--data_dir", str(shards), "--stream", *arguments, "--num_epochs", "1"])
    shown = capsys.readouterr()
    assert results["skipped_steps"] == 1 and shown.err.count(".tar, sample ") == 8
    assert "model_metrics" not in shown.out and "evaluate.py" not in shown.out  # there is no validation


def test_local_pairs_may_have_validation_data_of_their_own(clip_arguments, tmp_path, shards, capsys):
    with serve(shards, Faults()) as url:
        for _ in range(2):  # the second finds the copy of the first
            train.main([*clip_arguments, "--num_epochs", "1", "--val_data", f"{url}/0000{{0,1}}.tar"])
            shown = capsys.readouterr().out
            assert "40 images to train on, 25 to validate" in shown
            (copy,) = (tmp_path / "cache").glob("validation-*/00000.tar")
            assert f"--data_dir {copy.parent}\n" in shown  # what evaluate.py is to read
    assert not list(tmp_path.rglob("*.partial"))


def test_mistakes(arguments, tmp_path):
    for options, words in (
        (["--data_dir", "https://host/{0..3.tar"], "braces do not match"),
        (["--data_dir", str(tmp_path), "--stream"], "no shards there"),
        (["--data_dir", "s3://bucket/{0..3}.tar"], "s3fs"),
    ):
        with pytest.raises((ValueError, OSError), match=words):
            train.main([*options, *arguments])


def test_texts_and_labels_of_a_sample():
    """Captions in JSON alone, metadata of characters, several captions, other suffixes of images."""
    from tiny.clip import PERSONA, TINY_CLIP

    from clip.model import CLIPModel

    decode = PairDecoder(CLIPModel(config=dict(TINY_CLIP)), Augmentation(1, 0), ["character+appearance"])

    def read(number=0, **members):
        return decode({"__key__": "a/1", "__url__": "http://h/0.tar", **members}, SampleKey(0, number))

    image = picture(5, kind="PNG")
    persona = read(png=image, json=json.dumps(PERSONA).encode())
    assert persona["image"].shape == (3, 32, 32) and persona["group_ids"] >= 0
    one = read(jpeg=picture(5), json=b'{"caption": "red"}')
    assert one["group_ids"] == -1 and one["text_ids"] == read(png=image, txt=b"red")["text_ids"]
    several = {int(read(index, webp=image, txt=b"red\nblue")["text_ids"]) for index in range(20)}
    assert len(several) == 2 and int(one["text_ids"]) in several
    for members, words in (
        ({"txt": b"red"}, "no image in this sample"),
        ({"jpg": image}, "no text"),
        ({"jpg": b"junk", "txt": b"red"}, "http://h/0.tar/a/1.jpg: not an image"),
        ({"jpg": image, "json": b"[]"}, "not a JSON object"),
        ({"jpg": image, "json": b'{"caption": 3}'}, "caption"),
    ):
        with pytest.raises(ValueError, match=words):
            read(**members)


@pytest.mark.slow
def test_killed_and_resumed_on_one_and_on_two_devices(shards, arguments, tmp_path):
    """SIGKILL of the client of a slow server. Two processes sum gradients in another order, so they differ slightly."""
    with serve(shards, Faults(seconds_per_block=0.01)) as url:
        data = ["--data_dir", f"{url}/{{00000..00003}}.tar", *arguments, "--num_epochs", "4"]
        train.main(["--data_dir", str(shards), "--stream", *data[2:]])
        whole = weights(tmp_path)
        written = steps_in(tmp_path / "logs", tmp_path / "model-checkpoint" / "last")
        assert kill_after_a_step("clip/train.py", data, written, steps=8)
        end = start_script("clip/train.py", [*data, "--resume", "--num_workers", "2"])
        assert end.wait() == 0, end.stderr.read()
        assert_equal(whole, weights(tmp_path))
        assert kill_after_a_step("clip/train.py", data, written, steps=8)
        torchrun("clip/train.py", [*data, "--resume"])
        for name, value in weights(tmp_path).items():
            torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=1e-4, msg=name)
