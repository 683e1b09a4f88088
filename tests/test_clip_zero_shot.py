"""CLIP's vectors in use: zero-shot classes and linear probes against loops, scores of chance on real data."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import flags
from tiny.clip import write_colours

from clip import evaluate
from clip.checkpoint import save_clip
from clip.dataset import PairDataset, find_pairs
from clip.embed import embed_images, embed_pairs, embed_texts
from clip.metrics import class_vectors, linear_probe, zero_shot
from clip.model import CLIPModel
from common.images.cache import ImageCache

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path):
    return write_colours(tmp_path / "pairs")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    architecture = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    tokenizer = {"kind": "clip", "context_length": 32}
    return CLIPModel(config={"architecture": architecture, "sigmoid": False, "tokenizer": tokenizer})


def test_batches_and_threads_change_nothing(model, data):
    pairs, _ = find_pairs(data)
    store = ImageCache(48)
    dataset = PairDataset(pairs, store, model.preprocess, model.tokenizer)
    model.train()
    found = embed_pairs(model, dataset, CPU, batch_size=7, quiet=True)
    assert model.training
    assert found.image_vectors.shape == (30, 24) and found.text_vectors.shape == (60, 24)
    assert found.image_of_text.tolist() == [index // 2 for index in range(60)]
    assert found.texts[2] == pairs[1].texts[0]
    model.eval()
    with torch.inference_mode():
        images = model.encode_image(torch.stack([dataset[index]["image"] for index in range(30)]))
        texts = torch.cat([model.encode_text(model.tokenize([text])) for text in found.texts])
    assert torch.allclose(found.image_vectors, images, atol=1e-6)
    assert torch.allclose(found.text_vectors, texts, atol=1e-6)
    loaded, readable = embed_images(model, dataset, CPU, 30, quiet=True, num_workers=1)
    assert torch.allclose(loaded, images, atol=1e-6) and readable.all()
    twice = embed_texts(model, ["a", "a longer text", "a"], CPU, batch_size=1)
    assert torch.equal(twice[0], twice[2]) and not torch.equal(twice[0], twice[1])


def test_an_image_that_cannot_be_read_is_dropped_with_its_texts(model, data):
    pairs, _ = find_pairs(data)
    broken = [pairs[index].image for index in (0, 7, 8, 29)]
    for image in broken:
        image.write_bytes(b"junk")
    dataset = PairDataset(pairs, ImageCache(48), model.preprocess, model.tokenizer)
    found = embed_pairs(model, dataset, CPU, batch_size=7, quiet=True)
    assert set(dataset.skipped.skipped) == set(map(str, broken))
    assert found.pairs.values("key") == [pair.key for pair in pairs if pair.image not in broken]
    assert found.image_of_text.tolist() == [index // 2 for index in range(52)] and len(found.text_ids) == 52
    assert found.texts == [text for pair in found.pairs for text in pair.texts]
    with torch.inference_mode():
        last = model.encode_text(model.tokenize(found.texts[-1:]))
    assert torch.allclose(found.text_vectors[-1:], last, atol=1e-6)
    for image in pairs.images:
        image.write_bytes(b"junk")
    with pytest.raises(ValueError, match="no image can be read, the first is .*png"):
        embed_images(model, dataset, CPU, quiet=True)


def test_class_vectors_against_their_definition(model):
    templates = ["a photo of {}.", "{}, a thing"]
    found = class_vectors(model.eval(), ["frog", "red car"], templates, CPU)
    for vector, name in zip(found, ["frog", "red car"]):
        parts = [embed_texts(model, [template.format(name)], CPU)[0] for template in templates]
        assert torch.allclose(vector, F.normalize(sum(parts) / 2, dim=0), atol=1e-6)


def test_zero_shot_against_a_loop(model):
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(40, 24, generator=generator), dim=1)
    labels = [f"thing {index % 7}" for index in range(40)]
    found = zero_shot(model, vectors, labels, CPU, ["a {}"])
    classes = class_vectors(model, sorted(set(labels)), ["a {}"], CPU)
    hits = {1: 0, 5: 0}
    for vector, label in zip(vectors, labels):
        order = sorted(range(7), key=lambda index: -float(vector @ classes[index]))
        for k in hits:
            hits[k] += f"thing {order.index(int(label[-1]))}" in [f"thing {place}" for place in range(k)]
    assert found["top1"]["value"] == pytest.approx(100 * hits[1] / 40)
    assert found["top5"]["value"] == pytest.approx(100 * hits[5] / 40)
    assert found["top1"]["chance"] == pytest.approx(100 / 7) and found["top5"]["chance"] == pytest.approx(500 / 7)
    same = zero_shot(model, torch.zeros(40, 24), labels, CPU)
    assert same["top1"]["value"] == 0  # a model that tells nothing apart
    assert "{}的图片。" in zero_shot(model, vectors, ["青蛙", "汽车"] * 20, CPU)["templates"]


def test_linear_probe():
    generator = torch.Generator().manual_seed(0)
    labels = [f"class {index % 4}" for index in range(120)] + ["rare"] * 3
    centres = 3 * torch.randn(5, 6, generator=generator)
    vectors = centres[[index % 4 for index in range(120)] + [4] * 3] + torch.randn(123, 6, generator=generator)
    good = linear_probe(vectors, labels)
    assert good["top1"]["value"] > 90 and good["skipped_classes"] == ["rare"] and good["classes"] == 4
    assert (good["images_to_fit"], good["test_images"]) == (84, 36) and good["largest_class"] == 25
    nothing = linear_probe(torch.randn(123, 6, generator=generator), labels)
    assert nothing["top1"]["value"] < 45
    assert linear_probe(vectors, labels) == good
    training = [index < 100 for index in range(123)]
    assert linear_probe(vectors, labels, training)["test_images"] == 20
    with pytest.raises(ValueError, match="fewer than two classes have 4 images"):
        linear_probe(vectors[:5], labels[:5])
    with pytest.raises(ValueError, match="no image of these classes"):
        linear_probe(vectors, labels, [True] * 123)


def test_labels_that_were_asked_about_do_not_reach_the_fit():
    """Wrong labels on the images asked about change nothing but the score."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(60, 6, generator=generator)
    labels = ["left" if vector[0] < 0 else "right" for vector in vectors]
    training = [index < 40 for index in range(60)]
    turned = [label if fit else {"left": "right", "right": "left"}[label] for label, fit in zip(labels, training)]
    right, wrong = (linear_probe(vectors, one, training) for one in (labels, turned))
    assert right["C"] == wrong["C"]
    assert right["top1"]["value"] + wrong["top1"]["value"] == pytest.approx(100)


