"""Export of CLIP: both towers as ONNX with a portable tokenizer and preprocessing; timm's tower."""

import json
import re

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT
from PIL import Image
from tiny.clip import TINY_CLIP
from tokenizers import Tokenizer
from transformers import CLIPModel as TransformersCLIP

from clip.checkpoint import load_clip, save_clip
from clip.model import CLIPModel
from tools import export_clip

TEXTS = ["a red house", "Two cats, asleep; under a tree!", "", "夕阳下的海 ☀", "word " * 100, "it's 3 o'clock"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = CLIPModel(config=json.loads(json.dumps({**TINY_CLIP, "sigmoid": True})))
    path = tmp_path_factory.mktemp("clip_export") / "clip.pth"
    save_clip(path, model)
    return path


@pytest.fixture(scope="module")
def exported(weights):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    return weights.parent / "onnx", export_clip.main(
        ["--weights", str(weights), "--output", str(weights.parent / "onnx")]
    )


def run(file, given, values):
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(["vectors"], {given: values})[0]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_images(weights, exported, batch):
    model, _ = load_clip(weights)
    images = torch.randint(256, (batch, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        wanted = model.encode_image(images)
    found = run(exported[0] / "image.onnx", "image", images.numpy())
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_texts_through_the_tokenizer_beside(weights, exported, count):
    model, _ = load_clip(weights)
    tokenizer = Tokenizer.from_file(str(exported[0] / "tokenizer.json"))
    tokens = np.array([one.ids for one in tokenizer.encode_batch(TEXTS[:count])], dtype=np.int64)
    ours = model.tokenize(TEXTS[:count]).numpy()
    assert tokens.shape == (count, 77) and np.array_equal(tokens[:, : ours.shape[1]], ours)
    assert not tokens[:, ours.shape[1] :].any()
    with torch.no_grad():
        wanted = model.encode_text(TEXTS[:count])
    found = run(exported[0] / "text.onnx", "tokens", tokens)
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(90, 61), (61, 90), (20, 33), (32, 32)])
def test_preprocessing_json_is_enough(weights, exported, size):
    """Pillow and the numbers of the file alone: the same pixels, the same logits."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    facts = json.loads((exported[0] / "preprocessing.json").read_text())
    side = facts["image"]["size"]
    width, height = (int(side * one / min(image.size)) for one in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    scaled = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
    mine = np.asarray(scaled).transpose(2, 0, 1)[None]
    model, _ = load_clip(weights)
    assert np.array_equal(mine[0], model.preprocess(image).numpy())
    tokenizer = Tokenizer.from_file(str(exported[0] / facts["text"]["tokenizer"]))
    tokens = np.array([one.ids for one in tokenizer.encode_batch(TEXTS[:2])], dtype=np.int64)
    image_vectors = run(exported[0] / "image.onnx", facts["image"]["name"], mine)
    text_vectors = run(exported[0] / "text.onnx", facts["text"]["name"], tokens)
    with torch.no_grad():
        wanted, _ = model(torch.tensor(mine), model.tokenize(TEXTS[:2]))
    logits = facts["scale"] * image_vectors @ text_vectors.T + facts["bias"]
    np.testing.assert_allclose(logits, wanted.numpy(), atol=1e-4)
    assert facts["bias"] == -10 and facts["differences"] == exported[1]["differences"]


def test_the_pages_example_of_texts(weights, exported, tmp_path, monkeypatch):
    import onnxruntime

    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "clip").symlink_to(exported[0])
    monkeypatch.chdir(tmp_path)
    scope = {"np": np, "onnxruntime": onnxruntime}  # of the example before
    exec(re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "export.md").read_text(), re.DOTALL)[1], scope)
    model, _ = load_clip(weights)
    with torch.no_grad():
        np.testing.assert_allclose(scope["texts"], model.encode_text(["a red house", "two birds"]).numpy(), atol=1e-5)


def test_a_text_tower_of_hugging_face(tmp_path):
    """Its padding is hidden, not read: a text alone and beside a longer one has one vector."""
    pytest.importorskip("onnxruntime")
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("红色的房子两只猫在树下睡觉"))]
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    BertModel(config).save_pretrained(folder)
    model = CLIPModel("small", image_size=32, text_tower=str(folder)).eval()
    save_clip(tmp_path / "clip.pth", model)
    export_clip.main(["--weights", str(tmp_path / "clip.pth"), "--output", str(tmp_path / "onnx")])
    texts = ["红色的房子", "两只猫在树下睡觉"]
    tokenizer = Tokenizer.from_file(str(tmp_path / "onnx" / "tokenizer.json"))
    tokens = np.array([one.ids for one in tokenizer.encode_batch(texts)], dtype=np.int64)
    found = run(tmp_path / "onnx" / "text.onnx", "tokens", tokens)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), model.encode_text(texts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tower", ["test_efficientnet", "test_vit"])
def test_timm_opens_the_image_tower(tower, tmp_path):
    torch.manual_seed(1)
    model = CLIPModel("small", image_tower=tower, image_size=64).eval()
    save_clip(tmp_path / "clip.pth", model)
    export_clip.main(["--weights", str(tmp_path / "clip.pth"), "--output", str(tmp_path / "timm"), "--format", "timm"])
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(theirs(image), model.network.visual.trunk(image))
    config = timm.data.resolve_model_data_config(theirs)
    assert config["input_size"] == (3, 64, 64) and list(config["mean"]) == pytest.approx(model.config["mean"])


def test_transformers_folder_and_what_has_no_such_form(weights, tiny_clip, tmp_path):
    export_clip.main(["--weights", str(tiny_clip), "--output", str(tmp_path / "hf"), "--format", "transformers"])
    one, other = TransformersCLIP.from_pretrained(tmp_path / "hf"), TransformersCLIP.from_pretrained(tiny_clip)
    for name, tensor in other.state_dict().items():
        assert torch.equal(one.state_dict()[name], tensor)
    with pytest.raises(ValueError, match="bias"):
        export_clip.main(["--weights", str(weights), "--output", str(tmp_path / "a"), "--format", "transformers"])
    with pytest.raises(ValueError, match="image tower is open_clip's, not timm's"):
        export_clip.main(["--weights", str(weights), "--output", str(tmp_path / "b"), "--format", "timm"])
