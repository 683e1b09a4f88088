"""Files to a batch: what is found, what is refused, how it is split, ordered and padded."""

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import draw_styles
from PIL import Image

from batch_sampler import PKBatchSampler
from common.images.cache import ImageCache
from common.images.transforms import Augmentation, SampleKey, redraw, square
from common.samples.invented import MAKER
from dataset import StyleDataset, find_samples, split_samples
from targets import TargetShapes, load_target, read_target_shapes


def make_dataset(folder, augmentation=None, size=32, drawn=None):
    samples = find_samples(folder)
    store = ImageCache(48)
    return StyleDataset(samples, store, size, read_target_shapes(samples), augmentation, drawn=drawn)


def test_ignored_targets_are_not_read(style_data):
    assert set(find_samples(style_data, ["pooled", "mask"])[0].targets) == {"embed"}
    with pytest.raises(ValueError, match="IGNORE_TARGETS holds 'poled'; expected any of embed, pooled, mask"):
        find_samples(style_data, ["poled"])


@pytest.mark.parametrize(
    "kind, shape, found",
    [
        ("embed", (5, 3), (5, 3)),
        ("embed", (1, 5, 3), (5, 3)),
        ("embed", (1, 1, 3), (1, 3)),
        ("embed", (1, 3), (1, 3)),
        ("pooled", (7,), (7,)),
        ("pooled", (1, 7), (7,)),
        ("pooled", (1,), (1,)),
        ("mask", (1, 6), (6,)),
        ("mask", (6,), (6,)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_targets_of_all_shapes_and_types(tmp_path, kind, shape, found, dtype):
    torch.save(torch.ones(shape, dtype=dtype), tmp_path / "t.pt")
    target = load_target(tmp_path / "t.pt", kind)
    assert target.shape == found and target.dtype == (torch.int64 if kind == "mask" else torch.float32)


@pytest.mark.parametrize(
    "kind, content, words",
    [
        ("embed", torch.zeros(2, 5, 3), r"shape \(2, 5, 3\); expected \(L, D\)"),
        ("embed", torch.zeros(5), r"shape \(5,\)"),
        ("pooled", torch.zeros(2, 5), r"shape \(2, 5\)"),
        ("pooled", torch.zeros(0), r"shape \(0,\)"),
        ("pooled", torch.tensor([1.0, float("nan")]), "nan"),
        ("mask", torch.tensor([0.0, 0.5]), "only 0 and 1"),
        ("embed", {"a": torch.zeros(1)}, "holds a dict"),
        ("embed", torch.ones(5, 3).to_sparse(), "sparse"),
        ("embed", torch.ones(5, 3, device="meta"), "meta"),
        ("embed", torch.ones(5, 3, dtype=torch.complex64), "complex"),
    ],
)
def test_ambiguous_targets_are_refused_by_name(tmp_path, kind, content, words):
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=f"bad.pt: .*{words}"):
        load_target(tmp_path / "bad.pt", kind)


def test_shapes_over_a_data_set(style_data):
    assert read_target_shapes(find_samples(style_data)) == TargetShapes(5, 12, 10, True)
    torch.save(torch.ones(4), style_data / "style_0" / "item1_mask.pt")
    with pytest.raises(ValueError, match="item1_mask.pt: 4 tokens, but its embed has 3"):
        read_target_shapes(find_samples(style_data))
    torch.save(torch.ones(3), style_data / "style_0" / "item1_mask.pt")
    torch.save(torch.ones(11), style_data / "style_2" / "item1_pooled.pt")
    with pytest.raises(ValueError, match="item1_pooled.pt: width 11, but .*item0_pooled.pt has 10"):
        read_target_shapes(find_samples(style_data))


def test_batches_pad_and_flag_what_is_absent(style_data):
    (style_data / "style_0" / "item0_embed.pt").unlink()
    (style_data / "style_0" / "item0_mask.pt").unlink()
    (style_data / "style_1" / "item0_mask.pt").unlink()
    dataset = make_dataset(style_data)
    batch = torch.utils.data.default_collate([dataset[0], dataset[8], dataset[16]])
    assert batch["image"].shape == (3, 3, 32, 32) and batch["image"].dtype == torch.uint8
    assert batch["embed"].shape == (3, 5, 12) and batch["style_ids"].tolist() == [0, 1, 2]
    assert batch["has_embed"].tolist() == [False, True, True] and batch["has_mask"].tolist() == [False, False, True]
    assert batch["mask"].tolist() == [[0] * 5, [1, 1, 1, 1, 0], [1] * 5]  # without a file: as long as the embed
    assert (batch["embed"][1, 4] == 0).all() and (batch["embed"][1, :4] != 0).all()


def test_split_is_stratified_and_keeps_names_on_one_side(tmp_path):
    samples = find_samples(draw_styles(tmp_path / "d", styles=4, images=20, targets=False))
    train, val = split_samples(samples, 0.2)
    assert sorted([*train, *val], key=samples.index) == list(samples) and len(val) == 16
    assert {sample.name for sample in train}.isdisjoint(sample.name for sample in val)
    again, another = (split_samples(samples, 0.2, seed=seed)[1] for seed in (0, 1))
    assert list(again) == list(val) != list(another) and not split_samples(samples, 0.0)[1]
    train, val = split_samples(samples, 0.2, ["style_2"])
    assert {sample.style for sample in val} == {"style_2"} and len(train) == 60
    with pytest.raises(ValueError, match="VAL_STYLES names 'x'; the data has style_0"):
        split_samples(samples, 0.2, ["x"])


def test_split_leaves_small_styles_something_to_train_on(tmp_path):
    samples = find_samples(draw_styles(tmp_path / "d", styles=2, images=3, targets=False))
    train, val = split_samples(samples, 0.9)
    assert len([sample for sample in train if sample.style == "style_0"]) == 2 and len(val) == 2


def test_batches_hold_p_styles_of_k_images_with_the_same_contents(style_data):
    dataset = make_dataset(style_data)
    batches = list(PKBatchSampler(dataset, 12, 4).epoch_batches(0))
    assert len(batches) == 2
    for batch in batches:
        styles = [dataset.style_ids[view.index] for view in batch]
        assert sorted(np.bincount(styles).tolist()) == [4, 4, 4]
        names = [{dataset.samples[v.index].name for v in batch if dataset.style_ids[v.index] == s} for s in range(3)]
        assert names[0] == names[1] == names[2]
    assert sorted(view.index for batch in batches for view in batch) == list(range(24))


def test_small_styles_are_shown_again(tmp_path):
    folder = draw_styles(tmp_path / "d", styles=3, images=12, targets=False)
    for item in range(2, 12):
        (folder / "style_1" / f"item{item}_img.png").unlink()
    dataset = make_dataset(folder)
    batches = list(PKBatchSampler(dataset, 6, 2).epoch_batches(3))
    assert {view.index for batch in batches for view in batch} == set(range(len(dataset)))
    for batch in batches:
        assert np.bincount([dataset.style_ids[view.index] for view in batch]).tolist() == [2, 2, 2]


def test_invented_styles_are_classes_of_their_own(style_data):
    dataset = make_dataset(style_data, Augmentation())
    sampler = PKBatchSampler(dataset, 12, 2, remix_share=0.5, grey_prob=0.5)
    assert (sampler.plain, sampler.remixed, sampler.images_per_group) == (3, 3, 2)
    greys = set()
    for batch in [*sampler.epoch_batches(0), *sampler.epoch_batches(1)]:
        items = [dataset[view] for view in batch]
        ids = [int(item["style_ids"]) for item in items]
        assert sorted(ids.count(one) for one in set(ids)) == [2] * 6
        assert [bool(item["has_embed"]) for item in items] == [True] * 6 + [False] * 6
        flags = {view.grey for view in batch}
        assert len(flags) == 1  # a batch is grey as a whole or not at all
        greys |= flags
        for view, item in zip(batch, items):
            assert bool((item["image"] == item["image"][:1]).all()) or not view.grey
    assert greys == {True, False}


def test_drawings_are_classes_two_by_two_of_one_maker(style_data):
    drawn = np.random.default_rng(0).integers(256, size=(8, 3, 32, 32, 3), dtype=np.uint8)
    dataset = make_dataset(style_data, Augmentation(), drawn=drawn)
    sampler = PKBatchSampler(dataset, 16, 2, remix_share=0.25, drawn_share=0.25)
    assert (sampler.plain, sampler.remixed, sampler.drawn) == (3, 3, 2)  # the data have three styles for four places
    for batch in sampler.epoch_batches(0):
        items = [dataset[view] for view in batch]
        ids = [int(item["style_ids"]) for item in items]
        assert sorted(ids.count(one) for one in set(ids)) == [2] * 8
        drawings = [-1 - one for one in ids if one < 0]
        assert len({style // MAKER for style in drawings}) == 1 and len(drawings) == 4
        assert not any(item["has_embed"] for one, item in zip(ids, items) if one < 0)
    first = len(dataset)
    assert torch.equal(dataset[first + 4]["image"], torch.tensor(drawn[1, 1]).permute(2, 0, 1))
    assert dataset.file_of(first + 4) == "drawing 4"


def test_every_other_epoch_shows_different_contents(style_data):
    dataset = make_dataset(style_data)

    def shares_contents(batch):
        names = [{dataset.samples[v.index].name for v in batch if dataset.style_ids[v.index] == s} for s in range(3)]
        return names[0] == names[1] == names[2]

    sampler = PKBatchSampler(dataset, 12, 4)
    assert [all(map(shares_contents, sampler.epoch_batches(epoch))) for epoch in range(4)] == [True, False, True, False]


def test_order_is_a_pure_function_of_seed_and_epoch(style_data):
    dataset = make_dataset(style_data)
    one, two = (PKBatchSampler(dataset, 6, 2, 0.3, grey_prob=0.2, seed=5) for _ in range(2))
    assert list(one.epoch_batches(4)) == list(two.epoch_batches(4)) != list(one.epoch_batches(5))
    one.set_position(4, 2)
    assert list(one) == list(two.epoch_batches(4))[2:] and len(one) == len(list(one))


def test_devices_share_every_batch(style_data):
    dataset = make_dataset(style_data)
    whole = list(PKBatchSampler(dataset, 12, 4).epoch_batches(1))
    parts = [PKBatchSampler(dataset, 12, 4, rank=rank, world=2) for rank in range(2)]
    for part in parts:
        part.set_position(1)
    for batch, first, second in zip(whole, *parts):
        assert Counter(first + second) == Counter(batch) and len(first) == len(second) == 6
    with pytest.raises(ValueError, match="a batch of 12 images cannot be shared equally by 5 devices"):
        PKBatchSampler(dataset, 12, 4, world=5)


def test_too_little_for_a_contrast_is_an_error(style_data, tmp_path):
    with pytest.raises(ValueError, match="a batch needs at least 2 styles of at least 2 images"):
        PKBatchSampler(make_dataset(style_data), 4, 4)
    alone = make_dataset(draw_styles(tmp_path / "one", styles=1, targets=False))
    with pytest.raises(ValueError, match=r"1 style\(s\): a batch needs at least 2"):
        PKBatchSampler(alone, 8, 4)
    assert PKBatchSampler(alone, 8, 2, remix_share=0.5).remixed == 3  # one style and invented ones do


def test_views_are_pure_functions_of_their_key(style_data):
    dataset = make_dataset(style_data, Augmentation(seed=3))
    for view in (SampleKey(0, 5), SampleKey(0, 5, 77), SampleKey(0, 5, 0, True)):
        assert torch.equal(dataset[view]["image"], dataset[view]["image"])
    pictures = [dataset[SampleKey(epoch, 5, remix)]["image"] for epoch, remix in ((0, 0), (1, 0), (0, 9), (0, 10))]
    for i, one in enumerate(pictures):
        assert all(not torch.equal(one, other) for other in pictures[:i])
    torch.manual_seed(1)
    assert torch.equal(dataset[SampleKey(1, 5)]["image"], pictures[1])  # no global random state


def test_one_invented_style_is_one_change_whatever_the_grain():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    means = []
    for style in range(40):
        two = [
            np.asarray(redraw(picture, np.random.default_rng(style), np.random.default_rng(g)), float) for g in (1, 2)
        ]
        assert two[0].shape == (32, 32, 3)
        means.append(two[0].mean((0, 1)))
        assert np.abs(two[0].mean((0, 1)) - two[1].mean((0, 1))).max() < 12
    assert len({tuple(mean.round()) for mean in means}) > 30  # and forty styles are nearly all different


def test_square_takes_the_middle():
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200
    assert (square(pixels, 10) > 150).all() and square(pixels, 10).shape == (10, 10, 3)
    assert (
        np.ptp(square(np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8), 9, grey=True), axis=2) == 0
    ).all()
