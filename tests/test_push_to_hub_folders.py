"""Folders of Trainer and peft on the Hub, names there and local paths, and what is refused."""

import json
import re
import shutil

import httpx
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from safetensors.numpy import save
from tiny.hub import assert_names_no_place, front, same
from transformers import CLIPModel as TransformersCLIP

from clip.checkpoint import load_clip
from common.cli.failures import explain_failure
from common.models.model_folder import is_hub_name
from common.models.scrub import is_local_path
from style_encoder import load_encoder
from tools import push_to_hub
from tools.push_to_hub import files_to_upload, without_local_paths

CPU = torch.device("cpu")


def test_a_trainers_folder_leaves_its_optimizer_at_home(trainers_folder, tmp_path, uploads):
    push_to_hub.main([str(trainers_folder), "--name", "me/mine"])
    files = uploads[-1]["files"]
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    model = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "settings.json"}
    assert set(files) == tokenizer | model
    assert_names_no_place(files, "/home/me", tmp_path)
    assert files["model.safetensors"] == (trainers_folder / "model.safetensors").read_bytes()
    assert json.loads(files["settings.json"])["fine_tuning"] == {"data": "data.json", "system_prompt": "auto"}
    card = files["README.md"].decode()
    assert front(card)["library_name"] == "transformers" and sorted(front(card)["metrics"]) == ["eval_loss", "loss"]
    assert "after step 8" in card and "| `loss` | 0.25 |" in card and "seconds" not in card


def test_the_folder_that_is_kept_loads(trainers_folder, tmp_path):
    push_to_hub.main([str(trainers_folder), "--output", str(tmp_path / "out")])
    theirs, ours = TransformersCLIP.from_pretrained(tmp_path / "out"), TransformersCLIP.from_pretrained(trainers_folder)
    assert same(dict(theirs.state_dict()), dict(ours.state_dict()))
    with pytest.raises(ValueError, match="is not empty"):
        push_to_hub.main([str(trainers_folder), "--output", str(tmp_path / "out")])


@pytest.mark.parametrize(
    "file, config, library, task",
    [
        ("model.safetensors", {"model_type": "internvl"}, "transformers", "image-text-to-text"),
        ("model.safetensors", {"model_type": "llava"}, "transformers", "image-text-to-text"),
        ("model.safetensors", {"model_type": "internvl_vision"}, "transformers", "image-feature-extraction"),
        ("model.safetensors", {"architecture": "test_vit"}, "timm", "image-feature-extraction"),
        ("text.onnx", None, "onnx", None),
    ],
)
def test_every_kind_of_folder_is_told_apart(file, config, library, task, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / file).write_bytes(save({}))
    if config:
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    push_to_hub.main([str(tmp_path / "model"), "--output", str(tmp_path / "out")])
    head = front((tmp_path / "out" / "README.md").read_text())
    assert head["library_name"] == library and head.get("pipeline_tag") == task


def test_an_adapter_must_say_whose_it_is(tmp_path, uploads):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(save({}))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/models/llava", "r": 8}))
    (folder / "trained_on.json").write_text(json.dumps({"model_id": "/models/llava", "fingerprint": "ab"}))
    with pytest.raises(ValueError, match="adapter_config.json: base_model_name_or_path is /models/llava, a path"):
        push_to_hub.main([str(folder), "--name", "me/lora"])
    push_to_hub.main([str(folder), "--name", "me/lora", "--hub_id", "/models/llava=llava-hf/llava-1.5-7b-hf"])
    files = uploads[-1]["files"]
    assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors", "trained_on.json"}
    assert json.loads(files["trained_on.json"])["model_id"] == "llava-hf/llava-1.5-7b-hf"
    head = front(files["README.md"].decode())
    assert head["base_model"] == "llava-hf/llava-1.5-7b-hf" and head["library_name"] == "peft"


