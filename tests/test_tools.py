"""The tools on a trained checkpoint: comparator, inspector, evaluation, targets from text."""

import json
from pathlib import Path

import pytest
import torch
from conftest import draw_styles
from PIL import Image

import inspect_image
import prepare_targets
import style_comparator
from dataset import find_samples
from style_head import DIRECTIONS
from targets import load_target


def picture(data, style, item):
    return str(data / f"style_{style}" / f"item{item}_img.png")


def test_two_images(trained, capsys):
    weights, data = trained
    same = style_comparator.main([picture(data, 0, 0), picture(data, 0, 1), "--weights", weights, "--device", "cpu"])
    other = style_comparator.main([picture(data, 0, 0), picture(data, 2, 0), "--weights", weights, "--json"])
    assert -1 <= other["similarity"] < same["similarity"] <= 1
    assert 0 <= same["other_style_percentile"] <= 100 and same["csls"] > other["csls"]
    text, line = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert "style similarity: " in text and json.loads(line) == other
    itself = style_comparator.main([picture(data, 0, 0), picture(data, 0, 0), "--weights", weights])
    assert itself["similarity"] == pytest.approx(1, abs=1e-5)


def test_image_against_folder_either_way_round(trained, capsys):
    weights, data = trained
    one = style_comparator.main([picture(data, 1, 0), str(data), "--weights", weights, "--top", "3"])
    two = style_comparator.main([str(data), picture(data, 1, 0), "--weights", weights])
    assert one == two and len(one["ranked"]) == 24 and one["ranked"][0]["image"] == picture(data, 1, 0)
    scores = [row["similarity"] for row in one["ranked"]]
    assert scores == sorted(scores, reverse=True) and "24 images in" in capsys.readouterr().out


def test_folder_against_folder_draws_the_matrix(trained, tmp_path):
    weights, data = trained
    small = style_comparator.main(
        [str(data / "style_0"), str(data / "style_1"), "--weights", weights, "--output", str(tmp_path / "small.png")]
    )
    assert len(small["rows"]) == 8 and torch.tensor(small["similarity"]).shape == (8, 8)
    assert min(Image.open(tmp_path / "small.png").size) > 200


def test_large_folders_are_shown_by_style():
    similarity = torch.tensor([[1.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 1.0]])
    means, rows, columns = style_comparator.group_means(similarity, ["a", "a", "b"], ["a", "a", "b"])
    assert rows == columns == ["a", "b"]
    torch.testing.assert_close(means, torch.tensor([[0.5, 0.15], [0.15, 1.0]]))
    names, shown = style_comparator.matrix_side(
        Path("x"), [Path(f"x/{style}/{n}.png") for style in "ab" for n in range(30)]
    )
    assert len(shown) == 60 and set(names) == {"a", "b"}


def test_a_large_folder_without_subfolders_is_a_matrix_of_images():
    paths = [Path(f"x/{number:03d}_img.png") for number in range(100)]
    names, shown = style_comparator.matrix_side(Path("x"), paths)
    assert len(names) == 40 and [f"{index:03d}" for index in shown] == names and shown[:3] == [0, 2, 5]
    means, rows, columns = style_comparator.group_means(torch.rand(40, 40), names, names)
    assert means.shape == (40, 40) and rows == columns == names


def test_inspector_reports_every_output(trained, tmp_path, capsys):
    weights, data = trained
    report = inspect_image.main([picture(data, 2, 0), "--weights", weights, "--save_maps", str(tmp_path / "maps.png")])
    shapes = {name: facts["shape"] for name, facts in report["outputs"].items()}
    assert shapes == {
        "embed": [1, 5, 12],
        "pooled embed": [1, 10],
        "attention mask": [1, 5],
        "style": [1, 16 + DIRECTIONS],
        "patches": [1, 4, 64],
        "backbone pooled": [1, 64],
    }
    assert report["outputs"]["style"]["norm"] == pytest.approx(1, abs=1e-5)
    assert report["outputs"]["attention mask"]["dtype"] == "int64"
    shown = capsys.readouterr().out
    assert "The mask is predicted" in shown and "(1, 5, 12)" in shown
    assert min(Image.open(tmp_path / "maps.png").size) > 200
    inspect_image.main([picture(data, 2, 0), "--weights", weights, "--json"])
    assert json.loads(capsys.readouterr().out)["outputs"]["embed"]["shape"] == [1, 5, 12]


def test_style_map_is_where_the_picture_is(trained):
    """A head that reads one quarter of the maps is found to look there."""
    from style_encoder import load_encoder

    encoder, _ = load_encoder(trained[0], torch.device("cpu"))
    real = encoder.style_head.forward
    keep = torch.zeros(1, 1, 2, 2)
    keep[..., 1, 1] = 1  # the maps of this model are 2 x 2
    encoder.style_head.forward = lambda image, maps: real(image, [feature_map * keep for feature_map in maps])
    image = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    heat = inspect_image.style_sensitivity(encoder, image)
    assert heat.shape == (32, 32) and heat[20:, 20:].mean() > 5 * heat[:12, :12].mean()


