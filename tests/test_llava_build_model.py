"""A LLaVA from a language model and a backbone: its image tokens are words of what images show."""

import shutil
from itertools import chain, permutations

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny.llava import WORDS
from transformers import LlamaForCausalLM

from common.images.io import open_image
from common.models.tokenizer import load_tokenizer
from common.text.files import write_jsonl
from llava import train
from llava.build_model import main, words_of
from llava.checkpoint import load_image_text_model
from llava.model import build_tokenizer, small_language
from llava.word_alignment import align_with_words, word_targets

TEXTS, COLOURS = {"en": ("a bright blue sky", "a dark red wall"), "zh": ("蓝天", "红色的墙")}, ("blue", "red")


def test_rare_words_count_more():
    targets = word_targets([{3, 5}, {3}, {3}, {3, 7}, {7}], [3, 5, 7], rarity=0.5)
    assert torch.allclose(targets.sum(1), torch.ones(5)) and targets[1].tolist() == [1, 0, 0]
    assert torch.allclose(targets[0], torch.tensor([1 / 3, 2 / 3, 0]))  # in four images; in one


def test_patches_share_the_words_of_their_image():
    """Two patches, two words, of equal probability: each patch is one of them, which no mean of the two could be."""
    torch.manual_seed(0)
    logits = torch.nn.Parameter(0.1 * torch.randn(1, 2, 3))
    targets = word_targets([{0, 1}], [0, 1, 2])
    _, last = align_with_words(lambda rows: logits[rows], targets, [logits], steps=300, learning_rate=0.1)
    assert sorted(logits[0].argmax(-1).tolist()) == [0, 1] and last < 0.72  # ln 2, as a half of the image is each


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """-> a folder of a language model, weights of a backbone, plain images of two colours with texts, a broken one"""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    tokenizer = build_tokenizer([*WORDS, *(TEXTS["en"] * 50)], 500)
    for part in (tokenizer, LlamaForCausalLM(small_language(tokenizer, 32, 2))):
        part.save_pretrained(folder / "language")
    torch.save(timm.create_model("test_efficientnet", num_classes=0).state_dict(), folder / "backbone.pth")
    rows = [
        {"image": f"{number}.png", "text_en": TEXTS["en"][number % 2], "text_zh": TEXTS["zh"][number % 2]}
        for number in range(8)
    ]
    for number, row in enumerate(rows):
        Image.new("RGB", (50, 40), COLOURS[number % 2]).save(folder / row["image"])
    (folder / "broken.png").write_bytes(b"broken")
    write_jsonl(folder / "images.jsonl", [*rows, {"image": "broken.png", "text_en": "a red wall", "text_zh": "墙"}])
    return folder


def build(parts, *words):
    flags = f"--language_model {parts}/language --image_tower test_efficientnet --image_weights {parts}/backbone.pth"
    sizes = f"--image_size 64 --batch_size 8 --cache_dir {parts}/cache --allowed_share 0.2"
    return main([str(parts / "images.jsonl"), str(parts / "model"), *flags.split(), *sizes.split(), *words])


def test_words_are_those_of_a_sentence(parts):
    """Whole characters, behind a space where the script has spaces."""
    tokenizer = load_tokenizer(str(parts / "language"))
    words = words_of(["blue sky", "蓝天", "한글", "naïve"], tokenizer)
    assert {tokenizer.decode(word) for word in words} >= {" blue", " sky", "蓝", "天", "한", "글", "ï"}
    assert all(len(word) == 3 for word in words if tokenizer.decode(word) in {"蓝", "天", "글"})  # bytes


@pytest.mark.parametrize("language", ["en", "zh"])
def test_image_tokens_are_words_of_the_image(parts, capsys, monkeypatch, language):
    monkeypatch.setattr("llava.build_model.REDRAWN", 0)  # colours are all that tells these images apart
    monkeypatch.setattr("llava.build_model.GREY", 0)
    summary = build(parts, "--steps", "60", "--language", language)
    assert summary["images"] == 8 and "broken.png" in capsys.readouterr().err
    loaded = load_image_text_model(str(parts / "model"), device="cpu")
    tokenizer = loaded.processor.tokenizer
    table = loaded.model.get_input_embeddings().weight
    language_model = LlamaForCausalLM.from_pretrained(parts / "language")
    layers = loaded.model.model.language_model.layers.state_dict()
    assert all(torch.equal(value, layers[name]) for name, value in language_model.model.layers.state_dict().items())
    for number, text in enumerate(TEXTS[language]):
        pixels = loaded.processor.image_processor([open_image(parts / f"{number}.png")], return_tensors="pt")
        with torch.no_grad():
            (patches,) = loaded.model.model.get_image_features(pixels["pixel_values"]).pooler_output
        said = torch.cdist(patches, table).argmin(-1).tolist()
        assert len(said) == (36 if language == "en" else 100)  # three bytes a character
        own = words_of([text], tokenizer)
        first = said[: sum(map(len, own))]
        assert first in [[*chain(*some)] for some in permutations(own)]  # most probable first, and whole


def test_what_is_built_can_be_trained(parts, tmp_path):
    build(parts, "--steps", "2")
    turns = [[("human", "<image>\nWhat is this?"), ("gpt", TEXTS["en"][number % 2])] for number in range(4)]
    rows = [
        {"image": f"{number}.png", "conversations": [{"from": speaker, "value": text} for speaker, text in turn]}
        for number, turn in enumerate(turns)
    ]
    write_jsonl(parts / "turns.jsonl", rows)
    words = f"--model_id {parts}/model --data {parts}/turns.jsonl --output_dir {tmp_path} --max_steps 1 --use_cpu true"
    train.main(f"{words} --logging_dir {tmp_path}/logs --cache_dir {tmp_path}/cache --val_split 0".split())
    loaded = load_image_text_model(str(parts / "model"), str(tmp_path), device="cpu")
    pixels = loaded.processor.image_processor([open_image(parts / "0.png")], return_tensors="pt")["pixel_values"]
    assert loaded.model.get_base_model().model.vision_tower(pixels).last_hidden_state.sum() == 36  # one-hot words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--language_model", "no/such"], "--language_model no/such: cannot be loaded"),
        (["--image_tower", "resnte18"], "resnet18"),
        (["--language", "zh", "fr"], "no image with a text in 'fr'"),
    ],
)
def test_mistakes(parts, words, message):
    with pytest.raises(ValueError, match=message):
        build(parts, *words)


def test_a_transformer_at_another_size_than_its_own(parts, tmp_path):
    """Its table of positions is that of the size it is built for, when the folder is opened again too."""
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "vit.pth")
    build(parts, "--image_tower", "test_vit", "--image_weights", str(tmp_path / "vit.pth"), "--steps", "1")
    backbone = load_image_text_model(str(parts / "model"), device="cpu").model.model.vision_tower.backbone
    assert backbone.pos_embed.shape[1] == 1 + (64 // 16) ** 2


def test_a_language_model_whose_weights_are_incomplete(parts, tmp_path):
    """The rest would be random, and nothing would say so."""
    shutil.copytree(parts / "language", tmp_path / "language")
    weights = load_file(tmp_path / "language" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "language" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="1 of the model's tensors are missing"):
        build(parts, "--language_model", str(tmp_path / "language"))
