"""Heat maps against slow references written head by head from the papers, and on scenes whose answer is known."""

import copy

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny.heatmaps import TRANSFORMER, Slow, ask, scaled, tiny_clip

from clip.attention_maps import attend, finish_block, project, tokens_before
from clip.heatmaps import enlarge, heatmap, methods_of, overlay, side_by_side
from clip.model import CLIPModel
from common.images.contact_sheet import Cell, contact_sheet, font_for, wrap


@pytest.mark.parametrize("method", TRANSFORMER)
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_maps_are_those_of_the_papers(method, quick_gelu):
    vision = {"image_size": 16, "patch_size": 8, "layers": 3, "width": 12, "head_width": 6}
    model = tiny_clip(vision, quick_gelu=quick_gelu).double()
    image, text = ask(model, count=1, seed=2)
    found = heatmap(model, image, text.double(), method)[0]
    assert found.max() == 1
    with torch.no_grad():
        expected = scaled(getattr(Slow(model, image[0], text[0].double()), method)())
    torch.testing.assert_close(found.flatten().double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("patch, size", [(32, 224), (14, 56), (16, 80)])  # 7x7, 4x4, 5x5 patches
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_attention_computed_again_gives_the_same_vector(patch, size, quick_gelu):
    vision = {"image_size": size, "patch_size": patch, "layers": 2, "width": 32, "head_width": 16, "ls_init_value": 0.3}
    model = tiny_clip(vision, quick_gelu=quick_gelu)
    model.network.set_grad_checkpointing()
    image, text = ask(model, count=2)
    visual = model.network.visual
    with torch.no_grad():
        tokens = tokens_before(visual, model.normalise(image), 0)
        for block in visual.transformer.resblocks:
            attention = attend(block, tokens)
            tokens = finish_block(block, tokens, attention)
            torch.testing.assert_close(attention.weights.sum(-1), torch.ones_like(attention.weights[..., 0]))
        torch.testing.assert_close(project(visual, tokens[:, 0]), model.encode_image(image), atol=1e-5, rtol=0)
    for method in methods_of(model):
        assert heatmap(model, image, text, method).shape == (2, size // patch, size // patch)


TOWERS = {
    "vit": {"image_size": 48, "patch_size": 8, "layers": 3, "width": 16, "head_width": 8},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16},
    "timm_efficientnet": {
        "image_size": 64,
        "timm_model_name": "test_efficientnet",
        "timm_pool": "",
        "timm_proj": "linear",
    },
    "timm_channels_last": {
        "image_size": 64,
        "timm_model_name": "swin_tiny_patch4_window7_224",
        "timm_pool": "",
        "timm_proj": "linear",
    },
    "timm_vit": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
}


@pytest.fixture(scope="module", params=[name for name in TOWERS if name != "timm_channels_last"])
def tower(request):
    model = tiny_clip(TOWERS[request.param])
    for module in model.modules():  # a fresh BatchNorm would make dead maps of a ResNet's last layer
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def test_a_batch_is_its_images_one_by_one(tower):
    image, text = ask(tower, count=3)
    for method in methods_of(tower):
        together = heatmap(tower, image, text, method)
        alone = torch.cat([heatmap(tower, image[[one]], text[[one]], method) for one in range(3)])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
        assert together.amin() == 0 and together.amax() == 1
        other_text = heatmap(tower, image, text.roll(1, 0), method)
        assert not torch.allclose(together, other_text, atol=1e-3), f"{method} does not see the text"


def test_the_model_is_left_as_it_was(tower):
    model = copy.deepcopy(tower).requires_grad_(True).train()
    before = copy.deepcopy(model.state_dict())
    hooks = [len(module._forward_pre_hooks) for module in model.modules()]
    image, text = ask(model, count=2)
    for method in methods_of(model):
        with torch.inference_mode():
            found = heatmap(model, image, text, method)
        assert not found.requires_grad
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert hooks == [len(module._forward_pre_hooks) for module in model.modules()]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    torch.testing.assert_close(found, heatmap(tower, image, text, method))


def test_what_all_texts_share_is_taken_off():
    model = tiny_clip()
    image, text = ask(model)
    shared = text.mean(0)
    expected = heatmap(model, image, F.normalize(text - shared, dim=1), "legrad")
    assert torch.equal(heatmap(model, image, text, "legrad", shared), expected)


def test_convolution_maps_against_loops():
    model = tiny_clip(TOWERS["timm_efficientnet"])
    image, text = ask(model, count=1)
    visual = model.network.visual
    with torch.no_grad():
        features = visual.trunk.forward_features(model.normalise(image))[0]  # (C, rows, columns)
        places = features.flatten(1).T
        expected = torch.stack(
            [
                F.normalize(visual.head(visual.trunk.forward_head(place[None, :, None, None])), dim=1)[0] @ text[0]
                for place in places
            ]
        )
        torch.testing.assert_close(heatmap(model, image, text, "dense").flatten(), scaled(expected), atol=1e-5, rtol=0)

        def cosine(values):
            return F.normalize(visual.head(visual.trunk.forward_head(values[None])), dim=1)[0] @ text[0]

    values = features.clone().requires_grad_()
    gradient = torch.autograd.grad(cosine(values), values)[0]
    total = sum(gradient[c].mean() * features[c] for c in range(len(features))).clamp(min=0)
    torch.testing.assert_close(heatmap(model, image, text, "gradcam")[0], scaled(total), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore::UserWarning")  # timm's, on resampling position tables
def test_a_channels_last_tower():
    model = tiny_clip({**TOWERS["timm_channels_last"], "image_size": 96})
    image, text = ask(model, count=1)
    assert model.network.visual.trunk.output_fmt == "NHWC"
    for method in methods_of(model):
        assert heatmap(model, image, text, method).shape == (1, 3, 3)


def test_resnet_dense_map_against_loops():
    model = tiny_clip(TOWERS["resnet"])
    image, text = ask(model, count=1)
    visual, pool = model.network.visual, model.network.visual.attnpool
    with torch.no_grad():
        features = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(model.normalise(image))))))
        places = features[0].flatten(1).T
        values = pool.v_proj(torch.cat([places.mean(0, keepdim=True), places]) + pool.positional_embedding)
        size, gathered = values.shape[1] // pool.num_heads, []
        for head in values.split(size, dim=1):
            unit = head / head.norm(dim=1, keepdim=True)
            alike = torch.exp(8 * unit @ unit.T / size**0.5)
            gathered.append(alike / alike.sum(1, keepdim=True) @ head)
        vectors = F.normalize(pool.c_proj(torch.cat(gathered, dim=1))[1:], dim=1)
        found = heatmap(model, image, text, "dense").flatten()
        torch.testing.assert_close(found, scaled(vectors @ text[0]), atol=1e-5, rtol=0)


