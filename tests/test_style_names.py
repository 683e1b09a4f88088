"""Names of styles: words of drawings, the fit of a read-out, ranking."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY_RUN, draw_styles, flags, run_folders
from sklearn.linear_model import Ridge
from tokenizers.processors import TemplateProcessing
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import fit_names
import prepare_targets
import style_comparator
import train
from common.models.tokenizer import train_tokenizer
from common.samples.hash_text_encoder import hash_text
from common.samples.invented import invented_style
from common.samples.invented_words import describe
from fit_names import RIDGE, fit_readout, fit_regression, measure_names
from style_encoder import load_encoder
from style_names import encode_texts

CPU = torch.device("cpu")
HASHED = {"text_encoder": "hash", "max_length": 16, "prompt": "{style} style"}
TEXTS = ("thin lines", "medium lines", "bold lines")


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A run whose styles have texts -> weights, data folder."""
    folder = tmp_path_factory.mktemp("named")
    data = draw_styles(folder / "data", targets=False)
    for style, text in enumerate(TEXTS):
        (data / f"style_{style}" / "style.txt").write_text(text)
    prepare_targets.main(["--data_dir", str(data)])
    train.main(TINY_RUN + run_folders(data, folder) + flags(remix_share=0, drawn_share=0))
    return str(folder / "checkpoints" / "best.pth"), data


def test_names_are_ranked_by_the_text_of_the_style(named, capsys):
    weights, data = named
    for style, text in enumerate(TEXTS):
        result = style_comparator.main(
            [str(data / f"style_{style}"), "--weights", weights, "--names", "bold lines", "thin lines", "medium lines"]
        )
        assert result["names"][0]["name"] == text
        assert sum(image["best"] == text for image in result["images"]) > len(result["images"]) / 2
    assert "8 images of" in capsys.readouterr().out
    image = next((data / "style_0").glob("*_img.png"))
    style_comparator.main([str(image), "--weights", weights, "--names", "thin lines", "bold lines", "--json"])
    assert json.loads(capsys.readouterr().out)["images"][0]["image"] == str(image)


def test_the_report_says_which_words_no_text_held_and_what_the_names_are_worth(named, capsys):
    weights, data = named
    texts = load_encoder(weights, CPU)[1]["texts"]
    assert (texts["prompt"], texts["styles"], texts["drawn_styles"]) == ("{style} style", 3, 8)
    assert {"thin", "medium", "bold", "lines", "style"} <= set(texts["words"])
    word, auc = next(iter(texts["visible"].items())) if texts.get("visible") else ("thin lines", None)
    image = next((data / "style_0").glob("*_img.png"))
    result = style_comparator.main([str(image), "--weights", weights, "--names", word, "bold etching"])
    entries = {entry["name"]: entry for entry in result["names"]}
    assert entries["bold etching"]["unread"] == ["etching"] and not entries[word]["unread"]
    assert entries[word].get("auc") == auc
    shown = capsys.readouterr().out
    assert "holds etching: random" in shown and "fitted on 8 drawn styles and 3 of the data" in shown


def test_the_read_out_is_a_ridge_regression_onto_whitened_texts():
    torch.manual_seed(0)
    for width in (6, 60):  # fewer and more statistics than images
        images, pooled, weight = torch.randn(40, width) * torch.rand(width), torch.randn(40, 5), torch.rand(40) + 0.1
        parts = fit_regression(images, pooled, weight)
        share = (weight / weight.sum())[:, None]
        mean = (share * images).sum(0)
        deviation = (share * (images - mean) ** 2).sum(0).sqrt()
        rows = ((images - mean) / (deviation + 1e-3 * deviation.max()) / width**0.5).numpy()
        covariance = np.cov(pooled.T.numpy(), aweights=weight.numpy(), ddof=0)
        root = parts["whitening"].numpy()
        np.testing.assert_allclose(
            np.linalg.inv(root @ root), covariance + np.trace(covariance) / 5 * np.eye(5), atol=1e-4
        )
        targets = (pooled - (share * pooled).sum(0)).numpy() @ root
        expected = Ridge(RIDGE, fit_intercept=False).fit(rows, targets, share[:, 0].numpy()).predict(rows)
        np.testing.assert_allclose(((images - parts["mean"]) @ parts["readout"]).numpy(), expected, atol=1e-4)


