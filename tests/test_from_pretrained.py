"""from_pretrained and save_pretrained of the three models that are not transformers' own."""

import pytest
import torch
from tiny import blip2, clip
from tiny.hub import same

from blip2_gated.checkpoint import save_full
from blip2_gated.model import Blip2OPTGated
from clip.model import CLIPModel
from model import VisionStyleEncoder


def style_encoder(folder):
    return VisionStyleEncoder("test_vit", image_size=32, style_width=16, embed_width=8, sequence_length=4)


def clip_model(folder):
    return CLIPModel(config=dict(clip.TINY_CLIP))


def gated(folder):
    """From a file that holds its BLIP-2, as a random one has no source."""
    arguments = {"efficientnet": {"name": "test_efficientnet", "pretrained": False}, "mapper": blip2.MAPPER}
    build = {"blip2": {}, "frozen_dtype": "auto", "labels": ["noto", "black_cats"], "spellings": ["Noto"]}
    build["model"] = arguments | {"gating": {"kind": "film", "per_head": False, "init_scale": 1.0}}
    save_full(folder / "best.pt", blip2.build()[0], build)
    return Blip2OPTGated.from_pretrained(folder / "best.pt")


@pytest.mark.parametrize("make", [style_encoder, clip_model, gated], ids=lambda make: make.__name__)
def test_a_folder_holds_the_whole_model(make, tmp_path):
    torch.manual_seed(0)
    model = make(tmp_path)
    model.train()
    model.save_pretrained(tmp_path / "folder")
    again = type(model).from_pretrained(tmp_path / "folder")
    assert not again.training and type(again) is type(model)
    assert same(dict(model.state_dict()), dict(again.state_dict()))
    again.save_pretrained(tmp_path / "twice")  # a loaded model can be saved in its turn
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "folder" / name).read_bytes()


def test_a_folder_of_another_kind_is_named(tmp_path):
    style_encoder(tmp_path).save_pretrained(tmp_path / "style")
    for model in (CLIPModel, Blip2OPTGated):
        with pytest.raises(
            ValueError, match=f"{tmp_path}/style: is a 'style encoder' checkpoint; a '.*' one is needed"
        ):
            model.from_pretrained(tmp_path / "style")
