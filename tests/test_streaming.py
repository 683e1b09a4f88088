"""Order and resuming of streamed samples: equal batches on any number of devices and loader processes."""

import json
from collections import Counter

import numpy as np
import pytest
from shard_server import Faults, serve, write_shards
from torch.utils.data import DataLoader

from common.images.transforms import SampleKey
from common.streaming import shard_reader
from common.streaming.order import StreamOrder
from common.streaming.shard_stream import ShardSamples, ShardStream
from common.streaming.urls import expand_urls
from common.training.skip_log import SkipLog

COUNTS = (20, 21, 22, 23, 24, 25)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(shard_reader, "PAUSE", 0.001)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


def decode(sample, key):
    """The text of a sample; one named 'broken' cannot be used."""
    text = sample["txt"].decode()
    if "broken" in text:
        raise ValueError("is broken")
    return text


def batches(urls, order, world=1, workers=0, epoch=0, start=0, epoch_samples=0, folder=None, limit=0.2):
    """Global batches of an epoch: those of all ranks joined -> lists of texts."""
    logs = [folder and folder / name for name in ("skipped.jsonl", "shards.jsonl")]
    parts = []
    for rank in range(world):
        stream = ShardStream(order, epoch_samples, rank, world)
        stream.set_position(epoch, start)
        samples = ShardSamples(urls, order, decode, *(SkipLog(path, limit) for path in logs))
        parts.append(list(DataLoader(samples, batch_sampler=stream, num_workers=workers, collate_fn=list)))
        assert len(parts[0]) == len(stream)
    return [sum(batch, []) for batch in zip(*parts)]


def texts_of(order, epoch=0):
    """What the order says that an epoch is."""
    first = epoch * order.batches * order.batch_size
    origins = [order.origin(first + number) for number in range(order.batches * order.batch_size)]
    texts = [f"picture {shard * 1000 + index}" for shard, index in origins]
    return [texts[start : start + order.batch_size] for start in range(0, len(texts), order.batch_size)]


@pytest.mark.parametrize(
    "counts, batch_size, lanes, buffer",
    [
        (COUNTS, 8, 8, 64),
        (COUNTS, 6, 8, 10_000),
        ((7,), 4, 8, 16),
        ((0, 3, 0, 0, 9, 1, 0), 5, 1, 8),
        (tuple(range(1, 60)), 16, 4, 200),
        ((1000, 1, 1, 1000), 30, 9, 333),
    ],
)
def test_a_pass_has_every_sample_once_but_the_last_part_of_a_batch(counts, batch_size, lanes, buffer):
    order = StreamOrder(counts, batch_size, 3, lanes, buffer)
    length = order.batches * batch_size
    for turn in range(2):
        origins = [order.origin(turn * length + number) for number in range(length)]
        assert len(set(origins)) == length > sum(counts) - batch_size
        assert all(0 <= index < counts[shard] for shard, index in origins)
    lanes_of = [order.locate(number)[:2] for number in range(2 * length)]
    assert len(set(lanes_of)) <= 2 * 4 * order.columns and {turn for turn, _ in lanes_of} == {0, 1}