# ---- a model built by hand: red patches raise the first number of its vector, blue ones the second, grey ones nothing


def colour_clip(grid: int, patch: int) -> CLIPModel:
    vision = {
        "image_size": grid * patch,
        "patch_size": patch,
        "layers": 2,
        "width": 8,
        "head_width": 4,
        "no_ln_pre": True,
    }
    model = tiny_clip(vision)
    visual = model.network.visual
    model.mean.fill_(0.5)
    model.std.fill_(0.5)  # so that a grey patch is nothing, and another one its colour
    with torch.no_grad():
        for value in visual.parameters():
            value.zero_()
        for channel in range(3):
            visual.conv1.weight[channel, channel] = 1 / patch**2
        visual.class_embedding[3] = 1
        visual.ln_post.weight.fill_(1)
        for block in visual.transformer.resblocks:
            block.ln_1.weight.fill_(1)
            block.ln_2.weight.fill_(1)
        last = visual.transformer.resblocks[-1].attn  # the first block does nothing
        query, key, value = last.in_proj_weight.split(8)
        query[0, 3] = query[4, 3] = 1  # in both heads the class token asks for what is not green
        key[0, 1] = key[4, 1] = -1
        value[4, 0], value[4, 1] = 1, -1  # the second head carries how much more red than green there is, and blue
        value[5, 2], value[5, 1] = 1, -1
        last.out_proj.weight[6, 4] = last.out_proj.weight[7, 5] = 1
        visual.proj[6, 0] = visual.proj[7, 1] = visual.proj[3, 2] = 1
    return model


