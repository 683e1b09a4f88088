"""Upload to the Hub: identical weights on return, only the files that others need, a card of the run's own results."""

import json
import re

import pytest
import torch
import yaml
from transformers import CLIPModel as TransformersCLIP

from blip2_gated.checkpoint import build_arguments, build_gated, load_gated, save_gated
from blip2_gated.dataset import VqaSample
from clip.checkpoint import load_clip, save_clip
from clip.model import CLIPModel
from common.cli.settings import read_settings
from common.models import hub
from common.models.hub import files_to_upload, is_local_path, without_local_paths
from common.models.model_folder import is_hub_name, load_model
from retrieval.encoders import open_encoder
from style_encoder import load_encoder
from tools import push_to_hub

CPU = torch.device("cpu")


class StubApi:
    """Stands for HfApi: writes down what would be uploaded."""

    calls: list[dict] = []

    def create_repo(self, name, private, exist_ok):
        self.calls.append({"name": name, "private": private, "exist_ok": exist_ok})
        return f"https://huggingface.co/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message):
        files = {
            path.relative_to(folder_path).as_posix(): path.read_bytes()
            for path in sorted(hub.Path(folder_path).rglob("*"))
            if path.is_file()
        }
        self.calls.append({"name": repo_id, "files": files})


@pytest.fixture
def uploads(monkeypatch):
    monkeypatch.setattr(hub, "HfApi", StubApi)
    monkeypatch.setattr(StubApi, "calls", [])
    return StubApi.calls


def front(text):
    return yaml.safe_load(text.split("---\n")[1])