@pytest.mark.parametrize(
    "text, local",
    [
        ("/home/me/a", True),
        ("~/a", True),
        ("../a", True),
        ("C:\\models", True),
        ("timm:/home/me/a.pth", True),
        ("Salesforce/blip2-opt-2.7b", False),
        ("image/png", False),
        ("https://a.org/b/c", False),
        ("/", False),
        ("a / b", False),
        ("{% if a %} /a/b {% endif %}", False),
        ("</s>", False),
    ],
)
def test_local_paths(text, local):
    assert is_local_path(text) == local


def test_what_a_name_on_the_hub_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_name("me/style") and is_hub_name("llava-hf/llava-1.5-7b-hf")
    for name in ("checkpoints/best.pth", "style", "/me/style", "./me/style", "me/style/last"):
        assert not is_hub_name(name)
    (tmp_path / "me").mkdir()
    assert not is_hub_name("me/style")  # a folder of one's own, and a typing error in it
    with pytest.raises(FileNotFoundError, match="me/style: no such file"):
        load_encoder("me/style", CPU)


def test_a_name_of_the_hub_is_fetched(trained, tmp_path, monkeypatch):
    push_to_hub.main([trained[0], "--output", str(tmp_path / "hub")])
    asked = []

    def fetch(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path / "hub")

    monkeypatch.setattr("common.models.model_folder.snapshot_download", fetch)
    encoder, content = load_encoder("me/style", CPU)
    assert asked == [("me/style", ["config.json", "model.safetensors", "metadata.safetensors"])]
    assert same(dict(encoder.state_dict()), dict(load_encoder(trained[0], CPU)[0].state_dict()))


def test_links_that_lead_out_and_unknown_files_stay_here(trainers_folder, tmp_path, uploads, capsys):
    passwords, inside = tmp_path / "passwd", trainers_folder / "tokenizer.model"
    passwords.write_text("a password")
    for name in ("vocab.txt", "extra.safetensors", "generation_config.json"):
        (trainers_folder / name).symlink_to(passwords)
    (trainers_folder / "merges.txt").symlink_to("/no/such/file")
    (trainers_folder / "added_tokens.json").mkdir()
    inside.write_text("kept")
    (trainers_folder / "spiece.model").symlink_to(inside)
    result = push_to_hub.main([str(trainers_folder), "--name", "me/mine"])
    files = uploads[-1]["files"]
    out = {"vocab.txt", "extra.safetensors", "generation_config.json", "merges.txt", "added_tokens.json"}
    assert not out & set(files) and {*out, "optimizer.pt", "checkpoint-8", "run.json"} <= set(result["left_out"])
    assert files["spiece.model"] == b"kept" and b"a password" not in b"".join(files.values())
    assert "not uploaded: .lock, README.md" in capsys.readouterr().out


def test_links_of_the_hubs_cache_are_its_files(tiny_clip, tmp_path, uploads):
    repository = tmp_path / "models--a--b"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in tiny_clip.iterdir():
        (repository / "blobs" / f"hash of {file.name}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/hash of {file.name}")
    push_to_hub.main([str(snapshot), "--name", "me/mine", "--output", str(tmp_path / "kept")])
    assert uploads[-1]["files"]["model.safetensors"] == (tiny_clip / "model.safetensors").read_bytes()
    assert not any(path.is_symlink() for path in (tmp_path / "kept").iterdir())
    shutil.rmtree(repository)
    push_to_hub.main([str(tmp_path / "kept"), "--name", "me/mine"])  # the folder stands alone
    assert "model.safetensors" in uploads[-1]["files"]


