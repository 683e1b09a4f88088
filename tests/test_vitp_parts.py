"""Models made of parts: any timm backbone or InternViT, any causal language model."""

import json

import pytest
import timm
import torch
from tiny.vitp import CONTEXT_ID, TEXT, internvl_folder, tiny_model
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config

from vitp.checkpoint import fit_to_images, load_model
from vitp.compose import build_model


@pytest.fixture
def llm(tmp_path) -> str:
    Qwen2Config(**TEXT).save_pretrained(tmp_path / "llm")
    return str(tmp_path / "llm")


TIMM = {  # a class token, registers, none of them, NHWC, NCHW
    "test_vit": (64, 4),
    "vit_small_patch14_reg4_dinov2": (56, 4),
    "test_vit_relpos": (64, 4),
    "test_mambaout": (64, 1),
    "test_resnet": (128, 4),
}


@pytest.mark.parametrize("name", TIMM)
def test_timm_backbones(tmp_path, llm, name):
    size, tokens = TIMM[name]
    model, statistics = build_model(name, llm, size, drop_path_rate=0.1)
    assert fit_to_images(model, size) == tokens and len(statistics["image_mean"]) == 3
    model.config.image_token_id = CONTEXT_ID
    batch = {
        "input_ids": torch.tensor([[1, 2] + [CONTEXT_ID] * 2 * tokens + [3, 4]]),
        "pixel_values": torch.randn(2, 3, size, size),
    }
    model.train()(
        **batch, labels=batch["input_ids"].masked_fill(batch["input_ids"] == CONTEXT_ID, -100)
    ).loss.backward()
    grown = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any("timm_model" in name for name in grown) and any("multi_modal_projector" in name for name in grown)
    model.save_pretrained(tmp_path / "saved")
    again = load_model(tmp_path / "saved").eval()
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model.eval()(**batch).logits)
    with pytest.raises(ValueError, match="was built for"):
        fit_to_images(again, size * 2)


def test_a_backbone_with_the_weights_of_a_file(tmp_path, llm):
    torch.manual_seed(0)
    theirs = timm.create_model("test_efficientnet", num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    model, _ = build_model(f"test_efficientnet:{tmp_path / 'weights.pth'}", llm, 96, down_sample_ratio=1)
    tower = model.model.vision_tower.timm_model
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in tower.state_dict().items())
    assert fit_to_images(model, 96) == 9  # 3 x 3 patches, each a token
    model.save_pretrained(tmp_path / "saved")
    assert fit_to_images(load_model(tmp_path / "saved"), 96) == 9
    with pytest.raises(FileNotFoundError, match="gone.pth: no such file"):
        build_model(f"test_efficientnet:{tmp_path / 'gone.pth'}", llm, 96)
    with pytest.raises(ValueError, match="--vision_config .*weights.pth: not weights of test_resnet"):
        build_model(f"test_resnet:{tmp_path / 'weights.pth'}", llm, 96)


def test_patches_lie_in_reading_order(llm):
    """The token of an image's corner depends on that corner most."""
    model = build_model("test_resnet", llm, 128)[0].eval()
    pixels = torch.randn(1, 3, 128, 128)
    changed = pixels.clone()
    changed[..., :32, 96:] += 5
    with torch.no_grad():
        before, after = (model.get_image_features(one).pooler_output[0] for one in (pixels, changed))
    assert (after - before).norm(dim=1).argmax() == 1  # of 2 x 2 tokens, the upper right one


def test_internvit_with_weights(tmp_path, llm):
    tiny_model().model.vision_tower.save_pretrained(tmp_path / "vit")
    model, _ = build_model(str(tmp_path / "vit"), llm)
    own = AutoModel.from_pretrained(tmp_path / "vit").state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.model.vision_tower.state_dict().items())
    theirs = internvl_folder(tmp_path / "internvl")  # of a whole model, its encoder
    found = build_model(str(tmp_path / "internvl"), llm)[0].model.vision_tower.encoder.layer[0].attention.q_proj.weight
    assert torch.equal(found, theirs["vision_model.encoder.layers.0.attn.qkv.weight"][:32])


def test_internvit_from_a_config(tmp_path, llm):
    tiny_model().model.vision_tower.config.save_pretrained(tmp_path / "vit")
    model, _ = build_model(str(tmp_path / "vit" / "config.json"), llm)
    embeddings = model.model.vision_tower.embeddings
    assert embeddings.position_embeddings.std() > 0.01 and embeddings.cls_token.std() > 0.01
    assert model.config.tie_word_embeddings == Qwen2Config(**TEXT).tie_word_embeddings


def test_language_model_with_weights(tmp_path):
    torch.manual_seed(0)
    for name, theirs in {
        "llama": LlamaForCausalLM(LlamaConfig(**TEXT)),
        "tied": LlamaForCausalLM(LlamaConfig(**TEXT, tie_word_embeddings=True)),
        "gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=24, n_layer=2, n_head=4, n_positions=64)),
    }.items():
        theirs.save_pretrained(tmp_path / name)
        model, _ = build_model("test_vit", str(tmp_path / name), 32)
        ids = torch.randint(0, 50, (2, 9))
        with torch.no_grad():
            assert torch.equal(model.eval()(input_ids=ids).logits, theirs.eval()(ids).logits), name
        model.save_pretrained(tmp_path / "saved")
        with torch.no_grad():
            assert torch.equal(load_model(tmp_path / "saved").eval()(input_ids=ids).logits, theirs(ids).logits), name


def test_gguf(tmp_path):
    gguf = pytest.importorskip("gguf")
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(LlamaConfig(**TEXT)).eval()
    writer = gguf.GGUFWriter(tmp_path / "tiny.gguf", "llama")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(24)
    writer.add_feed_forward_length(40)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(64)
    names = {
        "embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "post_attention_layernorm": "ffn_norm",
        "layers": "blk",
    }
    for name, value in theirs.state_dict().items():
        heads = {"q": 4, "k": 2}.get(name.split("self_attn.")[-1][0]) if "_proj" in name else None
        if heads and "self_attn" in name:  # GGUF interleaves the two halves of a rotary pair
            value = value.view(heads, 2, 3, 24).transpose(1, 2).reshape(value.shape)
        name = name if name.startswith("model.norm") else name.removeprefix("model.")
        for ours, gguf_name in names.items():
            name = name.replace(ours, gguf_name)
        writer.add_tensor(name, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model, _ = build_model("test_vit", str(tmp_path / "tiny.gguf"), 32)
    ids = torch.randint(0, 50, (1, 7))
    with torch.no_grad():
        assert torch.allclose(model.eval()(input_ids=ids).logits, theirs(ids).logits, atol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    assert not hasattr(load_model(tmp_path / "saved").config.text_config, "quantization_config")


def test_what_cannot_be_built(tmp_path, llm):
    (tmp_path / "clip.json").write_text(json.dumps({"model_type": "clip_vision_model"}))
    (tmp_path / "nothing.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    for vision, language, message in (
        ("vit_tiny_patch16_224.augreg_in21k", llm, "without the tag it is initialised at random"),
        ("vit_tiny_patch16_22", llm, "did you mean vit_tiny_patch16_224"),
        (str(tmp_path / "clip.json"), llm, "clip.json: .*InternVLVisionModel"),
        ("vit_tiny_patch16_224", str(tmp_path / "nothing.json"), "names no model_type"),
        ("vit_tiny_patch16_224", str(tmp_path / "broken.json"), "not JSON"),
        ("vit_tiny_patch16_224", str(tmp_path / "absent"), "--llm expects"),
        (llm, llm, "no weights in it"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            build_model(vision, language)
