"""The model against the libraries it must agree with, and what it promises about freezing, files and towers."""

import math
import warnings

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny.clip import TEXTS, pictures, small
from transformers import CLIPConfig, CLIPImageProcessor, CLIPProcessor, CLIPTextConfig, CLIPVisionConfig
from transformers import CLIPModel as TransformersCLIP

from clip.checkpoint import load_clip, save_clip
from clip.huggingface import to_open_clip_names, to_transformers_names, write_huggingface
from clip.model import CLIPModel


@pytest.mark.parametrize(
    "name, millions, projections",
    [
        ("ViT-B/32", 151.277313, ((768, 512), (512, 512))),
        ("ViT-B/16", 149.620737, ((768, 512), (512, 512))),
        ("ViT-L/14", 427.616513, ((1024, 768), (768, 768))),
        ("RN50", 102.007137, (None, (512, 1024))),
        ("RN101", 119.688033, (None, (512, 512))),
    ],
)
def test_the_five_sizes(name, millions, projections):
    with torch.device("meta"):
        model = CLIPModel(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == round(millions * 1e6)
    assert model.image_size == 224
    if projections[0]:
        assert tuple(model.network.visual.proj.shape) == projections[0]
    assert tuple(model.network.text_projection.shape) == projections[1]


def test_the_temperature_starts_at_sixteen():
    model = small()
    assert math.isclose(model.scale.item(), 16, rel_tol=1e-6)
    assert math.isclose(model.logit_scale.item(), math.log(16), rel_tol=1e-6) and model.logit_scale.requires_grad
    sigmoid = small(sigmoid=True)
    assert math.isclose(sigmoid.scale.item(), 10, rel_tol=1e-6) and sigmoid.network.logit_bias.item() == -10


def test_short_texts_are_not_padded_and_give_open_clips_vectors():
    model = small()
    tokens = model.tokenize(TEXTS)
    full = open_clip.get_tokenizer("ViT-B-32")(TEXTS)
    assert tokens.shape[1] == int(full.argmax(1).max()) + 1 < 77
    with torch.no_grad():
        wanted = model.network.encode_text(full, normalize=True)
        torch.testing.assert_close(model.encode_text(tokens), wanted, rtol=0, atol=1e-6)
        torch.testing.assert_close(model.encode_text(TEXTS), wanted, rtol=0, atol=1e-6)
        longer = model.encode_text(TEXTS, normalize=False)
    assert not torch.allclose(longer.norm(dim=1), torch.ones(3))
    _, cut = model.tokenizer.encode(["word " * 100, "short"])
    assert cut == 1 and model.tokenize(["word " * 100]).shape == (1, 77)


def test_preprocessing_is_inside_and_is_open_clips():
    model = small()
    noise = torch.randint(256, (50, 80, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    image = Image.fromarray(noise.numpy()).resize((320, 200), Image.Resampling.BICUBIC)
    theirs = open_clip.image_transform(
        32, is_train=False, mean=tuple(model.config["mean"]), std=tuple(model.config["std"])
    )
    ours = model.normalise(model.preprocess(image)[None])[0]
    torch.testing.assert_close(ours, theirs(image), rtol=0, atol=1e-5)
    unit = model.preprocess(image)[None] / 255
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(unit), model.encode_image(model.preprocess(image)[None]))
    assert CLIPModel("small", normalisation="imagenet").config["mean"] == pytest.approx([0.485, 0.456, 0.406])
    with pytest.raises(ValueError, match=r"expected \(B, 3, 32, 32\)"):
        model.encode_image(pictures(48))


def transformers_clip(act="quick_gelu", eos=19):
    torch.manual_seed(3)
    text = CLIPTextConfig(
        vocab_size=20,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=9,
        hidden_act=act,
        bos_token_id=18,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        hidden_act=act,
        layer_norm_eps=1e-6,
    )
    model = TransformersCLIP(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    for parameter in model.parameters():  # the library's own start leaves much near zero
        torch.nn.init.normal_(parameter, std=0.2)
    torch.nn.init.constant_(model.logit_scale, 2.0)
    return model


@pytest.mark.parametrize("act, eos", [("quick_gelu", 19), ("gelu", 7), ("quick_gelu", 2)])
def test_a_transformers_folder_gives_its_logits(tmp_path, act, eos):
    theirs = transformers_clip(act, eos)
    theirs.save_pretrained(tmp_path)
    CLIPImageProcessor(image_mean=[0.4] * 3, image_std=[0.3] * 3).save_pretrained(tmp_path)
    ours, _ = load_clip(tmp_path)
    assert list(ours.config["mean"]) == [0.4] * 3
    tokens = torch.randint(3, 7, (4, 9), generator=torch.Generator().manual_seed(4))
    end = 19 if eos == 2 else eos
    tokens[:, 5] = end
    with torch.no_grad():
        wanted = theirs(input_ids=tokens, pixel_values=ours.normalise(pictures())).logits_per_image
        logits, transposed = ours(pictures(), tokens)
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(transposed, wanted.T, rtol=0, atol=1e-5)


def test_our_folder_gives_our_logits_in_transformers(tmp_path):
    ours = small()
    write_huggingface(ours, tmp_path)
    theirs, processor = TransformersCLIP.from_pretrained(tmp_path).eval(), CLIPProcessor.from_pretrained(tmp_path)
    words = processor.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = theirs(**words, pixel_values=ours.normalise(pictures())).logits_per_image
        torch.testing.assert_close(found, ours(pictures(), ours.tokenize(TEXTS))[0], rtol=0, atol=1e-5)
        again = CLIPModel.from_pretrained(tmp_path)
        torch.testing.assert_close(again.encode_image(pictures()), ours.encode_image(pictures()))
    assert processor.image_processor.crop_size["height"] == 32


def test_the_key_map_is_whole_and_reversible():
    weights = small().network.state_dict()
    theirs = to_transformers_names(weights)
    assert set(theirs) == set(transformers_clip().state_dict()) - {
        name for name in transformers_clip().state_dict() if "position_ids" in name
    } | {name.replace(".1.", f".{n}.") for name in theirs if ".layers.1." in name for n in range(2, 6)}.intersection(
        theirs
    )
    back = to_open_clip_names(theirs)
    assert set(back) == set(weights) and all(torch.equal(back[name], weights[name]) for name in weights)
    with pytest.raises(ValueError, match="not a tensor of a plain CLIP"):
        to_open_clip_names({**theirs, "vision_model.something.weight": torch.zeros(1)})


def test_folders_are_refused_where_transformers_has_no_such_model(tmp_path):
    with pytest.raises(ValueError, match="vision transformer"):
        write_huggingface(CLIPModel("small", image_tower="test_vit", image_size=32), tmp_path)
    with pytest.raises(FileNotFoundError, match="no model here"):
        load_clip(tmp_path / "nothing.pth")


def test_a_file_rebuilds_its_model_alone(tmp_path):
    for number, model in enumerate((small(), small(sigmoid=True), small(normalisation="imagenet"))):
        path = tmp_path / f"{number}.pth"
        save_clip(path, model, epoch=3)
        again, content = load_clip(path)
        assert content["epoch"] == 3 and not again.training and again.config == model.config
        with torch.no_grad():
            assert torch.equal(again(pictures(), again.tokenize(TEXTS))[0], model(pictures(), model.tokenize(TEXTS))[0])
    checkpoint = torch.load(tmp_path / "0.pth", weights_only=True)
    plain = CLIPModel("small", image_size=32, projection_dim=24)
    plain.load_state_dict(checkpoint["model_state_dict"])
    assert torch.equal(plain.network.visual.proj, checkpoint["model_state_dict"]["network.visual.proj"])


@pytest.mark.parametrize("kind", ["ours", "open_clip", "ddp", "safetensors", "torchscript"])
def test_weights_of_many_origins(tmp_path, kind):
    model = small()
    weights, path = model.network.state_dict(), tmp_path / "weights.pt"
    if kind == "ours":
        save_clip(path, model)
    elif kind == "open_clip":
        torch.save({"epoch": 1, "state_dict": weights}, path)
    elif kind == "ddp":
        torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, path)
    elif kind == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file({name: value.contiguous() for name, value in weights.items()}, path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = (pictures() / 255, open_clip.get_tokenizer("ViT-B-32")(TEXTS))
            torch.jit.save(torch.jit.trace(model.network, inputs, check_trace=False), path)
    other = CLIPModel("small", pretrained=str(path), image_size=32, projection_dim=24).eval()
    with torch.no_grad():
        torch.testing.assert_close(other.encode_image(pictures()), model.encode_image(pictures()), atol=1e-3, rtol=0)


def test_another_image_size_resizes_positions_and_wrong_weights_are_named(tmp_path):
    torch.save(small().network.state_dict(), tmp_path / "w.pt")
    larger = CLIPModel("small", pretrained=str(tmp_path / "w.pt"), image_size=64, projection_dim=24)
    assert larger.network.visual.positional_embedding.shape[0] == 65
    with pytest.raises(ValueError, match="not weights of this model.*text_projection"):
        CLIPModel("small", pretrained=str(tmp_path / "w.pt"), image_size=32)
    with pytest.raises(ValueError, match="no such file, and no weights of that name for ViT-B/32.*openai"):
        CLIPModel("ViT-B/32", pretrained="opena")
    with pytest.raises(ValueError, match="unknown model 'ViT-B/23'; did you mean ViT-B/32"):
        CLIPModel("ViT-B/23")


class Built(Exception):
    """Raised in place of loading: the networks of these sizes are built without memory, on the meta device."""


@pytest.mark.parametrize(
    "tag, quick", [("openai", True), ("laion400m_e31", True), ("metaclip_400m", True), ("laion2b_s34b_b79k", False)]
)
def test_weights_bring_their_activation(monkeypatch, tmp_path, tag, quick):
    torch.save({"logit_scale": torch.zeros(())}, tmp_path / "weights.pt")
    monkeypatch.setattr("open_clip.download_pretrained", lambda config: str(tmp_path / "weights.pt"))

    def load(network, weights, source):
        raise Built(type(network.visual.transformer.resblocks[0].mlp.gelu).__name__)

    monkeypatch.setattr("clip.model.load_weights", load)
    with torch.device("meta"), pytest.raises(Built, match="QuickGELU" if quick else "^GELU"):
        CLIPModel("ViT-B-32", pretrained=tag)


def test_from_scratch_the_activation_is_openais_so_that_its_fine_tuned_weights_fit():
    with torch.device("meta"):
        model = CLIPModel("ViT-B/32")
    assert type(model.network.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


def test_load_checkpoint_takes_activation_and_statistics_with_the_weights(tmp_path):
    theirs = small(normalisation="imagenet")
    theirs.config["architecture"]["quick_gelu"] = True
    theirs = CLIPModel(config=theirs.config).eval()
    save_clip(tmp_path / "quick.pth", theirs)
    ours = small()
    ours.load_checkpoint(tmp_path / "quick.pth")
    with torch.no_grad():
        torch.testing.assert_close(ours(pictures(), TEXTS)[0], theirs(pictures(), TEXTS)[0])
    save_clip(tmp_path / "again.pth", ours)
    with torch.no_grad():
        again, _ = load_clip(tmp_path / "again.pth")
        torch.testing.assert_close(again(pictures(), TEXTS)[0], theirs(pictures(), TEXTS)[0])