def test_words_that_show_are_told_from_words_that_do_not():
    """Statistics that hold the vector of one word, and nothing of another."""
    random = np.random.default_rng(0)
    words = [f"{random.choice(['thin', 'bold'])} lines, {random.choice(['glossy', 'flat'])}" for _ in range(200)]
    images = torch.tensor([[float("thin" in text), 1.0] for text in words]) + 0.01 * torch.randn(200, 2)
    pooled = encode_texts(words, HASHED, CPU)
    texts = {**HASHED, **fit_readout(images[:100], pooled[:100], torch.ones(100), 60)}
    found = measure_names(images[100:], words[100:], texts, CPU)
    assert found["choices"] == 4 and 0.3 < found["first"] < 0.7  # right in one of two words
    assert found["visible"]["thin lines"] > 0.95 and found["visible"]["glossy"] < 0.7


def test_any_weights_take_names_by_a_clip_text_tower(named, tmp_path, capsys):
    tokenizer = train_tokenizer(["thin medium bold lines style"], 300, "<pad>", "</s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    config = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "projection_dim": 10}
    config |= {"num_hidden_layers": 1, "num_attention_heads": 2, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    tower = CLIPTextModelWithProjection(CLIPTextConfig(**config))
    for saved in (tower, tokenizer):
        saved.save_pretrained(tmp_path / "tower")
    weights, data = tmp_path / "copy.pth", named[1]
    shutil.copy(named[0], weights)
    before = load_encoder(weights, CPU)[1]
    run = flags(weights=weights, data_dir=data, text_encoder=tmp_path / "tower", drawn_styles=0, max_length=16)
    fit_names.main([*run, "--prompt", "a {style} drawing"])
    after = load_encoder(weights, CPU)[1]
    assert before.keys() == after.keys() and before["metrics"] == after["metrics"]
    assert after["texts"]["readout"].shape[1] == 10 and "0 drawn styles and 3 of the data" in capsys.readouterr().out
    for style, text in enumerate(TEXTS):
        words = [str(data / f"style_{style}"), "--weights", str(weights), "--names", *TEXTS]
        assert style_comparator.main(words)["names"][0]["name"] == text


def test_a_long_description_counts_to_its_last_word():
    long = "thin lines, " * 20 + "on dark paper"
    first, second = (hash_text(text)["pooled"] for text in (long, long.replace("dark", "tinted")))
    assert not torch.equal(first, second)
    torch.testing.assert_close(hash_text("bold, lines!")["pooled"], hash_text("lines bold")["pooled"])


def test_what_cannot_be_ranked_by_name_is_refused(named, trained):
    image = next((named[1] / "style_0").glob("*_img.png"))
    with pytest.raises(ValueError, match=r"fit_names.py --weights .* fits them"):
        style_comparator.main([str(image), "--weights", trained[0], "--names", "bold"])
    with pytest.raises(ValueError, match="two or more described styles"):
        fit_names.main(["--weights", trained[0], "--drawn_styles", "0"])
    for names in (["a", " "], ["a"]):
        with pytest.raises(ValueError, match="none of them empty, for one image or folder"):
            style_comparator.main([str(image)] * (1 + (names == ["a"])) + ["--weights", named[0], "--names", *names])


def test_every_invented_style_has_words_and_most_have_their_own():
    texts = [describe(invented_style(seed)) for seed in range(0, 400, 4)]
    assert all(2 <= len(text.split(", ")) <= 14 for text in texts)
    assert len(set(texts)) > 85
