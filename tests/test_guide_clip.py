"""What the guides of CLIP type: data where they put it, commands, weights by name, calls, snippets."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, flags
from PIL import Image
from tiny.clip import pictures, small
from torch.utils.data import DataLoader
from torchvision import transforms
from transformers import CLIPModel as TransformersCLIP
from transformers import CLIPProcessor

from clip import config, dataset, evaluate, inference, optimized_metadata, train
from clip.architectures import OPENAI_NAMES
from clip.checkpoint import save_clip
from clip.dataset import find_data
from clip.model import CLIPModel
from clip.pretrained import choose_weights
from common.cli import paths
from common.cli.settings import read_settings
from common.samples.layouts import create_sample_dataset

TEXTS = ["a red house", "two cats sleep under a tree", "the sea"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository's root as git leaves it: data/ with a README.md; the reader stands in its clip/."""
    for name in ("data", "clip"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "README.md").write_text("# Your data")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setitem(dataset.SAMPLES, False, 12)
    monkeypatch.chdir(tmp_path / "clip")
    return tmp_path


@pytest.fixture
def clone(root):
    """AniPersonaCaps as cloned from the Hub: metadata.jsonl, images/images_<n>/."""
    folder = root / "AniPersonaCaps"
    create_sample_dataset(folder, 12, layout="persona", size=40)
    (folder / "sample_data.json").unlink()
    (folder / "images").rename(folder / "images_1")
    (folder / "images").mkdir()
    (folder / "images_1").rename(folder / "images" / "images_1")
    metadata = folder / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("images/", "images/images_1/"))
    return folder


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write_styles(root):
    (root / "data" / "watercolour").mkdir()
    Image.new("RGB", (40, 40), "teal").save(root / "data" / "watercolour" / "a_img.png")


def test_nothing_is_drawn_or_trained_on_beside_other_data(root):
    write_styles(root)
    before = files_below(root)
    with pytest.raises(FileNotFoundError, match=r"data: no data\.json.*AniPersonaCaps in .*--data_dir.*--demo"):
        train.main([])
    with pytest.raises(FileNotFoundError, match="typo: no such folder"):
        train.main(["--data_dir", "typo"])
    assert files_below(root) == before


def test_nothing_is_drawn_for_a_command_line_with_a_mistake(root):
    before = files_below(root)
    with pytest.raises(ValueError, match="unknown model 'foo'"):
        train.main(["--model_name", "foo"])
    assert files_below(root) == before


def test_an_empty_data_folder_gets_samples_and_says_so(root, capsys):
    assert find_data("./data", False, True) == root / "data"
    assert "DRAWING 12 SAMPLE PICTURES" in capsys.readouterr().err and (root / "data" / "data.json").is_file()
    find_data("./data", False, True)
    assert "DRAWN SAMPLE DATA" in capsys.readouterr().err
    assert not files_below(root / "clip")


def test_the_walk_of_the_guide(root, clone, tiny_clip, capsys):
    """Clone, train, clean the metadata, look: all of it typed inside clip/, as the guide does."""
    write_styles(root)
    create_sample_dataset(root / "data" / "sample_captions", 4, layout="captions", size=40)
    tiny = flags(model_name=tiny_clip, num_epochs=1, batch_size=4, val_split=0.25, device="cpu")
    assert train.main(tiny)["steps"] >= 1
    assert f"data: {clone}" in capsys.readouterr().out
    settings = json.loads((root / "clip" / "model-checkpoint" / "settings.json").read_text())
    assert settings["data_dir"] == str(clone)
    names = {path.name for path in (root / "clip" / "results").iterdir()}
    assert {"training_curves.png", "model_metrics.png", "training_results.json"} <= names
    assert optimized_metadata.main([])["written"] == 12
    assert (root / "clip" / "optimized_metadata.jsonl").is_file()
    command = "--data_root AniPersonaCaps/images --model model-checkpoint/best_model.pth"
    result = inference.main([*command.split(), "--metadata", "optimized_metadata.jsonl"])
    evaluated = evaluate.main(["--weights", "model-checkpoint/best_model.pth", "--data_dir", "AniPersonaCaps"])
    assert evaluated["images"] == 12
    assert len(result["images"]) == 12 and (root / "clip" / "heatmaps" / "overview.png").is_file()


