"""On real images, where the machine has them (REAL_DATA_DIR): seconds, not accuracy."""

import torch
from conftest import TINY_RUN, run_folders

import style_comparator
import train
from common.images.cache import ImageCache
from dataset import find_samples, split_samples
from evaluate_style import score
from style_head import colour_histogram


def test_every_real_image_is_read_and_split_by_content(real_data):
    samples = find_samples(real_data / "styles")
    store = ImageCache(48)
    assert len(samples) == 1800 and store.check([sample.image for sample in samples], 1800) == {}
    train, val = split_samples(samples, 0.1)
    names = [{sample.name for sample in part} for part in (train, val)]
    assert names[0].isdisjoint(names[1]) and len(val) == 180


def test_a_few_steps_on_real_styles(real_data, tmp_path):
    """A subset of the real styles through the whole command: train, then compare two of its pictures."""
    for style in ("noto", "openmoji_black", "twemoji"):
        folder = tmp_path / "data" / style
        folder.mkdir(parents=True)
        for path in sorted((real_data / "styles" / style).glob("*_img.png"))[:24]:
            (folder / path.name).symlink_to(path)
    results = train.main([*TINY_RUN, *run_folders(tmp_path / "data", tmp_path), "--batch_size", "12"])
    assert results["history"][-1]["train/loss"] < results["history"][0]["train/loss"]
    pictures = [str(next((tmp_path / "data" / style).iterdir())) for style in ("noto", "openmoji_black")]
    found = style_comparator.main([*pictures, "--weights", str(tmp_path / "checkpoints" / "best.pth")])
    assert -1 <= found["similarity"] <= 1 and "csls" in found


def test_a_histogram_finds_what_the_data_says_it_finds(real_data):
    """The data's own README measured 0.87 for a colour histogram by another program: one check of our metrics."""
    from targets import TargetShapes
    from train import StyleDataset

    samples = find_samples(real_data / "styles")
    store = ImageCache(128)
    dataset = StyleDataset(samples, store, 128, TargetShapes())
    vectors = torch.cat([colour_histogram(dataset[index]["image"][None]) for index in range(len(dataset))])
    found = score(vectors, dataset)["style"]
    assert 0.8 < found["precision_at_1"] < 0.95 and 0.5 < found["auc"] < 0.7