def test_order_is_shuffled_over_shards_and_within():
    order = StreamOrder((500,) * 20, 32, 0, 8, 4096)
    place = np.array([shard * 500 + index for shard, index in map(order.origin, range(312 * 32))])
    assert abs(np.corrcoef(np.arange(len(place)), place)[0, 1]) < 0.25  # of 20 shards in a random order
    emitted = np.full(10_000, np.nan)
    emitted[place] = np.arange(len(place))
    assert np.nanmedian(abs(np.diff(emitted))) > 300
    share = [Counter(batch // 500).most_common(1)[0][1] / 32 for batch in place.reshape(-1, 32)]
    assert np.mean(share) < 0.3  # of a batch that comes from one shard
    other = StreamOrder((500,) * 20, 32, 1, 8, 4096)
    assert [other.origin(number) for number in range(32)] != [order.origin(number) for number in range(32)]


def test_batches_are_equal_on_any_number_of_devices_and_workers(shards):
    urls, order = expand_urls(str(shards)), StreamOrder(COUNTS, 8, 0, 4, 96)
    assert batches(urls, order) == texts_of(order) == batches(urls, order, world=2) == batches(urls, order, world=4)
    assert batches(urls, order, epoch=1) == texts_of(order, 1) != texts_of(order)
    with serve(shards, Faults()) as url:
        remote = [f"{url}/{name.rpartition('/')[2]}" for name in urls]
        assert batches(remote, order) == texts_of(order)  # the loader forks after this process has used the network
        assert batches(remote, order, workers=2) == texts_of(order) == batches(remote, order, world=2, workers=1)


@pytest.mark.parametrize("start", [1, 2, 7, 16])
def test_resuming_in_the_middle_on_another_number_of_devices(shards, start):
    urls, order = expand_urls(str(shards)), StreamOrder(COUNTS, 8, 0, 4, 96)
    assert batches(urls, order, world=2, start=start) == texts_of(order)[start:] == batches(urls, order, start=start)


def test_epochs_of_a_given_length_go_through_all_shards(shards):
    urls, order = expand_urls(str(shards)), StreamOrder(COUNTS, 8, 0, 4, 96)
    epochs = [batches(urls, order, epoch=epoch, epoch_samples=50) for epoch in range(4)]
    assert sum(epochs, []) == [*texts_of(order), *texts_of(order, 1)][:24]
    assert batches(urls, order, epoch=2, epoch_samples=50, start=3) == epochs[2][3:]
    whole = batches(urls, order, epoch_samples=200)  # longer than a pass
    assert whole == [*texts_of(order), *texts_of(order, 1)][:25]
    with pytest.raises(ValueError, match="epoch_samples 5: fewer than one batch of 8"):
        ShardStream(order, 5)
    with pytest.raises(ValueError, match="batch of 8 samples cannot be shared equally by 3"):
        ShardStream(order, 0, 0, 3)
    with pytest.raises(ValueError, match="135 samples to train on are fewer than one batch of 200"):
        StreamOrder(COUNTS, 200)


def test_a_broken_sample_is_replaced_by_the_next_of_its_block(tmp_path):
    urls = [str(path) for path in sorted(write_shards(tmp_path / "shards").glob("*.tar"))]
    order = StreamOrder(COUNTS, 8, 0, 4, 96)
    content = (tmp_path / "shards" / "00002.tar").read_bytes()
    (tmp_path / "shards" / "00002.tar").write_bytes(content.replace(b"picture 2003", b"is broken!!!"))
    found, expected = batches(urls, order, folder=tmp_path), texts_of(order)
    changed = [(old, new) for old, new in zip(sum(expected, []), sum(found, [])) if old != new]
    assert len(changed) == 1 and changed[0][0] == "picture 2003" and changed[0][1].startswith("picture ")
    rows = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [f"{urls[2]}/000020003"] and rows[0]["reason"] == "is broken"
    assert found == batches(urls, order, world=2) == batches(urls, order, workers=2)
    assert found[9:] == batches(urls, order, start=9)


@pytest.mark.parametrize("fault", ["gone", "half", "page", "cut"])
def test_a_broken_shard_is_named_and_the_next_takes_its_place(tmp_path, fault):
    folder = write_shards(tmp_path / "shards")
    faults, order = Faults(), StreamOrder(COUNTS, 8, 0, 4, 96)
    if fault == "cut":  # between two samples, which no tar reader notices
        content = (folder / "00003.tar").read_bytes()
        (folder / "00003.tar").write_bytes(content[: content.index(b"000030007.jpg\0")])
    with serve(folder, faults) as url:
        urls = [f"{url}/0000{number}.tar" for number in range(6)]
        if fault == "gone":
            (folder / "00003.tar").unlink()
        elif fault == "half":
            content = (folder / "00003.tar").read_bytes()
            (folder / "00003.tar").write_bytes(content[: len(content) // 2])
        elif fault == "page":
            faults.pages.add("00003.tar")
        found, expected = batches(urls, order, folder=tmp_path), texts_of(order)
        pairs = [(int(old[8:]), int(new[8:])) for old, new in zip(sum(expected, []), sum(found, []))]
        kept = {old for old, new in pairs if old == new}
        lost = {old for old, _ in pairs} - kept
        assert lost and all(3000 <= old < 3023 and old > max(kept & set(range(3000, 3023)), default=0) for old in lost)
        used = 23 - len(lost)
        (row,) = [json.loads(line) for line in (tmp_path / "shards.jsonl").read_text().splitlines()]
        assert row["file"] == urls[3] and "of its 23 samples are used" in row["reason"]
        assert f"{used} of its 23 samples are used, {23 - used} skipped" in row["reason"]
        assert {"gone": used == 0, "page": used == 0, "cut": used == 7, "half": used == 11}[fault]
        assert found == batches(urls, order, world=2) and found[5:] == batches(urls, order, world=4, start=5)
        (folder / "00001.tar").unlink()
        with pytest.raises(ValueError, match="2 of 6 .* cannot be used, more than 20%"):
            batches(urls, order)


def test_no_shard_at_all_ends_with_one_line(tmp_path):
    order = StreamOrder((20, 20), 8)
    with pytest.raises(ValueError, match="neither it nor any other shard can be read|cannot be used"):
        batches([str(tmp_path / "0.tar"), str(tmp_path / "1.tar")], order, limit=2)
    samples = ShardSamples(["0.tar", "1.tar"], order, decode, SkipLog(), SkipLog())
    assert samples.file_of(3).partition(", ")[0] in ("0.tar", "1.tar") and len(samples) == 40
    with pytest.raises(ValueError, match="tar"):
        samples[SampleKey(0, 3)]
