"""Model cards: their code runs as it stands, in a clone of the repository that they name."""

import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from safetensors.numpy import save

from clip.checkpoint import save_clip
from clip.model import CLIPModel
from common.models import model_card
from tools import model_kinds, push_to_hub


def run_code(folder: Path, tmp_path: Path, monkeypatch) -> dict:
    """Names that the code of the card of a staged folder sets. The folder stands for its name on the Hub; a.png is
    there."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40), "red").save("a.png")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name: name)
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    values: dict = {}
    exec(
        code.replace(f"hf-hub:{folder.name}", f"local-dir:{folder}").replace(f'"{folder.name}"', f'"{folder}"'), values
    )
    return values


@pytest.mark.parametrize(
    "kind, name", [("style", "style"), ("clip", "vectors"), ("blip2", "answers"), ("llava", "processor")]
)
def test_the_code_runs_as_it_stands(kind, name, page_weights, tmp_path, monkeypatch):
    save_clip(tmp_path / "clip.pth", CLIPModel("small", image_size=32, projection_dim=16))
    weights, folder = {**page_weights, "clip": str(tmp_path / "clip.pth")}[kind], tmp_path / "hub" / "a-model"
    push_to_hub.main([weights, "--output", str(folder)])
    assert run_code(folder, tmp_path, monkeypatch)[name] is not None


def test_the_code_of_other_folders_runs(trained, tiny_clip, tmp_path, monkeypatch):
    from tools import export_style

    export_style.main(["--weights", trained[0], "--output", str(tmp_path / "timm"), "--format", "timm"])
    for name in ("adapter", "onnx"):
        (tmp_path / name).mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b"}')
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(save({}))
    (tmp_path / "onnx" / "text.onnx").write_bytes(b"weights")
    found = {"timm": "model", "adapter": "folder", "onnx": "folder", "clip": "processor"}
    for kind, name in found.items():
        folder = tmp_path / "hub" / kind
        push_to_hub.main([str(tiny_clip if kind == "clip" else tmp_path / kind), "--output", str(folder)])
        assert run_code(folder, tmp_path, monkeypatch)[name] is not None


@pytest.mark.parametrize(
    "remote, address",
    [
        ("git@github.com:me/vision-wrapper.git", "https://github.com/me/vision-wrapper"),
        ("https://me:hf_token@git.example.org/a/b/", "https://git.example.org/a/b"),
        ("ssh://git@host.org:2222/me/it.git", "https://host.org/me/it"),
        ("/home/me/vision-wrapper", ""),
        ("../vision-wrapper", ""),
        ("", ""),
    ],
)
def test_the_repository_is_linked(remote, address, page_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(
        model_card.subprocess, "run", lambda git, **options: subprocess.CompletedProcess(git, 0, stdout=f"{remote}\n")
    )
    assert model_card.repository() == address
    model_card.write_card(
        tmp_path / "README.md", "me/x", model_kinds.KINDS["clip"], model_card.RunMetadata({}, {}, {}, {}, ""),
        repository=address,
    )  # fmt: skip
    assert (f"]({address}); run this in a clone" in (tmp_path / "README.md").read_text()) == bool(address)
