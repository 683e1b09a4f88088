"""Files of backbone weights as other trainers and publishers save them, against the publishers' own networks."""

import json

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from common.models.backbone import VisionTower, create_backbone, write_timm_folder

# efficientnet_pytorch 0.7.1: EfficientNet.from_name("efficientnet-b0", image_size=64).eval() with the tensors of
# efficientnet_pytorch_b0() gave extract_features(image).mean((2, 3))[0, :5], and its norm.
PUBLISHED = [-0.040551185607910156, -0.2761196494102478, -0.1460360884666443, 0.8793915510177612, 0.07243505120277405]
PUBLISHED_NORM = 11.812034606933594
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
SQUEEZE = ("_se_reduce.weight", "_se_reduce.bias", "_se_expand.weight", "_se_expand.bias")


def efficientnet_pytorch_b0():
    """-> state_dict with that package's names, drawn in its order; image (1, 3, 64, 64)"""

    def normed(*names):
        return [n for conv, norm in names for n in (f"{conv}.weight", *(f"{norm}.{part}" for part in BATCH_NORM))]

    names = normed(("_conv_stem", "_bn0"))
    for number in range(16):
        block = normed(("_expand_conv", "_bn0")) if number else []
        block += [*normed(("_depthwise_conv", "_bn1")), *SQUEEZE, *normed(("_project_conv", "_bn2"))]
        names += [f"_blocks.{number}.{name}" for name in block]
    names += [*normed(("_conv_head", "_bn1")), "_fc.weight", "_fc.bias"]
    with torch.device("meta"):
        shapes = [
            v.shape for n, v in timm.create_model("tf_efficientnet_b0").state_dict().items() if "batches" not in n
        ]
    random, weights = np.random.RandomState(0), {}
    for name, shape in zip(names, shapes, strict=True):
        values = random.standard_normal(shape).astype("f")
        if len(shape) == 4:
            values /= np.sqrt(values[0].size)
        elif name.endswith("running_var"):
            values = values**2 + 0.5
        else:
            values = values / 4 + (name.endswith("weight") and len(shape) == 1)
        weights[name] = torch.from_numpy(values)
    return weights, torch.from_numpy(random.standard_normal((1, 3, 64, 64)).astype("f"))


@torch.no_grad()
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])  # safetensors sorts the names
def test_efficientnet_pytorch(tmp_path, suffix):
    weights, image = efficientnet_pytorch_b0()
    path = tmp_path / f"wikiart.{suffix}"
    if suffix == "pth":
        torch.save({"model_state_dict": {f"module.{name}": value for name, value in weights.items()}}, path)
    else:
        save_file(weights, path)
    features = create_backbone("tf_efficientnet_b0", str(path)).eval()(image)[0]
    torch.testing.assert_close(features[:5], torch.tensor(PUBLISHED), atol=1e-5, rtol=1e-5)
    assert features.norm().item() == pytest.approx(PUBLISHED_NORM, rel=1e-5)


@pytest.mark.parametrize(
    "name, remedy", [("efficientnet_b0", "tf_efficientnet_b0"), ("test_efficientnet", "tf_efficientnet_b0 to")]
)
def test_efficientnet_pytorch_needs_tensorflows_padding(tmp_path, name, remedy):
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "wikiart.pth")
    with pytest.raises(ValueError, match=f"wikiart.pth: weights of efficientnet_pytorch.* {remedy}.*, not {name}"):
        VisionTower(name, pretrained=str(tmp_path / "wikiart.pth"), image_size=32)


