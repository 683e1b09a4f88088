"""Patches and feature maps of timm's kinds of networks lie where the picture has them, or the network is refused."""

import pytest
import torch

from common.models.backbone import VisionTower, backbone_tokens, normalise

GRIDS = {  # with a class token, early or late, with registers, with neither; maps in both orders of axes
    "test_vit": 128,
    "vit_small_patch14_reg4_dinov2": 112,
    "test_vit4": 160,
    "test_mambaout": 160,
    "test_coatnet": 160,
    "swin_tiny_patch4_window7_224": 128,
    "test_convnext": 128,
    "test_resnet": 160,
    "efficientnet_lite0": 128,
    "convit_tiny": 224,
    "cait_xxs24_224": 224,
    "xcit_nano_12_p8_224": 64,
}
REFUSED = ("crossvit_tiny_240", "pit_ti_224", "coat_tiny", "volo_d1_224", "efficientvim_m1")
FAST = ("test_vit", "test_mambaout", "test_coatnet", "test_convnext", "test_resnet", "crossvit_tiny_240", "pit_ti_224")


def slow_unless_small(names):
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", slow_unless_small(GRIDS))
@torch.no_grad()
def test_what_changes_in_a_cell_changes_there_most(name):
    torch.manual_seed(0)
    tower = VisionTower(name, image_size=GRIDS[name]).eval()
    rows, columns = tower(torch.rand(1, 3, tower.image_size, tower.image_size)).grid
    before = torch.rand(8, 3, tower.image_size, tower.image_size)
    for row, column in ((0, columns - 1), (rows // 2, 1)):
        after, side = before.clone(), tower.image_size // rows
        after[..., row * side : (row + 1) * side, column * side : (column + 1) * side] = 0
        pairs = [(one.patches.mT.unflatten(2, one.grid), *one.feature_maps) for one in (tower(before), tower(after))]
        for old, new in zip(*pairs):
            changed = (new - old).abs().sum((0, 1))  # (h, w)
            place = divmod(int(changed.argmax()), changed.shape[1])
            centre = [(number + 0.5) * changed.shape[0] / rows for number in (row, column)]
            assert max(abs(found + 0.5 - wanted) for found, wanted in zip(place, centre)) <= changed.shape[0] / rows
    for layer in (-1, -2, 0):  # as retrieval reads them
        tokens = backbone_tokens(tower.backbone, normalise(before, tower.mean, tower.std), layer)
        assert round(tokens.patches.shape[1] ** 0.5) ** 2 == tokens.patches.shape[1]


@pytest.mark.parametrize("name", slow_unless_small(REFUSED))
def test_what_is_no_grid_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match=f"{name}: .*(gives|groups) .*choose another") as error:
        VisionTower(name)
    assert "\n" not in str(error.value)
