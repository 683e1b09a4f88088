"""The vision tower over kinds of backbones, and the encoder's heads."""

import pytest
import torch

from common.models.backbone import VisionTower
from model import StyleTrainingModel, VisionStyleEncoder

BACKBONES = {
    "vit_tiny_patch16_224": 32,
    "vit_small_patch14_reg4_dinov2": 28,  # four register tokens
    "swin_tiny_patch4_window7_224": 64,
    "convnext_atto": 64,
    "resnet18": 64,
    "efficientnet_lite0": 64,
    "vit_base_patch16_siglip_224": 32,  # no class token, attention pooling
}


def images(size, count=2):
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name, size", BACKBONES.items())
def test_towers_agree_with_timm(name, size):
    tower = VisionTower(name, image_size=size).eval()
    image = images(size)
    with torch.no_grad():
        features = tower(image)
        native = tower.backbone.forward_features((image / 255 - tower.mean) / tower.std)
        torch.testing.assert_close(features.pooled, tower.backbone.forward_head(native, pre_logits=True))
    rows, columns = features.grid
    assert features.patches.shape == (2, rows * columns, tower.patch_width)
    assert features.pooled.shape == (2, tower.pooled_width)
    assert [feature_map.shape[1] for feature_map in features.feature_maps] == tower.feature_map_widths
    if native.ndim == 3:  # prefix tokens are gone, patches keep their order
        torch.testing.assert_close(features.patches, native[:, native.shape[1] - rows * columns :])
    elif getattr(tower.backbone, "output_fmt", "NCHW") == "NHWC":
        torch.testing.assert_close(features.patches[:, columns], native[:, 1, 0])
    else:
        torch.testing.assert_close(features.patches[:, columns], native[:, :, 1, 0])


def test_uint8_and_unit_floats_are_the_same_image():
    tower = VisionTower("test_vit", image_size=32).eval()
    torch.testing.assert_close(tower(images(32)).pooled, tower(images(32) / 255).pooled)
    with pytest.raises(ValueError, match=r"image \(3, 32, 32\): expected \(B, 3, H, W\)"):
        tower(images(32)[0])


def test_frozen_tower_stands_still():
    tower = VisionTower("efficientnet_lite0", image_size=32)
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    tower.freeze(True)
    tower.train()
    features = tower(images(32))
    assert not features.pooled.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in tower.state_dict().items())  # BatchNorm too
    tower.freeze(False)
    assert tower(images(32)).pooled.requires_grad
    assert not torch.equal(before["backbone.bn1.running_mean"], tower.state_dict()["backbone.bn1.running_mean"])


@pytest.mark.parametrize("name, size", [("efficientnet_lite0", 32), ("test_vit", 32), ("convnext_atto", 64)])
def test_layers_below_frozen_maps_stand_still(name, size):
    torch.manual_seed(0)
    tower = VisionTower(name, image_size=size).eval()
    with torch.no_grad():
        before = tower(images(size)).feature_maps
        tower.freeze_maps(2)  # a model may be loaded under no_grad
    maps = tower.train()(images(size)).feature_maps  # BatchNorm's statistics change here
    assert [feature_map.requires_grad for feature_map in maps[:3]] == [False, False, True]
    sum(feature_map.square().mean() for feature_map in maps[2:]).backward()
    torch.optim.SGD([parameter for parameter in tower.parameters() if parameter.requires_grad], lr=1.0).step()
    with torch.no_grad():
        after = tower.eval()(images(size)).feature_maps
    assert [torch.equal(*pair) for pair in zip(before[:3], after[:3])] == [True, True, False]
    with pytest.raises(ValueError, match="FROZEN_MAPS 9: this backbone has"):
        tower.freeze_maps(9)


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        tower = VisionTower("test_vit", image_size=32, gradient_checkpointing=checkpointing)
        tower(images(32)).pooled.square().sum().backward()
        gradients.append(tower.backbone.patch_embed.proj.weight.grad)
    torch.testing.assert_close(*gradients)


def test_mistakes_name_the_remedy(tmp_path):
    with pytest.raises(
        ValueError, match="unknown timm model 'vit_tiny_patch16_223'; did you mean vit_tiny_patch16_224"
    ):
        VisionTower("vit_tiny_patch16_223")
    with pytest.raises(ValueError, match="cannot take 33-pixel images"):
        VisionTower("test_vit", image_size=33)
    with pytest.raises(FileNotFoundError, match="none.pth: no such file or folder of weights"):
        VisionTower("test_vit", pretrained=str(tmp_path / "none.pth"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth: not weights of test_vit"):
        VisionTower("test_vit", pretrained=str(tmp_path / "other.pth"))


def test_local_weights_are_loaded_exactly(tmp_path):
    import timm
    from safetensors.torch import save_file

    source = timm.create_model("test_vit", num_classes=10)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "a.pth")
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        tower = VisionTower("test_vit", pretrained=str(tmp_path / name))
        assert torch.equal(tower.backbone.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)


def encoder(**options):
    arguments = {"sequence_length": 7, "embed_width": 12, "pooled_width": 10, "predict_mask": True, "style_width": 16}
    return VisionStyleEncoder("test_vit", image_size=32, **(arguments | options))


@pytest.mark.parametrize("head", ["resampler", "linear"])
@pytest.mark.parametrize("length", [1, 4, 7, 90])
def test_output_shapes(head, length):
    output = encoder(sequence_head=head, sequence_length=length).eval()(images(32))
    assert output.embed.shape == (2, length, 12) and output.pooled.shape == (2, 10)
    assert output.mask.shape == (2, length) and output.mask.dtype == torch.int64 and (output.mask[:, 0] == 1).all()
    torch.testing.assert_close(output.style.norm(dim=1), torch.ones(2))


def test_mask_is_a_prefix():
    output = encoder().eval()(images(32))
    logits = torch.tensor([[3.0, -1, 2, -1, -1, -1, -1], [-1.0] * 7])
    assert output._replace(mask_logits=logits).mask.tolist() == [[1, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]


def test_absent_heads_give_none():
    output = encoder(sequence_length=0, embed_width=0, pooled_width=0, predict_mask=False).eval()(images(32))
    assert output.embed is output.pooled is output.mask is output.mask_logits is None


def test_build_makes_the_same_model_again():
    first = encoder(sequence_head="linear").eval()
    second = VisionStyleEncoder(**first.build).eval()
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(images(32)).style, second(images(32)).style, rtol=0, atol=0)
    with pytest.raises(ValueError, match="sequence_head 'lstm': expected one of resampler, linear"):
        encoder(sequence_head="lstm")


def test_two_steps_lower_the_loss_and_reach_every_weight():
    torch.manual_seed(0)
    weights = dict.fromkeys(("embed_mse", "embed_cosine", "pooled_mse", "pooled_cosine", "mask", "style"), 1.0)
    learner = StyleTrainingModel(encoder(), weights)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    everywhere = torch.ones(4, dtype=torch.bool)
    batch = {
        "image": images(32, 4),
        "style_ids": torch.tensor([0, 0, 1, 1]),
        "embed": torch.randn(4, 7, 12),
        "mask": torch.ones(4, 7, dtype=torch.int64),
        "pooled": torch.randn(4, 10),
        "has_embed": everywhere,
        "has_mask": everywhere,
        "has_pooled": everywhere,
    }
    losses = []
    for _ in range(3):
        loss, parts = learner(**batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2] and set(parts) == {*weights, "anchors_without_positives"}
    assert [name for name, p in learner.named_parameters() if p.grad is None or not p.grad.any()] == []
