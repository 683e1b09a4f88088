"""Folders whose models need code of their own: it is never run, even if someone answers `y` at transformers' prompt."""

import ast
import json
from pathlib import Path

import pytest
import torch
from tiny.vitp import TEXT
from transformers import Qwen2Config

from blip2_gated.backbone import read_blip2
from clip.checkpoint import load_clip
from clip.model import CLIPModel
from common.text.files import read_json
from llava.checkpoint import load_image_text_model
from llava.sentence_encoder import SentenceEncoder
from retrieval.encoders import open_encoder
from text_encoder import HuggingFaceTextEncoder
from vitp.checkpoint import load_model
from vitp.compose import build_model
from vitp.processing import read_tokenizer

ROOT = Path(__file__).resolve().parents[1]
AUTO_CLASSES = {
    "AutoConfig": "own.OwnConfig",
    "AutoModel": "own.OwnModel",
    "AutoModelForCausalLM": "own.OwnModel",
    "AutoModelForImageTextToText": "own.OwnModel",
    "AutoProcessor": "own.OwnProcessor",
    "AutoImageProcessor": "own.OwnProcessor",
    "AutoTokenizer": ["own.OwnTokenizer", None],
}
LOADERS = {
    "blip2_gated": read_blip2,
    "clip": load_clip,
    "clip --text_tower": lambda folder: CLIPModel("small", text_tower=folder),
    "llava": load_image_text_model,
    "llava --sentence_encoder": SentenceEncoder,
    "prepare_targets": lambda folder: HuggingFaceTextEncoder(folder, torch.device("cpu"), 8),
    "retrieval": open_encoder,
    "vitp": load_model,
    "vitp --llm": lambda folder: build_model("test_vit", folder, 32),
    "vitp --tokenizer": read_tokenizer,
}


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A folder whose code writes a file when it is imported, and somebody who agrees to everything."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    (folder / "own.py").write_text(code + "OwnConfig = OwnModel = OwnProcessor = OwnTokenizer = int\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": AUTO_CLASSES}))
    settings = {"tokenizer_class": "OwnTokenizer", "processor_class": "OwnProcessor", "auto_map": AUTO_CLASSES}
    for name in ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        (folder / name).write_text(json.dumps(settings))
    torch.save({"weight": torch.ones(2)}, folder / "pytorch_model.bin")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return folder


@pytest.mark.parametrize("loader", LOADERS)
def test_code_of_a_folder_is_not_run(foreign, tmp_path, loader):
    with pytest.raises(ValueError) as error:
        LOADERS[loader](str(foreign))
    assert not (tmp_path / "ran").exists()
    assert str(foreign) in str(error.value) and "\n" not in str(error.value)
    assert "trust_remote_code" not in str(error.value)


@pytest.mark.parametrize("loader", ["llava", "prepare_targets", "vitp --llm", "vitp --tokenizer", "blip2_gated"])
def test_the_message_says_what_to_use(foreign, loader):
    with pytest.raises(ValueError, match="code of its own, which is never run.*-hf"):
        LOADERS[loader](str(foreign))


def test_code_of_a_known_model_is_not_run_either(foreign, tmp_path):
    """Where transformers has a class for the model, that is used."""
    Qwen2Config(**TEXT).save_pretrained(foreign)
    config = read_json(foreign / "config.json") | {"auto_map": AUTO_CLASSES}
    (foreign / "config.json").write_text(json.dumps(config))
    (foreign / "pytorch_model.bin").unlink()
    assert build_model("test_vit", str(foreign), 32)[0].config.text_config.model_type == "qwen2"
    assert not (tmp_path / "ran").exists()


def test_every_auto_class_is_told_so():
    """Without the argument transformers asks on the terminal."""
    unset = []
    for path in ROOT.rglob("*.py"):
        if ".venv" in path.parts or "tests" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained"):
                continue
            owner = ast.unparse(node.func.value)
            trusted = [keyword.value for keyword in node.keywords if keyword.arg == "trust_remote_code"]
            if (owner.startswith("Auto") or owner[0].islower()) and [ast.unparse(value) for value in trusted] != [
                "False"
            ]:
                unset.append(f"{path.relative_to(ROOT)}:{node.lineno} {owner}")
    assert unset == []