def test_the_clone_is_found_where_the_reader_stands_and_goes_before_drawn_samples(root, clone):
    create_sample_dataset(root / "data", 4, layout="captions", size=40)
    assert find_data("./data", False, True) == clone
    (root / "data" / "sample_data.json").unlink()  # these captions are the reader's own
    assert find_data("./data", False, True) == root / "data"
    (root / "data" / "data.json").unlink()
    (root / "data" / "images").rename(root / "data" / "style")
    clone.rename(root / "clip" / "AniPersonaCaps")
    assert find_data("./data", False, True).resolve() == root / "clip" / "AniPersonaCaps"


def test_flags_and_defaults_of_the_table(tmp_path):
    settings = read_settings(config, "--batch_size 64 --num_epochs 100 --learning_rate 5e-5".split())
    assert (settings.batch_size, settings.num_epochs, settings.learning_rate) == (64, 100, 5e-5)
    defaults = {"data_dir": "./data", "model_name": "ViT-B/32", "batch_size": 32, "num_epochs": 50}
    defaults |= {"learning_rate": 1e-4, "freeze_backbone": False, "device": "auto", "min_learning_rate": 1e-6}
    defaults |= {"weight_decay": 0.05, "gradient_clip_norm": 1.0}
    assert defaults.items() <= vars(read_settings(config, [])).items()
    model = {"name": "ViT-B/32", "projection_dim": 512, "freeze_backbone": False}
    training = {"batch_size": 32, "learning_rate": 1e-4, "weight_decay": 0.01, "gradient_clip_norm": 1.0}
    (tmp_path / "config.json").write_text(json.dumps({"model": model, "training": training}))
    settings = read_settings(config, ["--config", str(tmp_path / "config.json"), "--freeze_backbone"])
    assert settings.weight_decay == 0.01 and settings.projection_dim == 512 and settings.freeze_backbone


def test_a_pretrained_name_means_pretrained(clip_arguments, monkeypatch):
    assert {choose_weights("auto", name) for name in OPENAI_NAMES} == {"openai"}
    for pretrained in ("none", ""):
        assert choose_weights(pretrained, "ViT-B/32") is None
    demo = read_settings(config, ["--demo"])
    assert train.weights_of(demo) is None and demo.model_name == "small"

    def download(config):
        raise OSError("no network")

    monkeypatch.setattr("open_clip.download_pretrained", download)
    for name in ("ViT-B/32", "RN50", "ViT-L-14"):
        with pytest.raises(ValueError, match="--pretrained openai.*no network.*--pretrained none"):
            train.main([*clip_arguments, "--model_name", name])


def test_a_whole_model_is_no_weights_of_an_architecture(tiny_clip):
    for pretrained in (str(tiny_clip), "openai/clip-vit-base-patch32", str(tiny_clip / "model.safetensors")):
        with pytest.raises(ValueError, match=f"{pretrained}.*--model_name"):
            CLIPModel("ViT-B/32", pretrained)


@pytest.mark.parametrize(
    "words",
    [
        "--freeze_backbone --model_name small",
        "--lock_image --model_name ViT-B/32 --pretrained none",
        "--freeze_backbone --model_name small --image_tower test_vit --image_weights true",
        "--lock_image --model_name small --text_tower folder",
    ],
)
def test_random_weights_are_not_frozen(words):
    with pytest.raises(ValueError, match="would stay random.*--pretrained"):
        train.main(words.split())


def test_from_pretrained(tiny_clip, tmp_path):
    model = CLIPModel.from_pretrained(str(tiny_clip), projection_dim=16, logit_scale_init_value=16.0).to("cpu")
    assert model.scale.item() == pytest.approx(16) and not model.training
    as_transformers = CLIPModel.from_pretrained(tiny_clip, logit_scale_init_value=2.6592)
    assert as_transformers.scale.item() == pytest.approx(1 / 0.07, rel=1e-3)
    save_clip(tmp_path / "best_model.pth", model)
    assert CLIPModel.from_pretrained(tmp_path / "best_model.pth").scale.item() == pytest.approx(16)
    with pytest.raises(ValueError, match="projection_dim=512.*project to 16"):
        CLIPModel.from_pretrained(tiny_clip, projection_dim=512)


