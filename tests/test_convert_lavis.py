"""tools/convert_lavis.py against numbers of LAVIS's own code."""

import pytest
import torch
from tiny.blip2 import CONFIG, TEXTS
from transformers import Blip2Config, Blip2ForConditionalGeneration

from blip2_gated.backbone import END, PAD, read_blip2
from common.models.tokenizer import train_tokenizer
from tools.convert_lavis import main

BLOCK = {
    "norm1.weight": (32,),
    "norm1.bias": (32,),
    "attn.q_bias": (32,),
    "attn.v_bias": (32,),
    "attn.qkv.weight": (96, 32),
    "attn.proj.weight": (32, 32),
    "attn.proj.bias": (32,),
    "norm2.weight": (32,),
    "norm2.bias": (32,),
    "mlp.fc1.weight": (64, 32),
    "mlp.fc1.bias": (64,),
    "mlp.fc2.weight": (32, 64),
    "mlp.fc2.bias": (32,),
}
OTHERS = {
    "query_tokens": (1, 5, 48),
    "visual_encoder.cls_token": (1, 1, 32),
    "visual_encoder.pos_embed": (1, 17, 32),
    "visual_encoder.patch_embed.proj.weight": (32, 3, 8, 8),
    "visual_encoder.patch_embed.proj.bias": (32,),
    "ln_vision.weight": (32,),
    "ln_vision.bias": (32,),
    "Qformer.bert.embeddings.LayerNorm.weight": (48,),
    "Qformer.bert.embeddings.LayerNorm.bias": (48,),
    "opt_proj.weight": (64, 48),
    "opt_proj.bias": (64,),
}
# Of LAVIS's eva_vit.py and Qformer.py (commit 506965b) in float64, with lavis_weights: first projected queries.
PROJECTED = [[0.59871, -0.086369, -4.268217, 0.211717], [0.600201, -0.08516, -4.27096, 0.21342]]


def lavis_weights() -> dict[str, torch.Tensor]:
    """Names and shapes of LAVIS's Blip2OPT without OPT, at the widths of tiny.blip2; seeded values, sorted by name."""
    shapes = {f"visual_encoder.blocks.{block}.{name}": shape for block in (0, 1) for name, shape in BLOCK.items()}
    for layer in range(4):
        prefix = f"Qformer.bert.encoder.layer.{layer}"
        for kind, width in [("attention", 48)] + ([("crossattention", 32)] if layer % 2 == 0 else []):
            for name, inputs in (("query", 48), ("key", width), ("value", width)):
                shapes |= _linear(f"{prefix}.{kind}.self.{name}", 48, inputs)
            shapes |= _linear(f"{prefix}.{kind}.output.dense", 48, 48)
            shapes |= {f"{prefix}.{kind}.output.LayerNorm.{name}": (48,) for name in ("weight", "bias")}
        shapes |= _linear(f"{prefix}.intermediate_query.dense", 96, 48)
        shapes |= _linear(f"{prefix}.output_query.dense", 48, 96)
        shapes |= {f"{prefix}.output_query.LayerNorm.{name}": (48,) for name in ("weight", "bias")}
    generator, weights = torch.Generator().manual_seed(0), {}
    for name, shape in sorted((shapes | OTHERS).items()):
        is_scale = name.endswith("weight") and ("orm" in name or name.startswith("ln_"))
        weights[name] = torch.randn(shape, generator=generator) * 0.3 + is_scale
    return weights


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder as revisions before transformers 4.46: no image token anywhere."""
    folder, tokenizer = tmp_path_factory.mktemp("base"), train_tokenizer(TEXTS, 600, PAD, END, END)
    config = Blip2Config(**CONFIG)
    config.vision_config.layer_norm_eps = 1e-6
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_the_converted_model_has_the_outputs_of_lavis(base, tmp_path):
    torch.save(
        {"model": lavis_weights() | {"Qformer.bert.embeddings.position_ids": torch.arange(512)}}, tmp_path / "b.pth"
    )
    folder = main([str(tmp_path / "b.pth"), "--base", str(base), "--output_dir", str(tmp_path / "out")])
    model, tokenizer = read_blip2(str(folder))
    assert tokenizer.get_vocab()["<image>"] == model.config.image_token_index
    # LAVIS's last norm has 1e-5 where its blocks have 1e-6; a config of transformers holds one number for both.
    model.vision_model.post_layernorm.eps = 1e-5
    model.double()  # these weights amplify rounding
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    patches = model.vision_model(image)
    queries = model.qformer(query_embeds=model.query_tokens, encoder_hidden_states=patches.last_hidden_state)
    projected = model.language_projection(queries.last_hidden_state)[0, :2, :4]
    torch.testing.assert_close(projected, torch.tensor(PROJECTED).double(), atol=1e-5, rtol=0)


def test_a_frozen_tower_is_that_of_the_base(base, tmp_path):
    weights = {name: tensor for name, tensor in lavis_weights().items() if not name.startswith("visual_encoder.")}
    torch.save({"model": weights}, tmp_path / "b.pth")
    main([str(tmp_path / "b.pth"), "--base", str(base), "--output_dir", str(tmp_path / "out")])
    model, old = read_blip2(str(tmp_path / "out"))[0], read_blip2(str(base))[0]
    assert torch.equal(model.query_tokens, weights["query_tokens"])
    for part in ("vision_model.encoder", "language_model"):
        for new, former in zip(model.get_submodule(part).parameters(), old.get_submodule(part).parameters()):
            assert torch.equal(new, former)


def _without(*prefixes):
    return lambda weights: {name: value for name, value in weights.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize(
    "edit, words",
    [
        (_without("Qformer.bert.encoder.layer.3"), "qformer.encoder.layer.3.*missing"),
        (_without("query_tokens"), "query_tokens.*missing"),
        (_without("visual_encoder.blocks.1"), "vision_model.encoder.layers.1.*missing"),
        (lambda weights: _without("opt_proj")(weights) | {"t5_proj.weight": torch.ones(2)}, "t5_proj.*no place"),
        (lambda weights: weights | {"visual_encoder.pos_embed": torch.ones(1, 26, 32)}, "position_embedding.*--base"),
    ],
)
def test_incomplete_and_other_checkpoints_are_refused(base, tmp_path, edit, words):
    torch.save({"model": edit(lavis_weights())}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=words):
        main([str(tmp_path / "b.pth"), "--base", str(base), "--output_dir", str(tmp_path / "out")])
    with pytest.raises(ValueError, match=r"convert_lavis.py .*b.pth"):
        read_blip2(str(tmp_path / "b.pth"))
    assert not (tmp_path / "out").exists()
