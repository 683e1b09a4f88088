"""Few-shot ranking of styles, the calibration behind its probabilities, and the comparator's command line."""

import json
import math
import os

import pytest
import torch
import torch.nn.functional as F
from conftest import draw_styles
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import style_bank
import style_comparator
from few_shot import draw_references, fit_probe, leave_one_out_accuracy, prototype_similarity
from style_bank import calibration_notes, percentile, reference_statistics, style_probabilities, verdict

BOTH = {"slope": 8.0, "count_slope": -0.5, "intercept": -3.0}
from style_head import DIRECTIONS


def clustered(styles, images, seed=0, spread=0.6, width=16):
    """Unit vectors around random centres, style by style -> (N, S), style_ids (N,)."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(styles, 1, width, generator=generator)
    vectors = centres + spread * torch.randn(styles, images, width, generator=generator)
    return F.normalize(vectors.flatten(0, 1), dim=1), torch.arange(styles).repeat_interleave(images)


def test_prototypes_leave_out_the_query_itself():
    vectors, style_ids = clustered(3, 4)
    queries = torch.cat([vectors[[1, 6]], clustered(1, 1, seed=1)[0]])
    similarity, counts = prototype_similarity(queries, vectors, style_ids, torch.tensor([1, 6, -1]))
    for row, left_out in enumerate((1, 6, None)):
        for style in range(3):
            members = [i for i in range(12) if style_ids[i] == style and i != left_out]
            assert counts[row, style] == len(members)
            expected = F.cosine_similarity(queries[row], vectors[members].mean(0), dim=0)
            assert similarity[row, style] == pytest.approx(float(expected), abs=1e-6)


def test_leave_one_out_counts_styles_alike_and_skips_single_images():
    vectors = F.normalize(torch.tensor([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [1, 0.15]]), dim=1)
    assert leave_one_out_accuracy(vectors[:5], torch.tensor([0, 0, 0, 1, 1])) == 1
    # style 1 now holds an image that lies among those of style 0; the fourth style has nothing left to be found by
    style_ids = torch.tensor([0, 0, 0, 1, 2, 1])
    assert leave_one_out_accuracy(vectors, style_ids) == pytest.approx((1 + 0) / 2)
    assert leave_one_out_accuracy(vectors[:2], torch.tensor([0, 1])) is None


def test_draws_leave_a_query_of_every_style():
    style_ids = torch.tensor([0] * 6 + [1] * 2 + [2])
    for seed in range(5):
        chosen = draw_references(style_ids, 4, torch.Generator().manual_seed(seed))
        assert torch.bincount(style_ids[chosen], minlength=3).tolist() == [4, 1, 0]


def test_probe_accuracy_is_that_of_unseen_images():
    """Labels at random: images that chose weights or C would be recognised far above chance."""
    vectors, _ = clustered(1, 60, spread=3, width=64)
    style_ids = torch.arange(60) % 3
    probe, accuracy = fit_probe(vectors, style_ids)
    seen = LogisticRegression(C=1000.0, max_iter=1000).fit(vectors, style_ids).predict(vectors)
    assert balanced_accuracy_score(style_ids, seen) > 0.9 and accuracy < 0.55
    vectors, style_ids = clustered(3, 5, spread=0.2)
    probe, accuracy = fit_probe(vectors, style_ids)
    assert accuracy == 1 and probe.predict_proba(vectors).argmax(1).tolist() == style_ids.tolist()


def test_probability_of_one_of_k_styles_is_bayes_rule():
    similarity, counts = torch.tensor([[0.9, 0.2, 0.7]]), torch.tensor([[1, 4, 0]])
    ratios = [math.exp(8 * s - 0.5 * math.log(n) - 3) for s, n in ((0.9, 1), (0.2, 4))]
    joint = [ratios[0] * 0.5 / 3, ratios[1] * 0.5 / 3, 0, 0.5]
    expected = [value / sum(joint) for value in joint]
    assert style_probabilities(similarity, counts, BOTH)[0].tolist() == pytest.approx(expected, abs=1e-6)
    alone = style_probabilities(similarity[:, :1], counts[:, :1], BOTH)[0, 0]
    assert float(alone) == pytest.approx(1 / (1 + math.exp(-(8 * 0.9 - 3))), abs=1e-6)


@pytest.fixture(scope="module")
def reference():
    vectors, style_ids = clustered(30, 12, seed=2, spread=0.8)
    return reference_statistics(vectors, style_ids.tolist(), unseen=True)


@pytest.mark.parametrize("images", [1, 3, 10])
def test_probabilities_hold_for_new_styles_of_the_same_kind(reference, images):
    vectors, style_ids = clustered(30, 20, seed=3, spread=0.8)
    chosen = draw_references(style_ids, images, torch.Generator().manual_seed(0))
    similarity, counts = prototype_similarity(vectors[~chosen], vectors[chosen], style_ids[chosen])
    probability = style_probabilities(similarity.reshape(-1, 1), counts.reshape(-1, 1), reference["calibration"])[:, 0]
    same = (style_ids[~chosen, None] == torch.arange(30)).flatten()
    weight = torch.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        rows = (probability >= low) & (probability < low + 0.2)
        frequency = float((weight * same)[rows].sum() / weight[rows].sum())
        assert low - 0.12 < frequency < low + 0.32


def test_unknown_styles_are_none_of_these(reference):
    vectors, style_ids = clustered(20, 15, seed=4, spread=0.8)
    chosen = draw_references(style_ids, 5, torch.Generator().manual_seed(0)) & (style_ids < 10)
    queries = ~draw_references(style_ids, 5, torch.Generator().manual_seed(0))
    similarity, counts = prototype_similarity(vectors[queries], vectors[chosen], style_ids[chosen])
    none = style_probabilities(similarity, counts, reference["calibration"])[:, -1]
    assert roc_auc_score(style_ids[queries] >= 10, none) > 0.9


def test_percentiles_and_notes(reference):
    quantiles = reference["same_style_quantiles"]
    assert percentile(quantiles[[0, 250, 1000]], quantiles).tolist() == pytest.approx([0, 25, 100], abs=0.2)
    assert float(quantiles.mean()) > float(reference["other_style_quantiles"].mean())
    near, noise = reference["bank"][:20], clustered(1, 1000, spread=9)[0]
    far = noise[(noise @ reference["bank"].T).topk(10).values.mean(1).argmin()][None]
    assert len(calibration_notes(near, reference)) == 1 and "not seen" in calibration_notes(near, reference)[0]
    assert calibration_notes(far, reference)[1].startswith("1 of 1 images")
    assert "less certain" in calibration_notes(near, reference | {"unseen_styles": False})[0]
    assert verdict({"a": 0.02, "b": 0.97, "c": 0.01}) == "very likely b"
    assert verdict({"a": 0.4, "b": 0.35, "c": 0.25}) == "undecided, perhaps a"


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_without_both_kinds_of_pairs_there_are_no_statistics(labels):
    assert reference_statistics(clustered(1, 3)[0], labels, unseen=False) == {}


def test_statistics_leave_global_randomness_alone():
    vectors, style_ids = clustered(4, 5)
    state = torch.get_rng_state()
    first = reference_statistics(vectors, style_ids.tolist(), unseen=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert reference_statistics(vectors, style_ids.tolist(), unseen=False)["calibration"] == first["calibration"]


def compare(*words):
    return style_comparator.main([str(word) for word in words])


@pytest.fixture
def shelf(trained, tmp_path):
    """-> weights, three folders of four references each, other images of the first style."""
    weights, _ = trained
    data = draw_styles(tmp_path / "shelf", images=7, targets=False)
    new = tmp_path / "new"
    new.mkdir()
    for item in (4, 5, 6):
        for style in range(3):
            image = data / f"style_{style}" / f"item{item}_img.png"
            image.rename(new / f"{item}.png") if style == 0 else image.unlink()
    return weights, [data / f"style_{style}" for style in range(3)], new


def test_a_new_image_among_style_folders(shelf, capsys):
    weights, folders, new = shelf
    result = compare(new / "4.png", *folders, "--weights", weights, "--probe")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[1:])) <= 80 and "none of these" in shown and "4.png among 3 styles" in shown
    (answer,) = result["queries"]
    assert {row["style"] for row in answer["styles"]} == {"style_0", "style_1", "style_2"}
    assert sum(row["probability"] for row in answer["styles"]) + answer["none"] == pytest.approx(1, abs=1e-5)
    assert sum(row["probe"] for row in answer["styles"]) == pytest.approx(1, abs=1e-5)
    assert 0 <= result["accuracy"]["probe"] <= 1 and 0 <= result["accuracy"]["prototypes"] <= 1
    assert [style["images"] for style in result["styles"]] == [4, 4, 4]


def test_a_folder_of_new_images_and_a_style_of_one(shelf, capsys):
    weights, folders, new = shelf
    single = folders[1] / "item0_img.png"
    (new / "text.png").write_text("no image")
    result = compare(new, folders[0], single, "--weights", weights, "--json")
    out, err = capsys.readouterr()
    assert json.loads(out) == result and "text.png" in err
    assert len(result["queries"]) == 3 and result["styles"][1] == {
        "style": "item0_img.png",
        "folder": str(single),
        "images": 1,
    }
    compare(new, *folders, "--weights", weights, "--top", 1)
    assert "2 more; --top 3 shows all" in capsys.readouterr().out


def test_weights_without_statistics_rank_by_similarity(shelf, tmp_path, capsys):
    weights, folders, new = shelf
    content = torch.load(weights, weights_only=True)
    del content["validation"]
    torch.save(content, bare := tmp_path / "bare.pth")
    (answer,) = compare(new / "4.png", *folders, "--weights", bare)["queries"]
    scores = [row["similarity"] for row in answer["styles"]]
    assert scores == sorted(scores, reverse=True) and "none" not in answer
    compare(new, *folders, "--weights", bare)
    assert "probability" not in capsys.readouterr().out
    content["validation"] = {
        "bank": torch.eye(16 + DIRECTIONS),
        "other_style_quantiles": torch.linspace(-1, 1, 1001),
    }  # of old runs
    torch.save(content, bare)
    result = compare(new / "4.png", new / "5.png", "--weights", bare)
    assert {"csls", "other_style_percentile"} < set(result) and "probability" not in result


def test_a_folder_is_one_style_for_an_image_and_for_a_folder(shelf, tmp_path, capsys):
    weights, folders, new = shelf
    one = compare(new / "4.png", folders[0], "--weights", weights)
    two = compare(new, folders[0], "--weights", weights, "--output", tmp_path / "matrix.png")
    assert 0 < one["probability"] < 1 and 0 < two["probability"] < 1
    nested = compare(new / "4.png", folders[0].parent, "--weights", weights)
    assert "probability" not in nested and "*/ --weights" in capsys.readouterr().out


def test_broken_images_and_names_of_any_bytes_end_no_comparison(shelf, tmp_path, capsys):
    weights, folders, new = shelf
    (folders[0] / "broken.png").write_bytes(b"\x89PNG")
    (folders[0] / "gone.png").symlink_to("gone")
    (folders[0] / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    (folders[0] / "item0_img.png").rename(folders[0] / "$\\foo$\x1b[31m\n.png")
    for words in ([new, folders[0], "--output", tmp_path / "m.png"], [new / "4.png", folders[0]], [new, *folders[:2]]):
        compare(*words, "--weights", weights)
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err and all(name in err for name in ("broken.png", "gone.png", "caf\\udce9.png"))


def test_equal_names_are_told_apart_and_mistakes_named(shelf, tmp_path):
    weights, (first, second, third), new = shelf
    twin = tmp_path / "other" / "style_0"
    twin.mkdir(parents=True)
    (second / "item1_img.png").rename(twin / "item1_img.png")
    styles = compare(new / "4.png", first, twin, "--weights", weights)["styles"]
    assert [style["style"] for style in styles] == [str(first), str(twin)]
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.png").write_text("no image")
    for words, named in (
        ([new / "4.png"], "4.png"),
        ([new / "4.png", first, first.parent / "." / "style_0"], "style_0"),
        ([new / "4.png", first, first.parent], "item0_img.png"),
        ([new / "4.png", first, tmp_path / "empty"], "empty"),
        ([new / "4.png", first, tmp_path / "text"], "a.png"),
        ([tmp_path / "text" / "a.png", first, third], "a.png"),
        ([new / "4.png", first, tmp_path / "nowhere"], "nowhere"),
        ([new / "4.png", first, new / "4.png"], "4.png"),
        ([new / "4.png", first, "--probe"], "--probe"),
        ([new / "4.png", first, twin, "--probe"], "style_0"),
    ):
        with pytest.raises((ValueError, OSError)) as error:
            compare(*words, "--weights", weights)
        assert named in str(error.value) and "\n" not in str(error.value)


def test_the_bank_stays_small(monkeypatch):
    monkeypatch.setattr(style_bank, "BANK_SIZE", 40)
    vectors, style_ids = clustered(10, 30)
    assert reference_statistics(vectors, style_ids.tolist(), unseen=False)["bank"].shape == (40, 16)
