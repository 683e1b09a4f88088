"""Weights of unknown origin: NaN, build arguments that ask for anything, sizes that a file does not have."""

import copy
import io
import json
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from clip.checkpoint import load_clip, save_clip
from clip.model import CLIPModel
from common.models import checkpoint_file
from common.models.backbone import create_backbone, write_timm_folder
from common.models.checkpoint_file import check_finite, read_tensors
from common.models.model_folder import load_model, write_model_folder
from common.models.weight_files import read_weights
from model import VisionStyleEncoder
from style_encoder import load_encoder, save_encoder

CPU, NAN, BIG = torch.device("cpu"), float("nan"), 10**9


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    encoder = VisionStyleEncoder("test_vit.r160_in1k", image_size=32, style_width=8)
    path = tmp_path_factory.mktemp("saved") / "a.pth"
    save_encoder(path, encoder, settings={}, step=1)
    return torch.load(path)


def written(path, content, **build):
    torch.save({**content, "build": {**content["build"], **build}}, path)
    return path


@pytest.mark.parametrize("value", [NAN, float("inf"), float("-inf")])
def test_every_reader_names_the_tensor_that_is_not_finite(tmp_path, saved, value):
    content = copy.deepcopy(saved)
    weights, name = content["model_state_dict"], "style_head.layers.0.weight"
    name = name if name in weights else next(iter(weights))
    weights[name][(0,) * weights[name].ndim] = value
    message = f"{name} holds NaN or infinite values"
    with pytest.raises(ValueError, match=f"a.pth: {message}"):
        load_encoder(written(tmp_path / "a.pth", content), CPU)
    write_model_folder(tmp_path / "folder", content)
    with pytest.raises(ValueError, match=f"model.safetensors: {message}"):
        load_model(tmp_path / "folder", "style encoder")
    for file in (tmp_path / "folder" / "model.safetensors", tmp_path / "b.bin"):
        if file.suffix == ".bin":
            torch.save(weights, file)
        with pytest.raises(ValueError, match=f"{file.name}: {message}"):
            read_weights(file)
    index = {"weight_map": dict.fromkeys(weights, "shard.safetensors")}
    (tmp_path / "folder" / "model.safetensors").rename(tmp_path / "folder" / "shard.safetensors")
    (tmp_path / "folder" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / "folder")


def test_clip_and_timm_folders_with_nan(tmp_path):
    model = CLIPModel("small", image_size=32)
    save_clip(tmp_path / "clip.pth", model)
    load_clip(tmp_path / "clip.pth")
    with torch.no_grad():
        model.network.visual.conv1.weight[0, 0, 0, 0] = NAN
    save_clip(tmp_path / "clip.pth", model)
    with pytest.raises(ValueError, match="clip.pth: network.visual.conv1.weight holds NaN"):
        load_clip(tmp_path / "clip.pth")
    backbone = create_backbone("test_vit", image_size=32)
    backbone.cls_token.data[:] = NAN
    write_timm_folder(tmp_path, backbone, 32, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match="local-dir:.*cls_token holds NaN"):
        create_backbone(f"local-dir:{tmp_path}", pretrained=True)


def test_masks_may_hold_infinity_and_formats_of_a_byte_are_read():
    check_finite({"attn_mask": torch.full((2, 2), float("-inf")), "ids": torch.ones(3, dtype=torch.int64)}, "a")
    check_finite({"w": torch.ones(4).to(torch.float8_e4m3fn), "empty": torch.empty(0)}, "a")
    with pytest.raises(ValueError, match="w holds NaN"):
        check_finite({"w": torch.tensor([NAN]).to(torch.float8_e4m3fn)}, "a")


@pytest.mark.parametrize(
    "build, message",
    [
        ({"foo": 1}, "foo"),
        ({"pretrained": "/etc/passwd"}, "pretrained"),
        ({"embed_width": 10**12}, "embed_width"),
        ({"embed_width": BIG, "sequence_length": 4}, "make no model"),
        ({"pooled_width": 10**6}, "more than the .* weights of the file"),
        ({"style_width": "8"}, "style_width: expected"),
        ({"predict_mask": "false"}, "predict_mask: expected"),
        ({"image_size": 10**6}, "image_size' is beyond"),
        ({"dropout": NAN}, "dropout: expected a finite number"),
        ({"model_name": "tree"}, "unknown timm model"),
        ({"model_args": {"depth": BIG}}, "depth' is beyond"),
        ({"model_args": {"embed_dim": 10**6}}, "weights of the file|allocate"),
        ({"model_args": {"embed_dim": "x"}}, "make no model"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "checkpoint_path is not used"),
    ],
)
def test_build_arguments_of_a_file(tmp_path, saved, build, message):
    with pytest.raises(ValueError, match=f"a.pth: .*{message}") as error:
        load_encoder(written(tmp_path / "a.pth", saved, **build), CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, value", [("build", 3), ("kind", []), ("format", "1"), ("model_state_dict", {"a": 1}), ("preprocessing", 3)]
)
def test_other_content_of_a_file(tmp_path, saved, name, value):
    torch.save({**saved, name: value}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="a.pth: "):
        load_encoder(tmp_path / "a.pth", CPU)


def test_sizes_that_a_file_does_not_have(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_file, "SMALL", 2**10)
    torch.save({"a": torch.zeros(1).expand(10**7)}, tmp_path / "view.pt")
    with pytest.raises(ValueError, match="view.pt: its tensors take 40,000,000 bytes"):
        read_tensors(tmp_path / "view.pt")
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(10**6)}, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in archive.namelist():
            packed.writestr(member, archive.read(member))
    with pytest.raises(ValueError, match="b.pt: unpacks to 4,"):
        read_tensors(tmp_path / "b.pt")
    shared = torch.randn(2000)
    torch.save({"a": shared, "b": shared, "c": shared[::2]}, tmp_path / "tied.pt")
    assert torch.equal(read_tensors(tmp_path / "tied.pt")["b"], shared)


def test_shards_lie_in_the_folder_of_their_index(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "outside.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors")):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ValueError, match="index.json: lists .*expected names of files in its folder"):
            read_weights(folder)