@pytest.mark.parametrize("tool", [style_comparator, inspect_image])
def test_wrong_files_are_named(trained, tool, tmp_path):
    weights, data = trained
    images = [picture(data, 0, 0)] * (2 if tool is style_comparator else 1)
    (tmp_path / "x.png").write_bytes(b"x")
    for arguments, words in (
        ([*images, "--weights", str(tmp_path / "no.pth")], "no.pth: no such file"),
        ([*images, "--weights", images[0]], "cannot be read as a PyTorch file"),
        ([*images[1:], str(tmp_path / "x.png"), "--weights", weights], "x.png: not an image"),
        ([*images[1:], str(tmp_path / "y.png"), "--weights", weights], "y.png: no such file"),
        ([*images, "--weights", weights, "--device", "tpu"], "--device tpu"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            tool.main(arguments)


def test_targets_from_hashed_words(tmp_path):
    data = draw_styles(tmp_path / "data", targets=False, images=3)
    (data / "style_1" / "style.txt").write_text("ink on paper")
    (data / "style_1" / "item2.txt").write_text("水墨 ink wash")
    assert prepare_targets.main(["--data_dir", str(data)]) == 9
    samples = find_samples(data)
    embeds = [load_target(sample.targets["embed"], "embed") for sample in samples]
    assert embeds[0].shape == (16, 64) and torch.equal(embeds[0], embeds[1])
    assert not torch.equal(embeds[0], embeds[3]) and not torch.equal(embeds[3], embeds[5])
    assert [int(load_target(s.targets["mask"], "mask").sum()) for s in samples] == [5, 5, 5, 5, 5, 5, 5, 5, 5][:3] + [
        5,
        5,
        5,
        5,
        5,
        5,
    ]


def test_targets_resume_and_are_never_mixed(tmp_path):
    data = draw_styles(tmp_path / "data", targets=False, images=3)
    prepare_targets.main(["--data_dir", str(data)])
    (data / "style_0" / "item1_pooled.pt").unlink()
    before = (data / "style_0" / "item1_embed.pt").stat().st_mtime_ns
    assert prepare_targets.main(["--data_dir", str(data)]) == 1
    assert (data / "style_0" / "item1_embed.pt").stat().st_mtime_ns == before
    assert prepare_targets.main(["--data_dir", str(data)]) == 0
    with pytest.raises(ValueError, match="the targets there are of hash .length 16., not hash .length 8."):
        prepare_targets.main(["--data_dir", str(data), "--max_length", "8"])
    assert prepare_targets.main(["--data_dir", str(data), "--max_length", "8", "--overwrite"]) == 9


@pytest.fixture(scope="module")
def text_encoders(tmp_path_factory):
    """Tiny random folders of the layout that a hub download has: a CLIP text tower, a T5 and a BERT."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertModel,
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        PreTrainedTokenizerFast,
        T5Config,
        T5EncoderModel,
    )

    words = {word: number for number, word in enumerate(["<pad>", "<unk>", "style", "0", "1", "2", "ink", "</s>"])}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", model_max_length=12
    )
    small = {"vocab_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    made = {
        "clip": CLIPTextModelWithProjection(
            CLIPTextConfig(
                **small,
                intermediate_size=16,
                projection_dim=10,
                max_position_embeddings=12,
                eos_token_id=7,
                pad_token_id=0,
                bos_token_id=6,
            )
        ),
        "t5": T5EncoderModel(T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)),
        "bert": BertModel(BertConfig(**small, intermediate_size=16)),
    }
    folder = tmp_path_factory.mktemp("encoders")
    for name, model in made.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder, {name: model.eval() for name, model in made.items()}, tokenizer


@pytest.mark.parametrize("name, pooled_width", [("clip", 10), ("t5", 16), ("bert", 16)])
def test_targets_from_hugging_face_encoders(text_encoders, tmp_path, name, pooled_width):
    folder, models, tokenizer = text_encoders
    data = draw_styles(tmp_path / "data", targets=False, images=2)
    prepare_targets.main(
        ["--data_dir", str(data), "--text_encoder", str(folder / name), "--save_dtype", "float32", "--device", "cpu"]
    )
    sample = find_samples(data)[2]
    found = {kind: load_target(path, kind) for kind, path in sample.targets.items()}
    tokens = tokenizer(["style 1 style"], padding="max_length", max_length=12, return_tensors="pt")
    with torch.no_grad():
        output = models[name](input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    torch.testing.assert_close(found["embed"], output.last_hidden_state[0])
    assert found["mask"].tolist() == [1] * 3 + [0] * 9 and found["pooled"].shape == (pooled_width,)
    expected = output.text_embeds[0] if name == "clip" else output.last_hidden_state[0, :3].mean(0)
    torch.testing.assert_close(found["pooled"], expected)


def test_a_text_encoder_that_is_not_there(tmp_path):
    data = draw_styles(tmp_path / "data", targets=False, images=2)
    with pytest.raises(ValueError, match="--text_encoder /no/such: cannot be loaded"):
        prepare_targets.main(["--data_dir", str(data), "--text_encoder", "/no/such"])
    for style in ("style_0", "style_1", "style_2"):
        (data / style / "style.txt").write_text(" ")
    with pytest.raises(ValueError, match="style.txt: no text in it"):
        prepare_targets.main(["--data_dir", str(data)])
