"""What the ViTP guide says to type for image retrieval: its functions, its files, its commands."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.decomposition import PCA
from tiny.retrieval import draw
from tiny.vitp import tiny_model

from common.images.io import list_images
from common.vectors.feature_files import read_features
from retrieval import evaluate_retrieval as evaluation
from retrieval import extract_features
from retrieval.evaluate_retrieval import (
    build_faiss_index,
    evaluate_retrieval,
    load_features_with_labels,
    rerank_with_query_expansion,
)
from retrieval.extract_features import ViTPFeatureExtractor, extract_dataset_features
from vitp import extract_vit
from vitp.vision_encoder import load_vit


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    tiny_model().save_pretrained(folder / "whole")
    extract_vit.main(["--checkpoint", str(folder / "whole"), "--output", str(folder / "vitp_vit.pth")])
    return folder / "vitp_vit.pth"


@pytest.fixture
def images(tmp_path):
    draw(tmp_path / "train", range(8))
    draw(tmp_path / "test", range(20, 24))
    return tmp_path


@torch.no_grad()
def test_the_extractor_of_the_guide(vit, images):
    extractor = ViTPFeatureExtractor(vit, select_layer=-2)
    path = list_images(images / "test")[0]
    feature = extractor.extract_feature(path)
    assert feature.shape == (32,) and np.linalg.norm(feature) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(extractor.extract_feature(str(path)), feature)
    np.testing.assert_allclose(extractor.extract_feature(Image.open(path).convert("RGBA")), feature)
    encoder = extractor.extractor.encoder
    pixels = (encoder.preprocess(Image.open(path))[None] / 255 - encoder.mean) / encoder.std
    hidden = load_vit(vit)[0](pixels, output_hidden_states=True).hidden_states[-2]
    np.testing.assert_allclose(feature, F.normalize(hidden[:, 1:].mean(1))[0], atol=1e-5)
    assert np.abs(ViTPFeatureExtractor(vit).extract_feature(path) - feature).max() > 1e-3


def test_the_commands_of_the_guide(vit, images, capsys):
    for side, folder in (("gallery", "train"), ("query", "test")):
        output = str(images / f"features/{side}_features.npz")
        flags = ["--image_dir", str(images / folder), "--output", output, "--vit_checkpoint", str(vit)]
        extract_features.main([*flags, "--select_layer", "-2"])
        assert read_features(output).metadata["layer"] == -2
    flags = [f"--{side}_features={images}/features/{side}_features.npz" for side in ("query", "gallery")]
    evaluation.main([*flags, "--top_k", "1", "3", "5"])
    said = capsys.readouterr().out
    for line in ("找到 8 张图像", "特征形状: (8, 32)", "查询集: (4, 32), 候选集: (8, 32)", "Top-5 准确率: "):
        assert line in said


def test_files_of_the_guide_and_of_ours(vit, images):
    extract_dataset_features(images / "train", images / "ours", vit, batch_size=32)
    data = np.load(images / "ours.npz")  # as the guide reads it
    labels = np.array([path.split("/")[-2] for path in data["image_paths"]])
    features, found, paths = load_features_with_labels(images / "ours.npz")
    np.testing.assert_array_equal(features, data["features"])
    assert found.tolist() == labels.tolist() and paths.tolist() == data["image_paths"].tolist()
    np.savez(images / "theirs.npz", features=data["features"], image_paths=[str(path) for path in paths])
    features, numbers, _ = load_features_with_labels(images / "theirs.npz", lambda x: int(x.split("/")[-2][-1]))
    assert numbers.tolist() == [int(label[-1]) for label in labels] and features.shape == (8, 32)


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    labels = random.integers(0, 6, 90)
    vectors = random.standard_normal((90, 16)) + 0.7 * np.eye(16)[labels]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:30], labels[:30], vectors[30:], labels[30:]


def guides_top_k(queries, query_labels, gallery, gallery_labels, k):
    """The guide's loop."""
    correct = 0
    for query, label in zip(queries, query_labels):
        nearest = np.argsort(((gallery - query) ** 2).sum(1))[:k]
        correct += label in gallery_labels[nearest]
    return correct / len(queries)


def test_evaluation_of_arrays(arrays, capsys):
    results = evaluate_retrieval(*arrays, top_k_list=[1, 3, 5])
    assert results == {f"Top-{k}": pytest.approx(guides_top_k(*arrays, k)) for k in (1, 3, 5)}
    assert f"Top-1 准确率: {results['Top-1']:.4f} (" in capsys.readouterr().out
    queries, query_labels, gallery, gallery_labels = arrays
    names = [f"class {label}" for label in query_labels], [f"class {label}" for label in gallery_labels]
    assert evaluate_retrieval(queries.astype(np.float16), names[0], gallery, names[1], [99]) == {"Top-99": 1}
    reduced = PCA(n_components=8).fit(gallery)  # as in the guide, but fitted on the gallery alone
    assert evaluate_retrieval(reduced.transform(queries), query_labels, reduced.transform(gallery), gallery_labels)
    with pytest.raises(ValueError, match=r"gallery_features \(60, 16\), 30 labels"):
        evaluate_retrieval(queries, query_labels, gallery, query_labels)
    with pytest.raises(ValueError, match="query_features of width 8, but gallery_features of 16"):
        evaluate_retrieval(queries[:, :8], query_labels, gallery, gallery_labels)


def test_faiss_takes_arrays_of_any_kind(arrays):
    """Its own add() takes contiguous float32 alone in most versions."""
    queries, _, gallery, _ = arrays
    distances, rows = build_faiss_index(np.asfortranarray(gallery)).search(queries.astype("float32"), 3)
    expected = ((queries[:, None] - gallery) ** 2).sum(2)
    np.testing.assert_array_equal(rows, expected.argsort(1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(expected, 1)[:, :3], atol=1e-5)
    assert build_faiss_index(gallery.astype(np.float16)[:, ::2]).d == 8


def test_reranking_of_the_guide(arrays):
    queries, _, gallery, _ = arrays
    initial = ((queries[:, None] - gallery) ** 2).sum(2).argsort(1)
    found = rerank_with_query_expansion(queries, gallery, initial, k1=5)
    for number, query in enumerate(queries):  # the guide's loop
        expanded = np.mean(np.vstack([query[None], gallery[initial[number, :5]]]), axis=0)
        expected = np.linalg.norm(gallery - expanded, axis=1)
        np.testing.assert_allclose(expected[found[number]], np.sort(expected), atol=1e-5)
    assert found.shape == (30, 60)
