"""Samples, splits and batches of pairs."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from clip.dataset import PairDataset, create_sample_dataset, find_pairs, id_of, split_pairs
from clip.preprocessing import Resize
from clip.tokenizer import CLIPTokenizer
from common.images.cache import ImageCache
from common.images.transforms import Augmentation, SampleKey
from common.training.samplers import DeterministicBatchSampler


def picture(path, colour="red", size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


@pytest.fixture
def pairs(tmp_path):
    entries = []
    for number in range(12):
        picture(tmp_path / f"{number}.png", (20 * number, 0, 0))
        words = [f"card {number // 2}", f"a card on the left, {number}"]
        entries.append(
            {"image_path": f"{number}.png", "captions": words, "character": f"c{number}" if number < 4 else ""}
        )
    entries[1]["character"] = "c0"
    (tmp_path / "data.json").write_text(json.dumps(entries))
    return find_pairs(tmp_path)[0]


def dataset(pairs, augmentation=None):
    store = ImageCache(12)
    return PairDataset(pairs, store, Resize(8), CLIPTokenizer(), augmentation)


def test_a_sample(pairs):
    data = dataset(pairs)
    item = data[2]
    assert item["image"].shape == (3, 8, 8) and item["image"].dtype == torch.uint8
    assert item["tokens"][0] == 49406 and item["tokens"][-1] == 49407
    assert data[2]["text_ids"] == data[3]["text_ids"] != data[4]["text_ids"] and data[2]["text_ids"] >= 0
    groups = [int(data[index]["group_ids"]) for index in range(5)]
    assert groups[0] == groups[1] and len(set(groups)) == 4 and groups[4] == -1
    assert len(data.texts.tokens) == 18 and len(data.texts.numbers) == 24 and data.texts.tokens.truncated == 0
    batch = data.collate([data[0], data[1], data[2]])
    assert list(batch) == ["image", "tokens", "text_ids", "group_ids"] and batch["tokens"].shape[0] == 3


def test_a_text_is_drawn_each_epoch_and_the_key_decides(pairs):
    data = dataset(pairs, Augmentation(0.5, 0.5, seed=3))
    drawn = [[int(data[SampleKey(epoch, index)]["text_ids"]) for index in range(12)] for epoch in range(20)]
    assert drawn == [[int(data[SampleKey(epoch, index)]["text_ids"]) for index in range(12)] for epoch in range(20)]
    share = np.mean([id_of(f"card {index // 2}") == drawn[epoch][index] for epoch in range(20) for index in range(12)])
    assert 0.35 < share < 0.65
    views = [data[SampleKey(epoch, 5)]["image"] for epoch in (1, 1, 2)]
    assert torch.equal(views[0], views[1])


def test_pictures_of_sides_are_not_mirrored(tmp_path):
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, :10] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    for text, mirrored in (("light on the left", 0), ("a light", 20), ("左边有光", 0), ("some leftovers", 20)):
        (tmp_path / "data.json").write_text(json.dumps([{"image_path": "a.png", "caption": text}]))
        data = dataset(find_pairs(tmp_path)[0], Augmentation(1.0, 1.0, seed=0))
        right = sum(int(data[SampleKey(epoch, 0)]["image"][0, 4, 7]) > 128 for epoch in range(20))
        assert right == mirrored, text


def test_split_keeps_characters_and_equal_captions_together(pairs):
    for seed in range(5):
        train, val = split_pairs(pairs, 0.3, seed)
        assert sorted([*train, *val], key=pairs.index) == list(pairs) and 1 <= len(val) <= 4
        assert (pairs[0] in train) == (pairs[1] in train)  # one character
        assert (pairs[4] in train) == (pairs[5] in train)  # one first caption
    once, twice = (split_pairs(pairs, 0.3, 1)[0] for _ in range(2))
    assert list(once) == list(twice) and len(split_pairs(pairs, 0.0)[1]) == 0


def test_batches_are_a_function_of_the_epoch():
    batches = DeterministicBatchSampler(10, 4, seed=1)
    first = [[view.index for view in batch] for batch in batches]
    assert len(batches) == len(first) == 2 and len({index for batch in first for index in batch}) == 8
    batches.set_position(1)
    second = list(batches)
    assert [[view.index for view in batch] for batch in second] != first and second[0][0].epoch == 1
    batches.set_position(1, 1)
    assert list(batches) == second[1:] and len(batches) == 1
    shares = [DeterministicBatchSampler(10, 4, seed=1, rank=rank, world=2) for rank in (0, 1)]
    for whole, *parts in zip(DeterministicBatchSampler(10, 4, seed=1), *shares):
        assert parts[0] + parts[1] == whole
    with pytest.raises(ValueError, match="fewer than one batch"):
        DeterministicBatchSampler(3, 4)
    with pytest.raises(ValueError, match="shared equally by 3"):
        DeterministicBatchSampler(30, 4, world=3)


def test_sample_data_has_the_layout_of_the_documents(tmp_path):
    create_sample_dataset(tmp_path, num_samples=6)
    pairs, skipped = find_pairs(tmp_path)
    assert len(pairs) == 6 and not skipped
    (tmp_path / "data.json").unlink()
    again, _ = find_pairs(tmp_path)
    assert [set(pair.texts) for pair in again] == [set(pair.texts) for pair in pairs]


def test_real_captions_and_personas(real_data):
    pairs, skipped = find_pairs(real_data / "captions")
    assert len(pairs) == 564 and not skipped
    people, skipped = find_pairs(real_data / "persona")
    assert len(people) == 222 and not skipped and all(pair.character and pair.texts for pair in people)
    store = ImageCache(48)
    data = PairDataset(people, store, Resize(32), CLIPTokenizer())
    assert (
        0 < data.texts.tokens.truncated < len(data.texts.tokens)
    )  # these descriptions are long; the share is reported