def test_secrets_go_from_information_and_are_refused_elsewhere(trainers_folder, uploads):
    token = "hf_" + "a1B2" * 6
    settings = {
        "run": f"python a.py --data=/home/me/cats;file:///home/me/x.png,//share/me/y '\\\\share\\me\\z' {token}",
        "endpoint": "https://me:word@host/x?token=abcdefgh1",
        "hub_token": "anything",
        "/home/me/key.png": 1,
        "text": "and/or, 1/2, image/png, https://a.org/b/c",
    }
    (trainers_folder / "settings.json").write_text(json.dumps(settings))
    push_to_hub.main([str(trainers_folder), "--name", "me/mine"])
    assert json.loads(uploads[-1]["files"]["settings.json"]) == {
        "run": "python a.py --data=cats;x.png,y 'z' ***",
        "endpoint": "https://***@host/x?token=***",
        "hub_token": "***",
        "key.png": 1,
        "text": "and/or, 1/2, image/png, https://a.org/b/c",
    }
    for name, content in (
        ("tokenizer_config.json", json.dumps({"name": token})),
        ("tokenizer_config.json", json.dumps({"name": "see (/home/me/x)"})),
        ("tokenizer_config.json", json.dumps({"/home/me/x": 1})),
        ("chat_template.jinja", "{{ a }}\n" + token),
    ):
        (trainers_folder / name).write_text(content)
        with pytest.raises(ValueError, match=rf"{name}.*(password or a token|path of this machine)"):
            push_to_hub.main([str(trainers_folder), "--name", "me/mine"])
        (trainers_folder / name).unlink()


def answered(status):
    return HfHubHTTPError("long", response=httpx.Response(status, request=httpx.Request("POST", "https://hub")))


@pytest.mark.parametrize(
    "error, words",
    [
        (httpx.ConnectError("Name or service not known"), "no connection .* HF_ENDPOINT"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE"),
        (answered(401), "hf auth login"),
        (answered(403), "write access"),
        (answered(409), "try again"),
        (answered(429), "wait"),
    ],
)
def test_failures_of_the_hub_are_one_line(error, words, trainers_folder, monkeypatch, uploads):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(push_to_hub.HfApi, "create_repo", fail)
    with pytest.raises(ValueError, match=f"me/mine: upload failed .*{words}") as raised:
        push_to_hub.main([str(trainers_folder), "--name", "me/mine"])
    assert "\n" not in str(raised.value)
    assert re.search(words, explain_failure(error))  # where nobody catches it, too


def test_mistakes_are_one_line(tmp_path, trained, monkeypatch):
    with pytest.raises(ValueError, match="nobody/nothing: no such file or folder, and not available on the Hub"):
        load_encoder("nobody/nothing", CPU)
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([str(tmp_path / "empty"), "--output", str(tmp_path / "a")], "holds no weights"),
        ([str(tmp_path / "none"), "--output", str(tmp_path / "b")], "no such file or folder"),
        ([trained[0]], "give --output FOLDER"),
        ([trained[0], "--output", "x", "--hub_id", "/a"], "expected PATH=NAME"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            push_to_hub.main(arguments)

    def refuse(self, name, private, exist_ok):
        raise OSError("401 Client Error\nlong words")

    monkeypatch.setattr(push_to_hub.HfApi, "create_repo", refuse)
    with pytest.raises(ValueError, match=r"me/x: upload failed \(401 Client Error\)"):
        push_to_hub.main([trained[0], "--name", "me/x"])
    push_to_hub.main([trained[0], "--output", str(tmp_path / "hub")])
    with pytest.raises(ValueError, match="is a 'style encoder' checkpoint; a 'clip' one is needed"):
        load_clip(tmp_path / "hub")
    (tmp_path / "hub" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="model.safetensors: cannot be read as safetensors"):
        load_encoder(tmp_path / "hub", CPU)


def test_paths_that_are_mere_information_are_shortened():
    content = {"build": {"size": 3, "parts": ["a/b"]}, "settings": {"data_dir": "/x/y/data"}, "shape": (1, 2)}
    assert without_local_paths(content, {}, "best.pth") == {
        "build": {"size": 3, "parts": ["a/b"]},
        "settings": {"data_dir": "data"},
        "shape": [1, 2],
    }


def test_weights_of_pickle_stay_here(tmp_path):
    for name in ("model.safetensors", "config.json", "pytorch_model.bin", "training_args.bin"):
        (tmp_path / name).write_text("{}")
    assert files_to_upload(tmp_path) == ["config.json", "model.safetensors"]
