"""Names of styles: words of drawings, ranking by the text encoder of the targets."""

import json

import pytest
import torch
from conftest import TINY_RUN, draw_styles, flags, run_folders

import prepare_targets
import style_comparator
import train
from common.samples.invented import invented_style
from common.samples.invented_words import describe
from style_encoder import load_encoder
from style_names import encode_names, name_similarity


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A run whose styles have texts -> weights, data folder."""
    folder = tmp_path_factory.mktemp("named")
    data = draw_styles(folder / "data", targets=False)
    for style, text in enumerate(("thin lines", "medium lines", "bold lines")):
        (data / f"style_{style}" / "style.txt").write_text(text)
    prepare_targets.main(["--data_dir", str(data)])
    train.main(
        TINY_RUN
        + run_folders(data, folder)
        + flags(epochs=12, learning_rate=2e-3, remix_share=0, drawn_share=0, style_weight=0)
    )
    return str(folder / "checkpoints" / "model_epoch_12.pth"), data


def test_names_are_ranked_by_the_text_of_the_style(named, capsys):
    weights, data = named
    for style, text in enumerate(("thin lines", "medium lines", "bold lines")):
        result = style_comparator.main(
            [str(data / f"style_{style}"), "--weights", weights, "--names", "bold lines", "thin lines", "medium lines"]
        )
        assert result["names"][0]["name"] == text
        assert sum(image["best"] == text for image in result["images"]) > len(result["images"]) / 2
    assert "8 images of" in capsys.readouterr().out
    image = next((data / "style_0").glob("*_img.png"))
    style_comparator.main([str(image), "--weights", weights, "--names", "thin lines", "bold lines", "--json"])
    assert json.loads(capsys.readouterr().out)["images"][0]["image"] == str(image)


def test_the_checkpoint_holds_the_prompt_and_the_mean_of_its_texts(named):
    encoder, content = load_encoder(named[0], torch.device("cpu"))
    texts = content["texts"]
    assert (texts["text_encoder"], texts["prompt"]) == ("hash", "{style} style")
    assert texts["mean"].shape == (encoder.build["pooled_width"],)
    names = encode_names(["thin", "bold"], texts, torch.device("cpu"))
    cosines = name_similarity(names, names, {**texts, "image_mean": texts["mean"]})
    torch.testing.assert_close(cosines.diagonal(), torch.ones(2))
    assert cosines[0, 1] < 0.9


def test_what_cannot_be_ranked_by_name_is_refused(named, trained, tmp_path):
    image = next((named[1] / "style_0").glob("*_img.png"))
    with pytest.raises(ValueError, match="run prepare_targets.py on the data, then train.py"):
        style_comparator.main([str(image), "--weights", trained[0], "--names", "bold"])
    for names in (["a", " "], ["a"]):
        with pytest.raises(ValueError, match="none of them empty, for one image or folder"):
            style_comparator.main([str(image)] * (1 + (names == ["a"])) + ["--weights", named[0], "--names", *names])


def test_every_invented_style_has_words_and_most_have_their_own():
    texts = [describe(invented_style(seed)) for seed in range(0, 400, 4)]
    assert all(2 <= len(text.split(", ")) <= 14 for text in texts)
    assert len(set(texts)) > 85
