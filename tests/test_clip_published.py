"""Published weights of CLIP against open_clip: activation, preprocessing, tokens, architecture."""

import json
import warnings

import open_clip
import pytest
import torch
import torch.nn.functional as F
from conftest import flags
from PIL import Image
from tiny.clip import clip_flags, small
from tiny.open_clip_models import ARCHITECTURES, register

from clip import inference, train
from clip.architectures import canonical_name
from clip.checkpoint import load_clip, save_clip
from clip.heatmaps import heatmap
from clip.image_encoder import CLIPImageEncoder
from clip.initial_model import is_complete_model
from clip.model import CLIPModel
from clip.pretrained import choose_weights, load_weights, read_pretrained
from clip.published import file_record
from common.samples.layouts import create_sample_dataset
from retrieval import build_index
from retrieval.encoders import kind_of, open_encoder
from webpage.flags import ModelFlags

TEXTS = ["A red house, two cats!", "the tree", "two cats sleep under the tree in the garden in the garden " * 2]
IMAGE = Image.radial_gradient("L").resize((90, 60)).convert("RGB")


def theirs_of(name, tag="published"):
    """-> image vector, text vectors, network: by open_clip alone."""
    network, _, transform = open_clip.create_model_and_transforms(name, pretrained=tag)
    network.eval()
    with torch.no_grad():
        image = network.encode_image(transform(IMAGE)[None], normalize=True)
        return image, network.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True), network


