"""Files of InternViT as ViTP's authors publish them: an encoder alone, and detectors and segmenters trained from it."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny.vitp import TEXT, internvl_folder, tiny_model
from transformers import Qwen2Config

from retrieval.encoders import open_encoder
from vitp.compose import build_model
from vitp.extract_vit import main as extract_vit
from vitp.key_mapping import vit_from_transformers
from vitp.vision_encoder import load_vit, read_vit

# zcablii/ViTP at 834d3d3, mmseg/models/backbones/intern_vit.py: InternViT(img_size=64, patch_size=16, embed_dim=64,
# depth=2, num_heads=2, mlp_ratio=2, qk_normalization=False, ...).eval() with the tensors of downstream(), as
# InternViTAdapter calls it (embeddings.forward_adapter, then the layers): first and last patch, and the norm of all.
PUBLISHED = [-1.8868416547775269, -4.144502639770508, 0.2195255011320114, 0.6896585822105408, 0.774485170841217]
PUBLISHED_LAST = [-0.9676113724708557, -1.6093231439590454, 0.878054141998291]
PUBLISHED_NORM = 112.20223236083984
BLOCK = {
    "attn.proj.bias": (64,),
    "attn.proj.weight": (64, 64),
    "attn.qkv.bias": (192,),
    "attn.qkv.weight": (192, 64),
    "ls1": (64,),
    "ls2": (64,),
    "mlp.fc1.bias": (128,),
    "mlp.fc1.weight": (128, 64),
    "mlp.fc2.bias": (64,),
    "mlp.fc2.weight": (64, 128),
    "norm1.bias": (64,),
    "norm1.weight": (64,),
    "norm2.bias": (64,),
    "norm2.weight": (64,),
}


def downstream():
    """-> state_dict of a segmenter: the ViT without class token, its adapter, a head; an image (1, 3, 64, 64)"""
    shapes = {
        "embeddings.patch_embedding.bias": (64,),
        "embeddings.patch_embedding.weight": (64, 3, 16, 16),
        "embeddings.position_embedding": (1, 17, 64),
        **{f"layers.{number}.{name}": shape for number in range(2) for name, shape in BLOCK.items()},
    }
    random, weights = np.random.RandomState(0), {}
    for name, shape in shapes.items():
        is_matrix = name.endswith("weight") and len(shape) > 1
        values = random.standard_normal(shape).astype("f") / (8 if is_matrix else 4)
        weights[f"backbone.{name}"] = torch.from_numpy(values + (name.endswith("weight") and not is_matrix))
    others = ("backbone.level_embed", "backbone.spm.fc2.bias", "backbone.norm2.weight", "decode_head.conv_seg.bias")
    return weights | {name: torch.ones(3) for name in others}, torch.from_numpy(
        random.standard_normal((1, 3, 64, 64)).astype("f")
    )


@torch.no_grad()
def test_downstream_model(tmp_path, capsys):
    weights, image = downstream()
    path = tmp_path / "vitp_isaid_upernet.pth"
    torch.save({"meta": {"epoch": 12}, "state_dict": weights, "optimizer": {}}, path)
    path.with_suffix(".json").write_text('{"num_attention_heads": 2}')
    model, vit = load_vit(path)
    assert "without a class token; the 4 tensors of its adapter, neck and heads are not used" in capsys.readouterr().err
    patches = model(image, do_pooling=False).last_hidden_state[0]
    torch.testing.assert_close(patches[0, :5], torch.tensor(PUBLISHED), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(patches[-1, :3], torch.tensor(PUBLISHED_LAST), atol=1e-5, rtol=1e-5)
    assert patches.norm().item() == pytest.approx(PUBLISHED_NORM, rel=1e-5) and vit.config.patch_size == [16, 16]

    encoder = open_encoder(path)
    tokens = encoder.tokens((image * encoder.std + encoder.mean).clamp(0, 1) * 255)
    assert tokens.patches.shape == (1, 16, 64) and tokens.cls is None
    Qwen2Config(**TEXT).save_pretrained(tmp_path / "llm")
    composed, _ = build_model(str(path), str(tmp_path / "llm"))
    assert torch.equal(composed.eval().model.vision_tower(image, do_pooling=False).last_hidden_state[0], patches)
    extract_vit([str(path), str(tmp_path / "vit")])
    assert torch.equal(load_vit(tmp_path / "vit")[0](image, do_pooling=False).last_hidden_state[0], patches)


def test_a_lone_file_for_training_and_search(tmp_path, capsys):
    """Heads by the width of the published ones; of any other they are asked for, with the command."""
    weights = {
        "embeddings.class_embedding": torch.zeros(1, 1, 1024),
        "embeddings.position_embedding": torch.zeros(1, 5, 1024),
        "embeddings.patch_embedding.weight": torch.zeros(1024, 3, 2, 2),
        "embeddings.patch_embedding.bias": torch.zeros(1024),
    }
    for name, (rows, *columns) in BLOCK.items():
        weights[f"encoder.layers.0.{name}"] = torch.zeros(rows * 16, *(16 * size for size in columns))
    save_file(weights, tmp_path / "ViTP_ViT_L_300M_rs.safetensors")
    assert read_vit(tmp_path / "ViTP_ViT_L_300M_rs.safetensors").config.num_attention_heads == 16
    assert "16 heads, as every published InternViT of its width" in capsys.readouterr().err

    tower = tiny_model().model.vision_tower
    path = tmp_path / "mine.safetensors"
    save_file({name: value.contiguous() for name, value in vit_from_transformers(tower.state_dict()).items()}, path)
    Qwen2Config(**TEXT).save_pretrained(tmp_path / "llm")
    for use in (open_encoder, lambda file: build_model(str(file), str(tmp_path / "llm"))):
        path.with_suffix(".json").unlink(missing_ok=True)
        with pytest.raises(FileNotFoundError, match="mine.safetensors: .* 32 wide.*heads.*: echo '{.*}' > .*mine.json"):
            use(path)
        path.with_suffix(".json").write_text('{"num_attention_heads": 4}')
        use(path)
    found = build_model(str(path), str(tmp_path / "llm"))[0].model.vision_tower.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in tower.state_dict().items())
    with pytest.raises(FileNotFoundError, match="none.safetensors: no such file"):
        build_model(str(tmp_path / "none.safetensors"), str(tmp_path / "llm"))


def test_files_of_other_networks_say_what_reads_them(tmp_path):
    for name, words in {
        "visual.conv1.weight": "a tensor of CLIP",
        "visual.trunk.pos_embed": "a tensor of CLIP",
        "blocks.0.attn.qkv.weight": "timm",
    }.items():
        save_file({name: torch.ones(2)}, tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match=f"other.safetensors: {name}: .*{words}"):
            read_vit(tmp_path / "other.safetensors")


def test_wrapped_whole_models(tmp_path):
    """InternVL's own layout as DeepSpeed and torch.compile leave it."""
    weights = internvl_folder(tmp_path / "own")
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"module": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "states.pt")
    found, own = read_vit(tmp_path / "states.pt"), read_vit(tmp_path / "own")
    assert all(torch.equal(value, found.weights[name]) for name, value in own.weights.items())
