"""Extraction: the same bits in every naming, from every kind of checkpoint, and nothing passed over."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tiny.vitp import TEXT, internvl_folder, tiny_model
from transformers import AutoImageProcessor, AutoModel, InternVLVisionModel

from vitp.extract_vit import main
from vitp.key_mapping import vit_from_transformers, vit_to_transformers
from vitp.vision_encoder import load_vit, read_vit

PIXELS = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path):
    """A whole model in a folder, as Trainer writes it."""
    model = tiny_model()
    model.save_pretrained(tmp_path / "whole")
    return tmp_path / "whole", model.model.vision_tower.eval()


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@torch.no_grad()
def test_folder_for_transformers(saved, tmp_path, capsys):
    folder, tower = saved
    result = main(["--checkpoint", str(folder), "--output", str(tmp_path / "vit")])
    assert result["format"] == "hf" and result["tensors"] + result["tensors_left"] == len(
        load_file(folder / "model.safetensors")
    )
    model = AutoModel.from_pretrained(tmp_path / "vit").eval()
    assert isinstance(model, InternVLVisionModel) and same(model.state_dict(), tower.state_dict())
    assert torch.equal(model(PIXELS).last_hidden_state, tower(PIXELS).last_hidden_state)
    assert tuple(AutoImageProcessor.from_pretrained(tmp_path / "vit").image_mean) == (0.485, 0.456, 0.406)
    assert "tensors of the projector and language model not included" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_internvits_names_and_back(saved, tmp_path, suffix):
    """InternVL -> transformers -> InternVL gives the very tensors of the beginning."""
    internvl = {
        name.removeprefix("vision_model."): value
        for name, value in internvl_folder(tmp_path / "own").items()
        if name.startswith("vision_model.")
    }
    output = tmp_path / f"out/vit{suffix}"
    main([str(tmp_path / "own"), str(output)])
    read = load_file if suffix == ".safetensors" else torch.load
    assert same(read(output), internvl)
    assert same(vit_from_transformers(vit_to_transformers(internvl)), internvl)
    folder, tower = saved
    main([str(folder), str(output)])
    model, vit = load_vit(output)
    assert same(model.state_dict(), tower.state_dict()) and vit.num_others == 0
    settings = json.loads(output.with_suffix(".json").read_text())
    assert settings["num_attention_heads"] == 4 and settings["qkv_bias"] is True and settings["image_size"] == 28
    assert "encoder.layers.0.attn.qkv.weight" in read(output)


def test_every_kind_of_checkpoint(saved, tmp_path):
    folder, tower = saved
    expected = tower.state_dict()
    weights = load_file(folder / "model.safetensors")
    config = (folder / "config.json").read_text()

    def made(name, write):
        target = tmp_path / name
        target.mkdir()
        (target / "config.json").write_text(config)
        write(target)
        return target

    whole = made("bin", lambda target: torch.save(weights, target / "pytorch_model.bin"))
    assert same(read_vit(whole).weights, expected) and same(read_vit(whole / "pytorch_model.bin").weights, expected)
    wrapped = made("wrapped", lambda target: torch.save({"module": weights}, target / "model.pth"))
    assert same(read_vit(wrapped / "model.pth").weights, expected)

    def shards(target, suffix, save):
        names = sorted(weights)
        index = {}
        for number, part in enumerate((names[::2], names[1::2])):
            file = f"shard-{number}{suffix}"
            save({name: weights[name] for name in part}, target / file)
            index |= dict.fromkeys(part, file)
        (target / f"{'model' if suffix != '.bin' else 'pytorch_model'}{suffix}.index.json").write_text(
            json.dumps({"weight_map": index})
        )

    for name, suffix, save in (("sharded", ".safetensors", save_file), ("sharded_bin", ".bin", torch.save)):
        target = made(name, lambda target, suffix=suffix, save=save: shards(target, suffix, save))
        assert same(read_vit(target).weights, expected)
    (tmp_path / "sharded" / "shard-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="shard-1.safetensors: no such file, but .*index.json lists it"):
        read_vit(tmp_path / "sharded")

    older = {
        name.replace("model.language_model.", "language_model.model.").removeprefix("model."): value
        for name, value in weights.items()
    }
    assert same(
        read_vit(made("older", lambda target: save_file(older, target / "model.safetensors"))).weights, expected
    )


def test_extracted_again(saved, tmp_path):
    """What was extracted is a checkpoint too."""
    folder, tower = saved
    main([str(folder), str(tmp_path / "hf")])
    main([str(tmp_path / "hf"), str(tmp_path / "a.pth")])
    main([str(tmp_path / "a.pth"), str(tmp_path / "again"), "--format", "hf"])
    assert same(AutoModel.from_pretrained(tmp_path / "again").state_dict(), tower.state_dict())


@torch.no_grad()
def test_timm(saved, tmp_path):
    folder, tower = saved
    main([str(folder), str(tmp_path / "timm.safetensors"), "--format", "timm"])
    settings = json.loads((tmp_path / "timm.json").read_text())
    model = timm.models.VisionTransformer(**settings["build"]).eval()
    model.load_state_dict(load_file(tmp_path / "timm.safetensors"))
    features = model.forward_features(PIXELS)
    assert torch.allclose(features, tower(PIXELS).last_hidden_state, atol=1e-5)
    main([str(folder), str(tmp_path / "timm"), "--format", "timm"])
    opened = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    assert torch.equal(opened.forward_features(PIXELS), features)
    config = timm.data.resolve_model_data_config(opened)
    assert config["input_size"] == (3, 28, 28) and list(config["mean"]) == settings["mean"]
    normed = tiny_model(use_qk_norm=True)
    normed.save_pretrained(tmp_path / "normed")
    with pytest.raises(ValueError, match="timm has no name for a norm of queries"):
        main([str(tmp_path / "normed"), str(tmp_path / "b.pth"), "--format", "timm"])
    main([str(tmp_path / "normed"), str(tmp_path / "b.pth")])
    assert same(load_vit(tmp_path / "b.pth")[0].state_dict(), normed.model.vision_tower.state_dict())


def test_large_internvit_shape(tmp_path):
    """RMS norms, no bias, norms of queries and keys: as in the 6B."""
    model = tiny_model(use_qk_norm=True, attention_bias=False, norm_type="rms_norm")
    model.save_pretrained(tmp_path / "whole")
    main([str(tmp_path / "whole"), str(tmp_path / "vit.pth")])
    found, vit = load_vit(tmp_path / "vit.pth")
    assert vit.config.norm_type == "rms_norm" and vit.config.use_qk_norm and not vit.config.attention_bias
    assert same(found.state_dict(), model.model.vision_tower.state_dict())


def test_rounding_is_asked_for(saved, tmp_path):
    folder, tower = saved
    main([str(folder), str(tmp_path / "half.pth"), "--dtype", "bfloat16"])
    found = read_vit(tmp_path / "half.pth").weights
    assert same(found, {name: value.bfloat16() for name, value in tower.state_dict().items()})
    assert load_vit(tmp_path / "half.pth")[0].dtype == torch.bfloat16


def test_sizes_are_what_the_tensors_have(saved):
    """A config that says another patch or image size than the tensors does not decide."""
    folder, _ = saved
    facts = json.loads((folder / "config.json").read_text())
    facts["vision_config"] |= {"patch_size": [16, 16], "image_size": [224, 224], "num_hidden_layers": 9}
    (folder / "config.json").write_text(json.dumps(facts))
    config = read_vit(folder).config
    assert config.patch_size == [7, 7] and config.image_size == [28, 28] and config.num_hidden_layers == 3


def test_nothing_is_passed_over(saved, tmp_path):
    folder, _ = saved
    weights = load_file(folder / "model.safetensors")
    file = folder / "model.safetensors"

    def refused(changed, message, *more):
        save_file(changed, file)
        with pytest.raises((ValueError, OSError), match=message):
            main([str(folder), str(tmp_path / "vit.pth"), *more])
        assert not (tmp_path / "vit.pth").exists()

    name = "model.vision_tower.encoder.layer.1.mlp.fc1.weight"
    refused({one: value for one, value in weights.items() if one != name}, "encoder.layer.1.mlp.fc1.weight is missing")
    refused({**weights, "model.vision_tower.extra": torch.ones(1)}, "extra is unknown")
    refused({**weights, "model.something.else": torch.ones(1)}, "model.something.else: a tensor of no InternVL")
    refused({**weights, name: torch.ones(3, 3)}, r"fc1.weight is \(3, 3\)")
    refused({**weights, name.replace("weight", "lora_A.default.weight"): torch.ones(1)}, "holds a LoRA of the vision")
    refused({one: value for one, value in weights.items() if "vision" not in one}, "holds no vision encoder")
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0")
    with pytest.raises(ValueError, match="Git LFS pointer"):
        main([str(folder), str(tmp_path / "vit.pth")])
    save_file(weights, file)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no config.json next to it, .*attention heads"):
        main([str(folder), str(tmp_path / "vit.pth")])


def test_a_timm_encoder_keeps_its_own_names(tmp_path):
    from transformers import Qwen2Config

    from vitp.compose import build_model

    Qwen2Config(**TEXT).save_pretrained(tmp_path / "llm")
    model, _ = build_model("test_vit", str(tmp_path / "llm"), 64)
    model.save_pretrained(tmp_path / "whole")
    main([str(tmp_path / "whole"), str(tmp_path / "vit.pth")])
    backbone = timm.create_model("test_vit", img_size=64, num_classes=0)
    backbone.load_state_dict(torch.load(tmp_path / "vit.pth"))
    assert same(backbone.state_dict(), model.model.vision_tower.timm_model.state_dict())
    main([str(tmp_path / "whole"), str(tmp_path / "timm"), "--format", "timm"])
    opened = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    assert same(opened.state_dict(), backbone.state_dict()) and opened.pretrained_cfg["input_size"][-1] == 64
    main([str(tmp_path / "whole"), str(tmp_path / "hf")])
    assert same(AutoModel.from_pretrained(tmp_path / "hf").state_dict(), model.model.vision_tower.state_dict())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["one"], "two paths are needed"),
        (["one", "two", "three"], "two paths are needed"),
        (["gone", "vit.pth"], "gone: no such file or folder"),
        (["{folder}", "vit", "--format", "internvit"], "let its name end in .pth"),
        (["{folder}", "vit.pth", "--format", "hf"], "writes a folder"),
        (["{empty}", "vit.pth"], "no weights in it"),
        (["{zero}", "vit.pth"], "zero_to_fp32.py"),
    ],
)
def test_mistakes(saved, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "zero" / "global_step8").mkdir(parents=True)
    places = {"folder": saved[0], "empty": tmp_path / "empty", "zero": tmp_path / "zero"}
    with pytest.raises((ValueError, OSError), match=message):
        main([word.format(**places) for word in arguments])
