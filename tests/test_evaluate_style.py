"""Evaluation of style encoders: the tables, what they say of the question, and the baselines."""

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import draw_styles

import evaluate_style
from common.metrics.embedding import retrieval_metrics
from evaluate_style import best_weight, chance_precision, format_table, weighted_concatenation
from style_head import GramStatistics, colour_histogram


def evaluate(trained, *options, data=None):
    weights, training_data = trained
    return evaluate_style.main(["--weights", weights, "--data_dir", str(data or training_data), *options])


def test_tables_in_colour_and_grey(trained, tmp_path, capsys):
    both = evaluate(trained, "--output", str(tmp_path / "both.json"))
    text = capsys.readouterr().out
    assert json.loads((tmp_path / "both.json").read_text()) == both
    assert both["grey"] != both["colour"]
    assert len(both["colour"]) == 5 and list(both["colour"])[0] == "style encoder"
    for result in (*both["colour"].values(), *both["grey"].values()):
        for question in ("style", "content"):
            assert all(0 <= result[question][name] <= 1 for name in evaluate_style.METRICS)
        assert 0 <= result["style"]["conflict"] <= 1
        assert set(result["style"]["per_style"]) == {"style_0", "style_1", "style_2"}
    assert text.startswith("24 images of 3 styles, 3-way:") and "P@1 .304" in text  # 7 of 23
    assert max(map(len, text.splitlines())) < 80


def test_selected_styles(trained, capsys):
    part = evaluate(trained, "--styles", "style_0", "style_2", "--grey")
    assert "two-way" in capsys.readouterr().out
    assert part["styles"] == 2 and part["images"] == 16 and "colour" not in part
    with pytest.raises(ValueError, match="--styles: no nothing in"):
        evaluate(trained, "--styles", "nothing")
    with pytest.raises(ValueError, match="8 readable images of 1 styles"):
        evaluate(trained, "--styles", "style_1")
    with pytest.raises(ValueError, match="3 readable images of 3 styles"):
        evaluate(trained, "--names", "item0")


def test_intervals_and_csls(trained, tmp_path, capsys):
    data = draw_styles(tmp_path / "seven", styles=7, images=4, targets=False)
    report = evaluate(trained, "--csls", "--grey", data=data)
    plain, corrected = (report["grey"][name]["style"] for name in ("style encoder", "style encoder, CSLS"))
    assert corrected["map_at_r"] != plain["map_at_r"] and "conflict" not in corrected
    for name, (low, high) in plain["interval"].items():
        assert low <= plain[name] <= high, name
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("style encoder  "))
    low, high = plain["interval"]["auc"]
    assert f" {plain['auc']:.3f} {low:.2f}-{high:.2f} ".replace("0.", ".").replace("1.00", "1.0") in row
    assert max(map(len, lines)) < 80


def test_fewer_styles_share_names_than_have_intervals(trained, tmp_path):
    data = draw_styles(tmp_path / "five", styles=5, images=3, targets=False)
    for path in (data / "style_4").iterdir():
        path.rename(path.with_name(f"other_{path.name}"))
    style = evaluate(trained, "--grey", data=data)["grey"]["style encoder"]["style"]
    assert 0 <= style["conflict"] <= 1 and set(style["interval"]) == set(evaluate_style.METRICS)


def test_table_of_many_styles_and_of_none():
    metrics = {"auc": 0.5, "precision_at_1": 0.25, "map_at_r": 0.1}
    styles = {f"style {number}": {**metrics, "map_at_r": 1 - number / 100} for number in range(80)}
    report = {"grey": {"style encoder": {"style": {**metrics, "per_style": styles}, "content": {}}}}
    listed = evaluate_style.format_styles(report)
    assert "style 79 " in listed and "style 20 " not in listed
    assert format_table({"style encoder": {"style": {}, "content": {}}}).splitlines()[-1].split()[2:] == ["-"] * 5


def test_chance_is_a_random_order():
    """Three queries with 2 of 13 others in their style, ten with 9 of 13; the single image is no query."""
    assert chance_precision([3, 10, 1]) == pytest.approx((3 * 2 / 13 + 10 * 9 / 13) / 13)


def test_best_weight_is_no_worse_than_any():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 6
    first, second = (
        torch.randn(6, width, generator=generator)[labels] + 1.5 * torch.randn(60, width, generator=generator)
        for width in (3, 9)
    )
    cosines = (
        F.cosine_similarity(first[:, None], first[None], dim=2),
        F.cosine_similarity(second[:, None], second[None], dim=2),
    )
    whole = F.normalize(weighted_concatenation(first, 5 * second, 0.3), dim=1)
    torch.testing.assert_close(whole @ whole.T, 0.3 * cosines[0] + 0.7 * cosines[1], atol=1e-5, rtol=0)
    scores = {
        step: retrieval_metrics(weighted_concatenation(first, second, step / 10), labels)["map_at_r"]
        for step in range(1, 10)
    }
    assert scores[round(10 * best_weight(first, second, labels))] == max(scores.values()) > min(scores.values())


def test_colour_histogram_by_a_slow_loop():
    image = torch.randint(256, (1, 3, 5, 5), dtype=torch.uint8)
    counts = torch.zeros(8, 8, 8)
    for y in range(5):
        for x in range(5):
            r, g, b = (int(value) // 32 for value in image[0, :, y, x])
            counts[r, g, b] += 1
    found = colour_histogram(image)[0]
    torch.testing.assert_close(found, (counts.flatten() / 25).sqrt())
    torch.testing.assert_close(found.norm(), torch.tensor(1.0))
    torch.testing.assert_close(colour_histogram(image / 255)[0], found)


def test_gram_matrices_by_a_slow_loop():
    feature_map = torch.randn(1, 3, 2, 2)
    gram = [
        sum(feature_map[0, i, y, x] * feature_map[0, j, y, x] for y in range(2) for x in range(2)) / 4
        for i in range(3)
        for j in range(i, 3)
    ]
    expected = torch.nn.functional.normalize(torch.stack(gram), dim=0)
    torch.testing.assert_close(GramStatistics([3])([feature_map])[0], expected)
    assert GramStatistics([100])([torch.randn(2, 100, 3, 3)]).shape == (2, 64 * 65 // 2)