def test_val_is_what_training_validated_on(model, tmp_path):
    """The score that a checkpoint carries comes out of its own file and the folder again."""
    from clip import train
    from clip.dataset import create_sample_dataset

    create_sample_dataset(tmp_path / "data", num_samples=40, size=40)
    sorted((tmp_path / "data" / "images").iterdir())[3].write_bytes(b"broken")
    save_clip(tmp_path / "tiny.pth", model)
    folders = flags(**{f"{name}_dir": tmp_path / name for name in ("checkpoint", "results", "log", "cache", "data")})
    run = flags(model_name=tmp_path / "tiny.pth", num_epochs=1, batch_size=8, val_split=0.4, max_skipped=0.2)
    train.main([*run, *folders, "--device", "cpu"])
    weights = str(tmp_path / "checkpoint" / "best_model.pth")
    arguments = ["--weights", weights, "--data_dir", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]
    report = evaluate.main([*arguments, "--split", "val", "--device", "cpu"])
    best = json.loads((tmp_path / "results" / "training_results.json").read_text())["best"]
    assert report["retrieval"]["rsum"]["value"] == pytest.approx(best["val/rsum"])
    assert report["similarity"]["positive_similarity"] == pytest.approx(best["val/positive_similarity"], abs=1e-5)
    assert report["note"] == "" and report["images"] < 20
    whole = evaluate.main([*arguments, "--device", "cpu"])
    assert "--split val" in whole["note"] and whole["images"] > report["images"]


@pytest.mark.parametrize("index", ["data.json", "captions_zh.json"])
def test_an_untrained_model_on_real_data_scores_chance(model, real_data, tmp_path, index):
    save_clip(tmp_path / "untrained.pth", model)
    folder = real_data / "captions"
    report = evaluate.main(
        [
            "--weights",
            str(tmp_path / "untrained.pth"),
            "--data_dir",
            str(folder / index),
            "--limit",
            "300",
            "--classes_csv",
            str(folder / "index.csv"),
            "--output_dir",
            str(tmp_path / "out"),
            "--device",
            "cpu",
        ]
    )
    assert report["images"] == 300 > report["unique_texts"]
    for name, number in report["retrieval"].items():
        if "rank" not in name:
            low, high = number["interval"]
            assert low <= number["chance"] <= high + 1, name
        else:
            assert 0.8 * number["chance"] < number["value"] < 1.25 * number["chance"], name
    assert abs(report["similarity"]["similarity_gap"]) < 0.02
    assert report["zero_shot"]["top1"]["value"] < report["zero_shot"]["largest_class"] + 5
    assert report["retrieved_text"]["bleu"]["value"] < 10 and report["retrieved_text"]["rouge1"]["value"] < 40
