"""Encoders of images: what each kind of weights gives, against the network asked directly."""

import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from transformers import InternVLVisionConfig, InternVLVisionModel

from clip.checkpoint import save_clip
from clip.huggingface import write_huggingface
from clip.model import CLIPModel
from common.models.backbone import Tokens
from common.models.pooling import POOLINGS
from model import VisionStyleEncoder
from retrieval.encoders import open_encoder
from style_encoder import save_encoder
from vitp import extract_vit
from vitp.compose import build_model
from vitp.key_mapping import vit_from_transformers

LANGUAGE = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (3, 3, 56, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def small_vit(**more):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = InternVLVisionModel(InternVLVisionConfig(**sizes, image_size=56, patch_size=14, **more)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def normalised(pixels):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def write_vit(model, folder, form):
    """The same ViT in each form that it is kept in -> what to open."""
    if form == "hf":
        model.save_pretrained(folder)
        return folder
    norm = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "vit.json").write_text(json.dumps({"num_attention_heads": 4, **norm}))
    weights = vit_from_transformers(model.state_dict())  # as extract_vit.py writes it
    if form == "safetensors":
        save_file({name: value.contiguous() for name, value in weights.items()}, folder / "vit.safetensors")
    else:
        torch.save(weights, folder / "vit.pth")
    return folder / f"vit.{form}"


@pytest.mark.parametrize("form", ["hf", "pth", "safetensors"])
@pytest.mark.parametrize("layer", [-1, -2, -3])
def test_internvit_is_transformers_own(tmp_path, pixels, form, layer):
    model = small_vit()
    encoder = open_encoder(write_vit(model, tmp_path, form))
    with torch.no_grad():
        expected = model(normalised(pixels), output_hidden_states=True).hidden_states[layer]
        found = encoder.tokens(pixels, layer)
        torch.testing.assert_close(found.patches, expected[:, 1:])
        torch.testing.assert_close(found.cls, expected[:, 0])
        torch.testing.assert_close(
            encoder(pixels, layer=layer),
            F.normalize(expected[:, 1:].mean(1), dim=1),  # 'auto': it has no own vector
        )


def test_a_final_norm_belongs_to_the_last_layer(tmp_path, pixels):
    model = small_vit(use_mean_pooling=False)
    encoder = open_encoder(write_vit(model, tmp_path, "pth"))
    with torch.no_grad():
        torch.testing.assert_close(encoder.tokens(pixels).cls, model(normalised(pixels)).last_hidden_state[:, 0])


def test_internvit_at_another_size(tmp_path, pixels):
    model = small_vit()
    encoder = open_encoder(write_vit(model, tmp_path, "hf"), image_size=84)
    large = F.interpolate(pixels.float(), 84).to(torch.uint8)
    assert encoder.preprocess(Image.new("RGB", (300, 20))).shape == (3, 84, 84)
    with torch.no_grad():
        assert encoder.tokens(large).patches.shape == (3, 36, 64)
    with pytest.raises(ValueError, match="--image_size 80: .* takes a multiple of 14"):
        open_encoder(tmp_path, image_size=80)


def test_internvit_weights_that_do_not_fit(tmp_path):
    path = write_vit(small_vit(), tmp_path, "pth")
    weights = torch.load(path)
    missing = {name: value for name, value in weights.items() if ".ls1" not in name}
    torch.save(missing, path)
    with pytest.raises(ValueError, match="vit.pth: not weights of .*is missing"):
        open_encoder(path)
    torch.save(weights, path)
    (tmp_path / "vit.json").unlink()
    with pytest.raises(FileNotFoundError, match="vit.pth: no config.json next to it, .* > .*vit.json"):
        open_encoder(path)
    torch.save({"a.weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="vit.pth: a.weight: a tensor of no InternVL"):
        open_encoder(path)


def test_a_whole_model_is_taken_for_its_vit(tmp_path, pixels):
    """A folder of a training run, without extracting anything first; with a timm backbone too."""
    (tmp_path / "llm.json").write_text(json.dumps(LANGUAGE))
    (tmp_path / "vit.json").write_text(json.dumps(small_vit().config.to_dict()))
    for vision, size in ((str(tmp_path / "vit.json"), 56), ("test_vit", 160)):
        torch.manual_seed(0)
        model, _ = build_model(vision, str(tmp_path / "llm.json"))
        model.eval().save_pretrained(tmp_path / "run")
        encoder = open_encoder(tmp_path / "run")
        images = F.interpolate(pixels.float(), size).to(torch.uint8)
        with torch.no_grad():
            tower = model.model.vision_tower
            patches = tower(normalised(images)).last_hidden_state[:, 1:]
            torch.testing.assert_close(encoder(images), F.normalize(patches.mean(1), dim=1), atol=1e-5, rtol=1e-4)
            assert encoder(images, "cls", -2).shape == (3, 64)


def test_a_whole_model_with_a_convolutional_encoder(tmp_path, pixels):
    """BatchNorm's counters, whole numbers, come first in the file."""
    (tmp_path / "llm.json").write_text(json.dumps(LANGUAGE))
    model, _ = build_model("test_efficientnet", str(tmp_path / "llm.json"), 64)
    model.eval().save_pretrained(tmp_path / "run")
    images = F.interpolate(pixels.float(), 64).to(torch.uint8)
    extract_vit.main([str(tmp_path / "run"), str(tmp_path / "half.pth"), "--format", "timm", "--dtype", "bfloat16"])
    with torch.no_grad():
        expected = F.normalize(model.model.vision_tower(normalised(images)).last_hidden_state.flatten(2).mean(2), dim=1)
        torch.testing.assert_close(open_encoder(tmp_path / "run")(images), expected, atol=1e-5, rtol=1e-4)
    kinds = {name.rpartition(".")[2]: value.dtype for name, value in torch.load(tmp_path / "half.pth").items()}
    assert kinds["num_batches_tracked"] == torch.int64 and kinds["running_var"] == torch.bfloat16


def test_style_encoder(tmp_path, pixels):
    torch.manual_seed(0)
    style = VisionStyleEncoder("test_vit", image_size=32, style_width=16).eval()
    save_encoder(tmp_path / "style.pth", style)
    encoder = open_encoder(tmp_path / "style.pth")
    small = pixels[:, :, :32, :32]
    with torch.no_grad():
        torch.testing.assert_close(encoder(small), style(small).style)
        torch.testing.assert_close(encoder(small, "mean"), F.normalize(style.tower(small).patches.mean(1), dim=1))
    assert encoder.preprocess(Image.new("RGB", (300, 20))).shape == (3, 32, 32)
    with pytest.raises(ValueError, match="no text encoder"):
        encoder.encode_text(["a frog"])


@pytest.mark.parametrize("form", ["file", "hf"])
def test_clip(tmp_path, form):
    torch.manual_seed(0)
    model = CLIPModel("small", image_size=32).eval()
    if form == "hf":
        write_huggingface(model, tmp_path)
    else:
        save_clip(tmp_path / "clip.pth", model)
    encoder = open_encoder(tmp_path if form == "hf" else tmp_path / "clip.pth")
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    image = Image.effect_noise((90, 40), 80).convert("RGB")
    assert torch.equal(encoder.preprocess(image), model.preprocess(image))
    with torch.no_grad():
        own = model.encode_image(pixels)
        torch.testing.assert_close(encoder(pixels), own, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encoder.encode_text(["a frog"]), model.encode_text(["a frog"]), atol=1e-5, rtol=1e-5)
        # The projected class token is the own vector: tokens of the last layer are behind the final norm.
        projected = encoder(pixels, "cls") @ model.network.visual.proj
        assert F.cosine_similarity(projected, own).min() > 0.9999
        assert encoder(pixels, "gem", layer=-2).shape == (2, model.network.visual.proj.shape[0])


@pytest.mark.parametrize("name, cls", [("test_vit", True), ("test_efficientnet", False), ("test_convnext", False)])
def test_timm(name, cls, pixels):
    encoder = open_encoder(f"{name}:random", image_size=64 if "vit" in name else 0)
    images = F.interpolate(pixels.float(), encoder.image_size).to(torch.uint8)
    again = open_encoder(f"{name}:random", image_size=64 if "vit" in name else 0)
    with torch.no_grad():
        assert torch.equal(encoder(images), again(images))  # random weights are the same ones each time
        for pooling in POOLINGS:
            if "cls" in pooling and not cls:
                with pytest.raises(ValueError, match="no class token; choose mean or gem"):
                    encoder(images, pooling)
                continue
            for layer in (-1, -2):
                found = encoder(images, pooling, layer)
                torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
        with pytest.raises(ValueError, match="--layer -99: .*out of range"):
            encoder(images, "mean", -99)
        with pytest.raises(ValueError, match="--layer -2: "):
            encoder(images, "native", -2)


def test_timm_weights_of_a_file(tmp_path, pixels):
    import timm

    torch.manual_seed(5)
    backbone = timm.create_model("test_vit", num_classes=0).eval()
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    encoder = open_encoder(f"test_vit:{tmp_path / 'weights.pth'}")
    images = F.interpolate(pixels.float(), 160).to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(encoder.backbone(images / 255), backbone(images / 255))


def test_poolings_against_loops():
    patches, cls = torch.randn(2, 5, 4), torch.randn(2, 4)
    tokens = Tokens(patches, cls)
    for image in range(2):
        mean = sum(patches[image]) / 5
        torch.testing.assert_close(POOLINGS["mean"](tokens)[image], mean)
        gem = [(sum(max(float(v), 1e-6) ** 3 for v in patches[image, :, d]) / 5) ** (1 / 3) for d in range(4)]
        torch.testing.assert_close(POOLINGS["gem"](tokens)[image], torch.tensor(gem))
        both = torch.cat([cls[image] / cls[image].norm(), mean / mean.norm()])
        torch.testing.assert_close(POOLINGS["cls+mean"](tokens)[image], both)


def test_flip_is_blind_to_mirroring(tmp_path, pixels):
    encoder = open_encoder(write_vit(small_vit(), tmp_path, "pth"))
    with torch.no_grad():
        mirrored = encoder(pixels.flip(-1), flip=True)
        torch.testing.assert_close(encoder(pixels, flip=True), mirrored)
        assert (encoder(pixels) - encoder(pixels.flip(-1))).abs().max() > 1e-3


def test_what_is_no_encoder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/vit.pth: no such file or folder"):
        open_encoder("nowhere/vit.pth")
    with pytest.raises(ValueError, match="unknown timm model 'vit_tny_patch16_224'; did you mean vit_tiny_patch16_224"):
        open_encoder("vit_tny_patch16_224:random")
    with pytest.raises(ValueError, match="test_vit:: nothing after the colon"):
        open_encoder("test_vit:")
    with pytest.raises(FileNotFoundError, match="none.pth: no such file or folder of weights"):
        open_encoder("test_vit:none.pth")
    with pytest.raises(FileNotFoundError, match="config.json: no such file"):
        open_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="model_type 'llama'; expected clip, internvl_vision"):
        open_encoder(tmp_path)
    torch.save({"kind": "tokenizer"}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="weights of kind 'tokenizer' give no image vectors"):
        open_encoder(tmp_path / "other.pth")
    torch.save(torch.ones(2), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match="weights of kind 'Tensor' give no image vectors"):
        open_encoder(tmp_path / "tensor.pth")