def test_the_training_loop_of_the_guide(tiny_clip):
    model = CLIPModel.from_pretrained(tiny_clip, projection_dim=16, logit_scale_init_value=16.0)
    processor = CLIPProcessor.from_pretrained(tiny_clip)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    scaler = torch.amp.GradScaler("cpu")
    batch = [(transforms.ToPILImage()(image), text) for image, text in zip(pictures(48), TEXTS)]
    images, texts = zip(*[item for item in [None, *batch] if item is not None])
    images = processor(images=list(images), return_tensors="pt", padding=True)["pixel_values"]
    words = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "pt"}
    texts, losses = processor(text=list(texts), **words), []
    for _ in range(8):
        with torch.autocast(device_type="cpu", dtype=torch.bfloat16):
            outputs = model(input_ids=texts["input_ids"], attention_mask=texts["attention_mask"], pixel_values=images)
            labels = torch.arange(3)
            loss = 0.5 * (
                F.cross_entropy(outputs.logits_per_image, labels) + F.cross_entropy(outputs.logits_per_text, labels)
            )
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_calls_of_transformers_give_its_numbers(tiny_clip):
    ours, theirs = CLIPModel.from_pretrained(tiny_clip), TransformersCLIP.from_pretrained(tiny_clip).eval()
    processor = CLIPProcessor.from_pretrained(tiny_clip)
    images = [transforms.ToPILImage()(image) for image in pictures(48)]
    inputs = processor(text=TEXTS, images=images, return_tensors="pt", padding=True)
    with torch.no_grad():
        found, wanted = ours(**inputs), theirs(**inputs)
        torch.testing.assert_close(found.logits_per_image, wanted.logits_per_image, rtol=0, atol=1e-4)
        torch.testing.assert_close(found.logits_per_text, wanted.logits_per_text, rtol=0, atol=1e-4)
        images = F.normalize(ours.get_image_features(inputs["pixel_values"]), dim=-1)
        torch.testing.assert_close(images, wanted.image_embeds, rtol=0, atol=1e-5)
        texts = ours.get_text_features(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        torch.testing.assert_close(F.normalize(texts, dim=-1), wanted.text_embeds, rtol=0, atol=1e-5)
        with pytest.raises(ValueError, match="padding on the left"):
            ours(**{**inputs, "attention_mask": inputs["attention_mask"].flip(1)})


def test_pixels_that_are_not_in_0_to_1_are_refused_with_the_reason():
    model, image = small(), pictures() / 255
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with pytest.raises(ValueError, match="the model normalises them itself"):
        model.encode_image(normalise(image))
    with pytest.raises(ValueError, match="divide by 255"):
        model(image * 255, model.tokenize(TEXTS))
    with pytest.raises(ValueError, match=r"expected \(B, 3, 32, 32\)"):
        model.encode_image(image[:, :1])
    with pytest.raises(ValueError, match="at most 77"):
        model.encode_text(torch.ones(2, 80, dtype=torch.int64))
    assert torch.equal(model.encode_text("a red house"), model.encode_text(["a red house"]))


def test_snippets_of_the_training_guide(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "clip")
    monkeypatch.chdir(tmp_path)
    from clip_model import CLIPModel as Same
    from clip_model import ContrastiveLoss, MultimodalTrainer
    from data_loader import ImageTextDataset, create_sample_dataset

    assert Same is CLIPModel and hasattr(MultimodalTrainer, "epochs")
    create_sample_dataset("./data", num_samples=8)
    custom_transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(64),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.2, 0.2, 0.2, 0.1),
            transforms.ToTensor(),
        ]
    )
    batch = next(iter(DataLoader(ImageTextDataset("./data", transform=custom_transform), batch_size=4)))
    assert batch["image"].shape == (4, 3, 64, 64) and batch["tokens"].shape == (4, 77)
    trained = CLIPModel("small").eval()
    save_clip("best_model.pth", trained)
    model = CLIPModel(model_name="small").eval()
    checkpoint = torch.load("best_model.pth")
    model.load_state_dict(checkpoint["model_state_dict"])
    model.load_checkpoint("best_model.pth")
    with torch.no_grad():
        image_features = model.encode_image(batch["image"])
        text_features = model.encode_text(batch["tokens"])
        similarity = torch.matmul(image_features, text_features.T)
    torch.testing.assert_close(similarity * 16, model(batch["image"], batch["tokens"]).logits_per_image)
    loss = ContrastiveLoss(temperature=0.07)(3 * image_features, text_features)
    labels = torch.arange(4)
    wanted = (F.cross_entropy(similarity / 0.07, labels) + F.cross_entropy(similarity.T / 0.07, labels)) / 2
    torch.testing.assert_close(loss, wanted)
    plain = ImageTextDataset("./data", image_size=64)
    assert plain[0]["image"].shape == (3, 64, 64) and plain[0]["image"].dtype == torch.uint8