@pytest.mark.parametrize("method", TRANSFORMER)
@pytest.mark.parametrize("grid, patch", [(7, 4), (5, 14)])
def test_maps_peak_where_the_text_is_true(method, grid, patch):
    model = colour_clip(grid, patch)
    image = torch.full((6, 3, grid * patch, grid * patch), 128, dtype=torch.uint8)
    places = torch.stack(
        [torch.randperm(grid * grid, generator=torch.Generator().manual_seed(one))[:2] for one in range(6)]
    )
    for one, pair in enumerate(places):
        for colour, place in zip(((255, 0, 0), (0, 0, 255)), pair):
            row, column = (int(part) * patch for part in divmod(int(place), grid))
            image[one, :, row : row + patch, column : column + patch] = torch.tensor(colour)[:, None, None]
    for colour in (0, 1):
        text = F.one_hot(torch.full((6,), colour), 12).float()
        maps = heatmap(model, image, text, method)
        assert maps.flatten(1).argmax(1).tolist() == places[:, colour].tolist()
        assert enlarge(maps, grid * patch).flatten(1).argmax(1).tolist() != places[:, 1 - colour].tolist()


# ---- errors and pictures


def test_wrong_input_is_refused_by_name():
    model = tiny_clip()
    image, text = ask(model)
    with pytest.raises(ValueError, match="'gradcam': this image tower has .*legrad"):
        heatmap(model, image, text, "gradcam")
    with pytest.raises(ValueError, match=r"expected \(B, 3, 24, 24\)"):
        heatmap(model, image[..., :16], text)
    with pytest.raises(ValueError, match="text vectors"):
        heatmap(model, image, text[:1])
    pooled = tiny_clip(
        {"image_size": 24, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8, "pool_type": "avg"}
    )
    with pytest.raises(ValueError, match="'chefer': this image tower has gradcam"):  # it needs a class token
        heatmap(pooled, image, text, "chefer")


def test_overlay_is_hot_where_the_map_is():
    heat = torch.zeros(3, 3)
    heat[0, 2] = 1
    grey = Image.new("RGB", (90, 90), (128, 128, 128))
    picture = overlay(grey, heat, 90).convert("L")
    assert picture.getpixel((80, 10)) > picture.getpixel((10, 80)) + 50
    assert enlarge(heat[None], 90).amin() >= 0 and enlarge(heat[None], 90).amax() <= 1


def test_texts_are_wrapped_and_nothing_is_lost():
    text = "a very long text " * 9 + "https://example.org/" + "x" * 80 + " 一只红色的小鸟站在绿色的树上" * 4
    lines = wrap(text, 300)
    assert len(lines) > 5 and max(font_for(text).getlength(line) for line in lines) <= 300
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert wrap("", 300) == [""] and wrap("one", 300) == ["one"]
    assert len(wrap("x " * 500_000, 300, 12)) == 12  # no longer than what is shown takes


def test_pictures_of_any_shape_and_writing():
    image = Image.new("RGB", (50, 200), "green")
    for text in ("a cat", "猫" * 60, "\u0645\u0631\u062d\u0628\u0627 🙂", ""):
        sheet = side_by_side(image, torch.rand(7, 7), text, "cosine 0.3")
        assert sheet.width > sheet.height > 320
    cells = [Cell([image, image], "a text of three lines or more " * 5, "0.5")] * 5
    sheet = contact_sheet({"a heading that is long " * 9: cells, "": cells[:1]}, columns=4, side=80)
    assert sheet.width == 4 * 92 + 12 and sheet.height > 3 * 2 * 80
