"""Extraction in ONNX Runtime: the vectors and metadata of PyTorch, and PyTorch wherever it cannot or is no faster."""

import numpy as np
import pytest
import torch
from conftest import draw_styles
from torch import nn

from common.images.io import list_images
from common.models.backbone import Tokens
from common.models.pooling import ImageEncoder
from common.vectors.extractor import Extractor, ExtractorOptions
from retrieval.encoders import squash


class Convolution(ImageEncoder):
    image_size = 32

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 8, 8, stride=8)

    def preprocess(self, image):
        return squash(image, self.image_size)

    def tokens(self, pixels, layer=-1):
        return Tokens(self.layer(pixels / 255).flatten(2).mT, None)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return list_images(draw_styles(tmp_path_factory.mktemp("pictures") / "data", images=3, targets=False))  # 9


def vectors(paths, capsys, **options):
    """-> vectors, metadata, whether they are of ONNX Runtime, what was said"""
    pytest.importorskip("onnxruntime")
    extractor = Extractor(Convolution(), "c", ExtractorOptions(batch_size=2, num_workers=0, device="cpu", **options))
    rows = np.stack([vector for _, vector in extractor.embed(paths)])
    in_onnx = extractor.encode_batch != extractor._eager
    return rows, extractor.metadata, in_onnx, [line for line in capsys.readouterr().err.splitlines() if "ONNX" in line]


@pytest.mark.parametrize("options", [{}, {"pooling": "gem", "flip": True}, {"tiles": 3}])
def test_the_same_vectors_and_metadata(paths, capsys, options):
    """In batches of two, of three tiles and of the one image that is left."""
    eager, metadata, in_onnx, said = vectors(paths, capsys, backend="eager", **options)
    assert not in_onnx and not said
    found, same_metadata, in_onnx, said = vectors(paths, capsys, backend="onnx", **options)
    assert in_onnx and said == ["ONNX Runtime is used"] and same_metadata == metadata
    np.testing.assert_allclose(found, eager, atol=1e-5)


@pytest.mark.parametrize(
    "change, options, reason",
    [
        (("common.vectors.onnx_encoder.COSINE", 2.0), {}, "its vectors differ from PyTorch's"),
        (("common.models.onnx_export.find_spec", lambda name: None), {}, "requirements-export.txt"),
        (("common.models.onnx_export.LIMIT", 1), {}, "2 GiB at most"),
        (None, {"precision": "bf16"}, "it computes in fp32 on the CPU"),
    ],
)
def test_pytorch_where_it_cannot(paths, capsys, monkeypatch, change, options, reason):
    if change:
        monkeypatch.setattr(*change)
    found, _, in_onnx, said = vectors(paths, capsys, backend="onnx", **options)
    assert len(found) == 9 and not in_onnx
    (line,) = said
    assert line.startswith("ONNX Runtime is not used: ") and reason in line


@pytest.mark.parametrize(
    "seconds, gain, tried, used", [(300, 0, False, False), (0, 0, True, True), (0, 1e9, True, False)]
)
def test_auto_measures_where_many_images_are_left(paths, capsys, monkeypatch, seconds, gain, tried, used):
    monkeypatch.setattr("common.vectors.onnx_encoder.WORTH_SECONDS", seconds)
    monkeypatch.setattr("common.vectors.extractor.GAIN", gain)
    found, _, in_onnx, said = vectors(paths, capsys)
    assert (in_onnx, bool(said)) == (used, tried)
    np.testing.assert_allclose(found, vectors(paths, capsys, backend="eager")[0], atol=1e-5)