def same(one, other):
    """Equal content, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def assert_names_no_place(files, *places):
    for name, content in files.items():
        if name.endswith((".json", ".md")):
            for place in places:
                assert str(place).encode() not in content, f"{name} names {place}"


def test_a_style_encoder_comes_back_to_the_bit(trained, tmp_path, uploads):
    weights, data = trained
    result = push_to_hub.main([weights, "--output", str(tmp_path / "hub")])
    assert uploads == [] and result["files"] == [
        "README.md",
        "config.json",
        "metadata.safetensors",
        "model.safetensors",
    ]
    before, after = load_model(weights, "style encoder"), load_model(tmp_path / "hub", "style encoder")
    settings = before.pop("settings"), after.pop("settings")
    assert same(before, after) and before["validation"]["bank"].ndim == 2
    changed = {name for name in settings[0] if settings[0][name] != settings[1][name]}
    assert changed == {"data_dir", "checkpoint_dir", "log_dir", "cache_dir"} and settings[1]["data_dir"] == data.name
    image = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        wanted = load_encoder(weights, CPU)[0](image).style
        assert torch.equal(load_encoder(tmp_path / "hub", CPU)[0](image).style, wanted)
        assert torch.equal(open_encoder(tmp_path / "hub").native_vectors(image), wanted)


def test_what_is_uploaded(trained, tmp_path, uploads):
    weights, data = trained
    push_to_hub.main([weights, "--name", "me/style", "--license", "mit", "--private"])
    made, sent = uploads
    assert made == {"name": "me/style", "private": True, "exist_ok": True} and sent["name"] == "me/style"
    assert list(sent["files"]) == ["README.md", "config.json", "metadata.safetensors", "model.safetensors"]
    assert_names_no_place(sent["files"], data.parent, tmp_path)
    card = sent["files"]["README.md"].decode()
    assert front(card)["license"] == "mit" and 'load_encoder("me/style"' in card and card.count("\n# style\n") == 1


def test_a_card_that_was_edited_goes_up_as_it_is(trained, tmp_path, uploads, capsys):
    push_to_hub.main([trained[0], "--output", str(tmp_path / "hub"), "--license", "mit"])
    card = tmp_path / "hub" / "README.md"
    card.write_text(card.read_text().replace("## Use", "Drawn by hand.\n\n## Use"))
    push_to_hub.main([str(tmp_path / "hub"), "--name", "me/style"])
    files = uploads[-1]["files"]
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "hub").iterdir()}
    assert b"Drawn by hand." in files["README.md"] and "licence" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="has a card already"):
        push_to_hub.main([str(tmp_path / "hub"), "--name", "me/style", "--license", "mit"])
    card.unlink()
    push_to_hub.main([str(tmp_path / "hub"), "--name", "me/style"])
    assert "## Results" in uploads[-1]["files"]["README.md"].decode()


def test_the_card_holds_the_runs_figures_and_no_others(trained, tmp_path, capsys):
    weights, data = trained
    push_to_hub.main([weights, "--output", str(tmp_path / "hub")])
    card = (tmp_path / "hub" / "README.md").read_text()
    content = load_model(weights, "style encoder")
    head = front(card)
    assert "license" not in head and "no licence" in capsys.readouterr().out
    assert head["library_name"] == "vision-wrapper" and head["pipeline_tag"] == "image-feature-extraction"
    wanted = {name[4:]: value for name, value in content["metrics"].items() if name.startswith("val/")}
    assert set(head["metrics"]) == set(wanted) and "style_auc" in wanted
    shown = dict(re.findall(r"^\| `(\w+)` \| ([\d.e-]+) \|$", card, re.MULTILINE))
    assert shown == {name: f"{value:.4g}" for name, value in wanted.items()}
    assert f"after epoch {content['epoch']}, step {content['step']}" in card
    run = json.loads((data.parent / "checkpoints" / "run.json").read_text())
    assert f"commit {run['commit']}" in card and run["command"] not in card
    assert "| `model_name` | `test_vit` |" in card and "| `epochs` | `4` |" in card


def test_what_a_run_does_not_have_is_left_out(tmp_path):
    model = CLIPModel("small", image_size=32, projection_dim=16)
    save_clip(tmp_path / "bare.pth", model)
    push_to_hub.main([str(tmp_path / "bare.pth"), "--output", str(tmp_path / "hub")])
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "metrics" not in front(card) and "base_model" not in front(card)
    for word in ("Results", "Training", "The run", "None", "nan"):
        assert word not in card
    again, facts = load_clip(tmp_path / "hub")
    assert same(dict(model.state_dict()), dict(again.state_dict())) and same(facts["build"]["config"], model.config)


def test_clips_that_transformers_does_not_have(tmp_path):
    model = CLIPModel("small", image_tower="test_efficientnet", image_size=64, sigmoid=True).eval()
    save_clip(tmp_path / "timm.pth", model)
    push_to_hub.main([str(tmp_path / "timm.pth"), "--output", str(tmp_path / "hub")])
    again, _ = load_clip(tmp_path / "hub")
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(again.encode_image(images), model.encode_image(images))
        assert torch.equal(again.encode_text(["a sea"]), model.encode_text(["a sea"]))
    assert torch.equal(again.network.logit_bias, model.network.logit_bias)


def test_blip2_gated_names_what_it_was_made_from(tiny_blip2, tmp_path, uploads):
    from blip2_gated import config

    settings = read_settings(
        config,
        [
            "--model.blip2",
            str(tiny_blip2),
            "--model.efficientnet.name",
            "test_efficientnet",
            "--model.efficientnet.weights",
            "false",
            "--model.efficientnet.image_size",
            "32",
            "--model.prompt_mapper.hidden",
            "32",
        ],
    )
    recipe = build_arguments(settings, [VqaSample(0, "a.png", "a", style, style, "style") for style in ("oil", "ink")])
    torch.manual_seed(0)
    save_gated(tmp_path / "best.pt", build_gated(recipe), recipe, settings=vars(settings), metrics={"val/main": 1.5})
    with pytest.raises(ValueError, match=f"build: blip2: source is {tiny_blip2}, a path .* --hub_id {tiny_blip2}="):
        push_to_hub.main([str(tmp_path / "best.pt"), "--name", "me/gated"])
    assert uploads == []
    push_to_hub.main(
        [
            str(tmp_path / "best.pt"),
            "--name",
            "me/gated",
            "--hub_id",
            f"{tiny_blip2}=some/opt",
            "--output",
            str(tmp_path / "hub"),
        ]
    )
    files = uploads[-1]["files"]
    assert list(files) == ["README.md", "config.json", "model.safetensors"]
    assert_names_no_place(files, tiny_blip2, tmp_path)
    card = files["README.md"].decode()
    assert front(card)["base_model"] == "some/opt" and "| `main` | 1.5 |" in card
    assert json.loads(files["config.json"])["build"]["blip2"] == {"source": "some/opt"}
    assert len(files["model.safetensors"]) < 2**20 * 4  # the base's weights are not in it
    model, _ = load_gated(tmp_path / "best.pt")
    again, _ = load_gated(tmp_path / "hub", blip2=str(tiny_blip2))
    assert same(dict(model.state_dict()), dict(again.state_dict()))
    pixels = torch.randint(256, (1, 3, model.image_size, model.image_size), dtype=torch.uint8)
    assert model.predict_answers(pixels, ["which?"]) == again.predict_answers(pixels, ["which?"])


@pytest.fixture
def trainers_folder(tiny_clip, tmp_path):
    """What Hugging Face's Trainer and a run leave beside a model."""
    folder = tmp_path / "work" / "mine"
    (folder / "checkpoint-8").mkdir(parents=True)
    for file in tiny_clip.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": "/home/me/models/start"}))
    for name in (
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "training_args.bin",
        "trainer_state.json",
        "run.json",
        "skipped.jsonl",
        "checkpoint-8/model.safetensors",
        "README.md",
        ".lock",
    ):
        (folder / name).write_text("{}")
    training = {"learning_rate": 1e-4, "output_dir": str(folder), "max_steps": -1}
    settings = {"fine_tuning": {"data": "/home/me/data.json", "system_prompt": "auto"}, "training": training}
    (folder / "settings.json").write_text(json.dumps(settings))
    results = {"loss": 0.25, "eval_loss": 0.5, "seconds": 60, "steps": 8, "output_dir": str(folder)}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


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
    (tmp_path / "model" / file).write_bytes(b"weights")
    if config:
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    push_to_hub.main([str(tmp_path / "model"), "--output", str(tmp_path / "out")])
    head = front((tmp_path / "out" / "README.md").read_text())
    assert head["library_name"] == library and head.get("pipeline_tag") == task


def test_an_adapter_must_say_whose_it_is(tmp_path, uploads):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
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

    monkeypatch.setattr(hub.HfApi, "create_repo", refuse)
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