@torch.no_grad()
def test_dinov2(tmp_path):
    """Facebook's names: register_tokens apart from the position table, mask_token of pretraining."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 3}
    config = Dinov2WithRegistersConfig(**sizes, image_size=64, patch_size=16, num_register_tokens=2)
    torch.manual_seed(0)
    theirs = Dinov2WithRegistersModel(config).eval()
    for parameter in theirs.parameters():
        parameter.normal_(std=0.2)
    published = {
        "cls_token": theirs.embeddings.cls_token,
        "pos_embed": theirs.embeddings.position_embeddings,
        "register_tokens": theirs.embeddings.register_tokens,
        "mask_token": theirs.embeddings.mask_token,
    }
    modules = {"patch_embed.proj": theirs.embeddings.patch_embeddings.projection, "norm": theirs.layernorm}
    for number, layer in enumerate(theirs.encoder.layer):
        attention = layer.attention
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        published |= {
            f"blocks.{number}.ls1.gamma": layer.layer_scale1.lambda1,
            f"blocks.{number}.ls2.gamma": layer.layer_scale2.lambda1,
            f"blocks.{number}.attn.qkv.weight": torch.cat([part.weight for part in parts]),
            f"blocks.{number}.attn.qkv.bias": torch.cat([part.bias for part in parts]),
        }
        named = {"norm1": layer.norm1, "norm2": layer.norm2, "attn.proj": attention.o_proj}
        named |= {"mlp.fc1": layer.mlp.fc1, "mlp.fc2": layer.mlp.fc2}
        modules |= {f"blocks.{number}.{name}": module for name, module in named.items()}
    published |= {
        f"{name}.{part}": value for name, module in modules.items() for part, value in module.named_parameters()
    }
    torch.save(published, tmp_path / "dinov2_reg.pth")
    shape = {"depth": 2, "img_size": 64, "reg_tokens": 2, "no_embed_class": True, "init_values": 1e-5}
    ours = create_backbone("test_vit", str(tmp_path / "dinov2_reg.pth"), model_args=shape).eval()
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours.forward_features(image), theirs(image).last_hidden_state, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_torchvision(tmp_path, name):
    """Without the batch counters, as its files from before torch 0.4.1."""
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)().eval()
    torch.save({n: v for n, v in theirs.state_dict().items() if "batches" not in n}, tmp_path / "weights.pth")
    ours = create_backbone(name, str(tmp_path / "weights.pth")).eval()
    setattr(theirs, "fc" if name == "resnet18" else "classifier", torch.nn.Identity())
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(image), theirs(image), atol=1e-5, rtol=1e-5)


def prefixed(weights, *prefixes):
    for prefix in prefixes:
        weights = {f"{prefix}{name}": value for name, value in weights.items()}
    return weights


WRAPPED = {  # weights, others -> what a trainer saved
    "plain": lambda weights, others: weights,
    "model": lambda weights, others: {"model": weights, "epoch": 3},
    "tutorial": lambda weights, others: {"model_state_dict": weights, "optimizer_state_dict": {"state": {}}},
    "compiled": lambda weights, others: {"model": prefixed(weights, "_orig_mod.", "module.")},
    "parallel": lambda weights, others: prefixed(weights, "module.", "_orig_mod."),
    "Lightning": lambda weights, others: {"state_dict": prefixed(weights, "model.") | {"loss.weight": torch.ones(2)}},
    "OpenMMLab": lambda weights, others: {
        "meta": {"epoch": 1},
        "state_dict": prefixed(weights, "backbone.") | {"decode_head.conv_seg.bias": torch.ones(2)},
    },
    "nested": lambda weights, others: {"state_dict": prefixed(weights, "backbone.", "model.", "module.")},
    "timm": lambda weights, others: {"state_dict": others, "state_dict_ema": weights, "arch": "test_vit"},
    "ConvNeXt": lambda weights, others: {"model": others, "model_ema": weights},
    "DINO": lambda weights, others: {
        "student": prefixed(others, "backbone.", "module."),
        "teacher": prefixed(weights, "backbone.") | {"head.mlp.0.bias": torch.ones(2)},
    },
    "averaged": lambda weights, others: prefixed(weights, "module.") | {"n_averaged": torch.tensor(3)},
}


@pytest.mark.parametrize("trainer", WRAPPED)
def test_wrappers(tmp_path, trainer):
    weights, others = (timm.create_model("test_vit").state_dict() for _ in range(2))
    torch.save(WRAPPED[trainer](weights, others), tmp_path / "weights.pth")
    for name, value in create_backbone("test_vit", str(tmp_path / "weights.pth")).state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize("name", ["test_convnext", "efficientvit_m0", "levit_128s"])
def test_heads_of_every_build(tmp_path, name):
    """A classifier alone, below a norm of the features, and with a norm of its own."""
    weights = timm.create_model(name).state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    loaded = create_backbone(name, str(tmp_path / "weights.pth")).state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.items())


def test_position_tables_are_resampled_by_timm(tmp_path):
    torch.save(timm.create_model("test_vit", img_size=64).state_dict(), tmp_path / "weights.pth")
    assert create_backbone("test_vit", str(tmp_path / "weights.pth")).pos_embed.shape == (1, 101, 64)


def test_what_is_not_loaded(tmp_path):
    path = tmp_path / "weights.pth"
    weights = timm.create_model("test_vit").state_dict()
    for content, fault in [
        ({n: v for n, v in weights.items() if "blocks.3.mlp" not in n}, "blocks.3.mlp.fc1.weight is missing"),
        (weights | {"decoder.weight": torch.ones(2)}, "decoder.weight is unknown"),
        (torchvision.models.shufflenet_v2_x0_5().state_dict(), "not weights of test_vit"),
        (weights | {"input_resolution": torch.tensor(224)}, "OpenAI's CLIP, which needs QuickGELU"),
        (torch.ones(2), "no file of weights"),
        ({"encoder": 3}, "no file of weights"),
    ]:
        torch.save(content, path)
        with pytest.raises(ValueError, match=f"weights.pth: .*{fault}"):
            create_backbone("test_vit", str(path))


def test_a_config_beside_the_weights(tmp_path):
    """Its normalisation and size come with the weights; weights of another network are refused by its name."""
    write_timm_folder(tmp_path, timm.create_model("test_vit", img_size=48), 48, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    tower = VisionTower("test_vit", pretrained=str(tmp_path / "model.safetensors"))
    assert tower.image_size == 48 and tower.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "tf_efficientnet_b0"}))
    with pytest.raises(ValueError, match="model.safetensors: weights of tf_efficientnet_b0, .* not efficientnet_b0"):
        create_backbone("efficientnet_b0", str(tmp_path / "model.safetensors"))
