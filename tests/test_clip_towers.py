"""CLIP's towers: what is frozen, what learns how fast, timm's and Chinese ones."""

import pytest
import torch
from tiny.clip import TEXTS, pictures, small
from transformers import BertConfig, BertModel, BertTokenizerFast

from clip.checkpoint import load_clip, save_clip
from clip.model import CLIPModel
from clip.training_model import layer_scales, parameter_groups


def learning(model):
    return {name.removeprefix("network.") for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_frozen_backbone_leaves_the_projections():
    model = small()
    model.freeze_backbone()
    assert learning(model) == {"visual.proj", "text_projection", "logit_scale"}
    tower = CLIPModel("small", image_tower="resnet18", image_size=32)
    tower.freeze_backbone()
    assert learning(tower) == {"visual.head.proj.weight", "text_projection", "logit_scale"}
    resnet = CLIPModel("RN50", image_size=64)
    resnet.freeze_backbone()
    assert "visual.attnpool.c_proj.weight" in learning(resnet) and "visual.layer1.0.conv1.weight" not in learning(
        resnet
    )


def test_a_locked_image_tower_stands_still():
    model = CLIPModel("small", image_tower="resnet18", image_size=32)
    model.lock_image_tower()
    model.train()
    before = {name: value.clone() for name, value in model.network.visual.trunk.state_dict().items()}
    model.encode_image(pictures(32, 4)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.network.visual.trunk.state_dict().items())
    assert all(parameter.grad is None for parameter in model.network.visual.trunk.parameters())
    assert model.network.transformer.training and "visual.head.proj.weight" in learning(model)


def test_deeper_layers_learn_more_slowly():
    model = CLIPModel("small", image_size=32)
    scales = {name.removeprefix("network."): scale for name, scale in layer_scales(model, 0.5).items()}
    assert scales["visual.proj"] == scales["text_projection"] == scales["logit_scale"] == 1
    assert scales["visual.transformer.resblocks.5.ln_1.weight"] == 0.5 and scales["visual.conv1.weight"] == 0.5**7
    assert scales["transformer.resblocks.3.ln_1.weight"] == 0.5 and scales["token_embedding.weight"] == 0.5**5
    groups = parameter_groups(model, 0.1, 0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    network = model.network
    for spared in (network.logit_scale, network.visual.positional_embedding, network.visual.ln_pre.weight):
        assert decays[id(spared)] == 0
    assert decays[id(network.visual.conv1.weight)] == 0.1
    convolutions = layer_scales(CLIPModel("small", image_tower="efficientnet_lite0", image_size=32), 0.5)
    assert (
        convolutions["network.visual.trunk.conv_stem.weight"]
        < convolutions["network.visual.trunk.blocks.3.0.conv_pw.weight"]
        < 1
    )


def test_timm_tower_with_its_weights(tmp_path):
    import timm

    source = timm.create_model("test_vit", num_classes=10)
    torch.save(source.state_dict(), tmp_path / "tower.pth")
    model = CLIPModel("small", image_tower="test_vit", image_weights=str(tmp_path / "tower.pth"), image_size=64).eval()
    assert torch.equal(model.network.visual.trunk.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    assert model.config["mean"] == pytest.approx(source.default_cfg["mean"])
    assert model.encode_image(pictures(64)).shape == (3, 256)


@pytest.fixture
def chinese_encoder(tmp_path):
    folder = tmp_path / "bert"
    characters = sorted(set("红色的房子两只猫在树下睡觉夕阳海"))
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_chinese_text_tower(chinese_encoder, tmp_path):
    model = CLIPModel("small", image_size=32, text_tower=str(chinese_encoder)).eval()
    texts = ["红色的房子", "两只猫在树下睡觉"]
    tokens = model.tokenize(texts)
    assert tokens.shape == (2, 10) and tokens[0, -1] == 0 and (tokens[1] > 4).sum() == 8  # every character is known
    source = BertModel.from_pretrained(chinese_encoder)
    assert torch.equal(
        model.network.text.transformer.embeddings.word_embeddings.weight, source.embeddings.word_embeddings.weight
    )
    with torch.no_grad():
        alone = torch.cat([model.encode_text([text]) for text in texts])
        torch.testing.assert_close(model.encode_text(texts), alone, rtol=1e-4, atol=1e-5)  # padding changes nothing
    save_clip(tmp_path / "chinese.pth", model)
    for file in chinese_encoder.iterdir():
        file.unlink()  # the file needs nothing beside it
    again, _ = load_clip(tmp_path / "chinese.pth")
    with torch.no_grad():
        assert torch.equal(again.encode_text(texts), model.encode_text(texts))
    assert all(parameter.requires_grad for parameter in again.parameters())
    again.freeze_backbone()
    assert {name.split(".")[0] for name in learning(again)} == {"visual", "text", "logit_scale"}
    _, cut = again.tokenizer.encode(["猫" * 100, "猫"])
    assert cut == 1
    with pytest.raises(ValueError, match="--text_tower .*missing"):
        CLIPModel("small", text_tower=str(tmp_path / "missing"))


def test_gradient_checkpointing_changes_nothing():
    model = small()
    found = []
    for enable in (False, True):
        model.network.set_grad_checkpointing(enable)
        model.zero_grad()
        model(pictures(), model.tokenize(TEXTS))[0].sum().backward()
        found.append(model.network.visual.conv1.weight.grad.clone())
    torch.testing.assert_close(found[0], found[1])
