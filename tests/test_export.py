"""Export of the style encoder: ONNX outputs equal PyTorch's, preprocessing.json is sufficient, timm opens it."""

import json
import re

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT
from PIL import Image

from common.models.onnx_export import OutputTuple, write_onnx
from model import VisionStyleEncoder
from style_encoder import load_encoder, read_image, save_encoder
from tools import export_style

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network with convolutions and every head, its BatchNorm statistics not those of the start."""
    torch.manual_seed(0)
    encoder = VisionStyleEncoder(
        "test_efficientnet",
        image_size=48,
        sequence_length=5,
        embed_width=12,
        pooled_width=10,
        predict_mask=True,
        style_width=16,
        frozen_maps=2,
    )
    for discriminant in encoder.style_head.discriminants.values():  # as if fitted
        torch.nn.init.normal_(discriminant.directions)
    encoder.train()(torch.randint(256, (8, 3, 48, 48), dtype=torch.uint8))
    path = tmp_path_factory.mktemp("export") / "encoder.pth"
    save_encoder(path, encoder)
    return path


@pytest.fixture(scope="module")
def exported(weights):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    result = export_style.main(["--weights", str(weights), "--output", str(weights.parent / "onnx")])
    return weights.parent / "onnx", result


def session(folder):
    import onnxruntime

    return onnxruntime.InferenceSession(folder / "style_encoder.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_onnx_gives_what_torch_gives(weights, exported, batch):
    encoder, _ = load_encoder(weights, CPU)
    images = torch.randint(256, (batch, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        wanted = encoder(images)
    runs = session(exported[0])
    names = [output.name for output in runs.get_outputs()]
    assert names == ["style", "embed", "pooled", "mask_logits", "mask"]
    found = dict(zip(names, runs.run(None, {"image": images.numpy()})))
    for name in names:
        torch.testing.assert_close(torch.from_numpy(found[name]), getattr(wanted, name), rtol=1e-4, atol=1e-5)
    assert found["embed"].shape == (batch, 5, 12) and found["mask"].dtype == np.int64


def test_the_file_says_how_it_was_checked_and_nothing_of_this_machine(exported):
    folder, result = exported
    content = json.loads((folder / "preprocessing.json").read_text())
    assert content["differences"] == result["differences"] and set(content["differences"]) == set(content["outputs"])
    assert 0 < max(content["differences"].values()) < 1e-4
    written = (folder / "style_encoder.onnx").read_bytes()
    for place in (export_style.__file__, torch.__file__, str(folder)):
        assert place.rsplit("/", 1)[0].encode() not in written


@pytest.mark.parametrize("size", [(200, 130), (60, 90), (40, 40), (48, 48)])
def test_the_pages_example_needs_no_code_of_ours(weights, exported, size, tmp_path, monkeypatch):
    """docs/export.md: Pillow, the numbers of preprocessing.json and onnxruntime, to the very pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "style").symlink_to(exported[0])
    monkeypatch.chdir(tmp_path)
    example = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)[0]
    assert "style_encoder" not in example.replace("style_encoder.onnx", "")
    scope = {}
    exec(example, scope)

    encoder, _ = load_encoder(weights, CPU)
    wanted = read_image(tmp_path / "a.png", encoder)
    assert np.array_equal(scope["pixels"][0], wanted.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(scope["style"], encoder(wanted[None]).style.numpy(), atol=1e-5)
    settings = scope["settings"]
    assert settings["mean"] == [0.485, 0.456, 0.406] and settings["std"] == [0.229, 0.224, 0.225]


def test_a_file_that_differs_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("common.models.onnx_export.TOLERANCE", -1.0)
    path, module = tmp_path / "out" / "a.onnx", OutputTuple(torch.nn.Linear(4, 2), torch.exp)
    with pytest.raises(ValueError, match="not written, it would differ from PyTorch"):
        write_onnx(path, module, lambda batch: torch.ones(batch, 4), "rows", ["values"])
    assert not path.parent.exists()


def test_without_the_packages_one_line_says_what_to_install(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("common.models.onnx_export.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install -r requirements-export.txt"):
        export_style.main(["--weights", str(weights), "--output", str(tmp_path / "out")])


@pytest.mark.parametrize("name, size", [("test_efficientnet", 48), ("test_vit", 48), ("test_vit", None)])
def test_timm_opens_the_backbone(name, size, tmp_path):
    torch.manual_seed(1)
    encoder = VisionStyleEncoder(name, image_size=size, style_width=8).eval()
    save_encoder(tmp_path / "encoder.pth", encoder)
    export_style.main(
        ["--weights", str(tmp_path / "encoder.pth"), "--output", str(tmp_path / "timm"), "--format", "timm"]
    )
    assert sorted(path.name for path in (tmp_path / "timm").iterdir()) == ["config.json", "model.safetensors"]
    assert str(tmp_path) not in (tmp_path / "timm" / "config.json").read_text()
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    ours, size = encoder.tower.backbone, encoder.tower.image_size
    image = torch.rand(2, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():  # in one memory layout sums have one order
        assert torch.equal(theirs.to(memory_format=torch.channels_last)(image), ours(image))
    config = timm.data.resolve_model_data_config(theirs)
    assert config["input_size"] == (3, size, size) and config["crop_pct"] == 1.0
    assert torch.tensor(config["mean"]).equal(encoder.tower.mean.flatten())