@torch.no_grad()
def assert_equal(model, image, texts):
    torch.testing.assert_close(model.encode_image(model.preprocess(IMAGE)[None]), image, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.encode_text(TEXTS), texts, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_architectures_give_open_clips_vectors(kind, tmp_path, monkeypatch):
    name = register(kind, tmp_path / kind, monkeypatch)
    image, texts, network = theirs_of(name)
    model = CLIPModel.from_pretrained(name)  # the only published weights
    assert_equal(model, image, texts)
    assert model.encode_text(["a"]).shape == texts[:1].shape
    if network.logit_bias is not None:
        assert model.network.logit_bias == network.logit_bias
    vector = F.normalize(torch.randn(1, image.shape[1], generator=torch.Generator().manual_seed(1)), dim=1)
    heat = heatmap(model, model.preprocess(IMAGE)[None], vector)
    assert heat.ndim == 3 and torch.isfinite(heat).all() and heat.max() <= 1
    with torch.no_grad():
        means = CLIPImageEncoder(model)(model.preprocess(IMAGE)[None], "mean")  # of patches, for an index
    assert means.shape[0] == 1 and torch.isfinite(means).all()
    save_clip(tmp_path / "model.pth", model)
    monkeypatch.undo()  # a checkpoint needs neither open_clip's entry nor the tokenizer's folder
    again, _ = load_clip(tmp_path / "model.pth")
    assert_equal(again, image, texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", open_clip.list_models())
def test_every_architecture_is_open_clips(name, monkeypatch):
    """All modules, with activations and sizes, on no device; a CoCa has no decoder here."""
    architecture = open_clip.get_model_config(name)
    if "hf_model_name" in architecture["text_cfg"]:
        pytest.skip("its text tower is read from the Hub")
    length = architecture["text_cfg"].get("context_length", 77)
    monkeypatch.setattr("clip.model.tokenizer_config", lambda text: {"kind": "clip", "context_length": length})
    with torch.device("meta"):
        model = CLIPModel(name)
        quick_gelu = model.config["architecture"]["quick_gelu"]
        theirs = open_clip.create_model(name, device="meta", force_quick_gelu=quick_gelu)
    theirs.text_decoder = None
    assert repr(model.network.visual) == repr(theirs.visual)
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in model.network.state_dict().items()} == expected
    assert quick_gelu or not architecture.get("quick_gelu")


@pytest.mark.parametrize("name, tag", open_clip.list_pretrained())
def test_every_tag_brings_what_open_clips_table_says(name, tag, tmp_path, monkeypatch):
    torch.save({"logit_scale": torch.ones(())}, tmp_path / "weights.pt")
    monkeypatch.setattr("open_clip.download_pretrained", lambda config: str(tmp_path / "weights.pt"))
    table = open_clip.get_pretrained_cfg(name, tag)
    record = read_pretrained(canonical_name(name), tag).record
    trained_with = table.get("quick_gelu", False) or name == "roberta-ViT-B-32"  # the tag leaves it to its config
    assert record.quick_gelu == trained_with
    assert record.preprocessing["mean"] == list(table["mean"]) and record.preprocessing["std"] == list(table["std"])
    assert record.preprocessing["interpolation"] == table["interpolation"]
    assert record.preprocessing["resize_mode"] == table["resize_mode"]


@pytest.mark.parametrize("kind", ["vit-quickgelu", "siglip"])
def test_folders_and_files_of_open_clip(kind, tmp_path, monkeypatch):
    """As open_clip saves them for the Hub: open_clip_config.json, weights, tokenizer."""
    from open_clip.push_to_hf_hub import save_config_for_hf

    name = register(kind, tmp_path / kind, monkeypatch)
    image, texts, network = theirs_of(name)
    save_config_for_hf(network, tmp_path / kind / "open_clip_config.json", open_clip.get_model_config(name))
    (tmp_path / kind / "weights.pt").rename(tmp_path / kind / "open_clip_pytorch_model.bin")
    (tmp_path / kind / "config.json").unlink(missing_ok=True)
    monkeypatch.undo()
    file = tmp_path / kind / "open_clip_pytorch_model.bin"
    for source in (tmp_path / kind, file):
        assert_equal(CLIPModel.from_pretrained(source), image, texts)
        assert kind_of(source) == "clip"
    file.unlink()
    with pytest.raises(FileNotFoundError, match="without weights"):
        load_clip(tmp_path / kind)


def test_a_run_of_open_clips_training(tmp_path, monkeypatch, capsys):
    """logs/NAME/params.txt and logs/NAME/checkpoints/epoch_1.pt, as its training writes them."""
    name = register("vit-quickgelu", tmp_path / "published", monkeypatch)
    image, texts, network = theirs_of(name)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    weights = {f"module.{key}": value for key, value in network.state_dict().items()}
    content = {"epoch": 1, "name": "run", "state_dict": weights, "optimizer": {"state": {}, "param_groups": []}}
    file = tmp_path / "run" / "checkpoints" / "epoch_1.pt"
    torch.save(content, file)
    flags = {"model": name, "force_quick_gelu": False, "image_mean": [0.1, 0.2, 0.3], "image_std": None}
    flags |= {"pretrained": "", "image_interpolation": "bilinear", "image_resize_mode": None}
    (tmp_path / "run" / "params.txt").write_text("".join(f"{key}: {value}\n" for key, value in flags.items()))
    model = CLIPModel(name, str(file)).eval()
    assert model.config["mean"] == [0.1, 0.2, 0.3] and model.config["interpolation"] == "bilinear"
    assert model.config["architecture"]["quick_gelu"] and not capsys.readouterr().err
    assert torch.equal(model.encode_text(TEXTS), CLIPModel.from_pretrained(name).encode_text(TEXTS))
    (tmp_path / "run" / "params.txt").write_text("model: ViT-B-32\npretrained: openai\nforce_quick_gelu: False\n")
    assert file_record(file, {}) is None  # depends on the version of open_clip
    (tmp_path / "run" / "params.txt").write_text("model: ViT-B/32\npretrained: None\nforce_quick_gelu: True\n")
    assert file_record(file, {}).quick_gelu


@pytest.mark.parametrize("wrap", ["lightning", "compiled", "model", "nested", "openai"])
def test_wrappers_of_trainers(wrap, tmp_path, capsys):
    model = small()
    weights, path = model.network.state_dict(), tmp_path / "weights.ckpt"
    prefixes = {"lightning": "model.", "compiled": "_orig_mod.", "nested": "module._orig_mod.clip."}
    named = {prefixes.get(wrap, "") + name: value for name, value in weights.items()}
    constants = {name: torch.tensor(size) for name, size in (("input_resolution", 32), ("context_length", 77))}
    content = {
        "lightning": {"state_dict": named | {"criterion.weight": torch.ones(2)}, "global_step": 3},
        "compiled": named,
        "model": {"model": named, "epoch": 2},
        "nested": {"model_state_dict": named},
        "openai": {name: value.half() for name, value in named.items()} | constants,
    }
    torch.save(content[wrap], path)
    other = CLIPModel("small", str(path), image_size=32, projection_dim=24).eval()
    assert other.config["architecture"]["quick_gelu"] == (wrap == "openai")
    said = capsys.readouterr().err
    assert said.count("\n") == (wrap != "openai") and (wrap == "openai" or f"{path}: says nothing" in said)
    if wrap != "openai":
        assert torch.equal(other.encode_text(TEXTS), model.encode_text(TEXTS))


def test_files_that_are_not_one_clip(tmp_path):
    path = tmp_path / "weights.pt"
    weights = small().network.state_dict()
    torch.save({f"{part}.{name}": value for part in ("student", "teacher") for name, value in weights.items()}, path)
    with pytest.raises(ValueError, match=r"weights.pt: expected the weights of one CLIP.*student.*teacher"):
        CLIPModel("small", str(path))
    torch.save({"conv.weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="weights.pt: .*no logit_scale"):
        CLIPModel("small", str(path))
    torch.save(weights, path)
    with pytest.raises(ValueError, match=f"name its architecture, as in ViT-B-32:{path}"):
        kind_of(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match="is a TorchScript archive.*ViT-B/32:"):
        kind_of(path)


def test_an_unknown_file_is_taken_as_its_architecture_is_published(tmp_path, monkeypatch, capsys):
    name = register("siglip", tmp_path / "siglip", monkeypatch)
    image, texts, _ = theirs_of(name)
    assert_equal(CLIPModel.from_pretrained(f"{name}:{tmp_path / 'siglip' / 'weights.pt'}"), image, texts)
    assert "resize_mode squash" in capsys.readouterr().err
    assert read_pretrained("ViT-B/32", str(tmp_path / "siglip" / "weights.pt")).record.quick_gelu is False
    assert "(--model_name ViT-B-32-quickgelu: QuickGELU)" in capsys.readouterr().err
    assert read_pretrained("ViT-B-32-quickgelu", str(tmp_path / "siglip" / "weights.pt")).record.quick_gelu


def test_siglip_weights_train_with_either_loss(tmp_path, monkeypatch):
    name = register("siglip", tmp_path / "siglip", monkeypatch)
    assert CLIPModel(name, "published", sigmoid=False).network.logit_bias is None
    plain = small(sigmoid=True)
    weights = small().network.state_dict()
    load_weights(plain.network, weights, "weights.pt")
    assert plain.network.logit_bias == -10


def test_another_size_resamples_positions_as_open_clip_does(tmp_path, monkeypatch):
    name = register("siglip", tmp_path / "siglip", monkeypatch)
    network, _, transform = open_clip.create_model_and_transforms(name, pretrained="published", force_image_size=96)
    model = CLIPModel(name, "published", image_size=96).eval()
    with torch.no_grad():
        wanted = network.eval().encode_image(transform(IMAGE)[None], normalize=True)
        found = model.encode_image(model.preprocess(IMAGE)[None])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_settings_that_a_tower_does_not_have(tmp_path, monkeypatch):
    convnext, eva = (register(kind, tmp_path / kind, monkeypatch) for kind in ("convnext", "eva"))
    with pytest.raises(ValueError, match="--patch_dropout: test_convnext has no patches to drop"):
        CLIPModel(convnext, patch_dropout=0.5)
    with pytest.raises(ValueError, match="--image_size 100: must be a multiple of 16"):
        CLIPModel(eva, image_size=100)
    with pytest.raises(ValueError, match="--projection_dim: the image vectors of tiny-siglip are not projected"):
        CLIPModel(register("siglip", tmp_path / "siglip", monkeypatch), projection_dim=8)


def test_names_of_weights():
    assert choose_weights("auto", "ViT-B/32") == choose_weights("auto", "ViT-L/14@336px") == "openai"
    assert choose_weights("auto", "ViT-SO400M-14-SigLIP") == "webli" and choose_weights("auto", "convnext_tiny") is None
    with pytest.raises(ValueError, match="ViT-H-14 has several weights; choose laion2b_s32b_b79k"):
        choose_weights("auto", "ViT-H-14")
    with pytest.raises(ValueError, match="no weights are published for convnext_tiny"):
        load_clip("convnext_tiny")
    assert canonical_name("ViT-H/14") == "ViT-H-14" and canonical_name("ViT-B-16") == "ViT-B/16"
    assert kind_of("convnext_base:laion400m_s13b_b51k") == "clip" and kind_of("convnext_base:random") == "timm"
    assert is_complete_model("ViT-B-32:openai") and not is_complete_model(canonical_name("ViT-H/14"))
    assert kind_of("ViT-B/32") == kind_of("ViT-SO400M-14-SigLIP:webli") == "clip"


def test_images_are_searched_and_explained_without_training(tmp_path, monkeypatch):
    name = register("siglip", tmp_path / "siglip", monkeypatch)
    _, texts, _ = theirs_of(name)
    (tmp_path / "images").mkdir()
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / "images" / f"{number}.png")
    arguments = flags(data_root=tmp_path / "images", model=name, pretrained="published", output_dir=tmp_path / "out")
    result = inference.main([*arguments, "--query", TEXTS[1], "--device", "cpu"])
    model, _ = load_clip(name)
    images = torch.stack([model.preprocess(Image.open(path)) for path in sorted((tmp_path / "images").glob("*.png"))])
    with torch.no_grad():
        cosines = (model.encode_image(images) @ texts[1]).tolist()
    assert {match["image"]: match["score"] for match in result["queries"][0]["matches"]} == pytest.approx(
        {"0.png": cosines[0], "1.png": cosines[1]}, abs=1e-5
    )
    assert (tmp_path / "out" / "search.png").is_file()
    build_index.main(
        flags(index_dir=tmp_path / "index", image_dir=tmp_path / "images", vit_checkpoint=f"{name}:published")
    )
    assert build_index.main(flags(index_dir=tmp_path / "index"))["images"] == 2  # opens the weights by their name again
    ModelFlags(clip=f"{name}:published").check()
    with pytest.raises(FileNotFoundError, match=r"none.pt: no such file \(--clip\)"):
        ModelFlags(clip=f"{name}:none.pt").check()


def test_published_weights_train(tmp_path, monkeypatch):
    name = register("siglip", tmp_path / "siglip", monkeypatch)
    create_sample_dataset(tmp_path / "data", 8, layout="captions", size=40)
    arguments = clip_flags(tmp_path / "data", name, tmp_path)
    train.main([*arguments, "--loss", "siglip", "--num_epochs", "1", "--batch_size", "4", "--val_split", "0.25"])
    trained, content = load_clip(tmp_path / "model-checkpoint" / "best_model.pth")
    assert trained.config["mean"] == [0.5] * 3 and trained.config["resize_mode"] == "squash"
    assert content["settings"]["model_name"] == name


def test_an_index_of_published_weights(tmp_path, monkeypatch):
    name = register("siglip", tmp_path / "siglip", monkeypatch)
    image, texts, _ = theirs_of(name)
    encoder = open_encoder(f"{name}:published")
    with torch.no_grad():
        torch.testing.assert_close(encoder(encoder.preprocess(IMAGE)[None]), image, rtol=0, atol=1e-5)
        torch.testing.assert_close(encoder.encode_text(TEXTS), texts, rtol=0, atol=1e-5)


def test_a_transformers_folder_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ValueError, match="is of type siglip, not clip"):
        load_clip(tmp_path)
