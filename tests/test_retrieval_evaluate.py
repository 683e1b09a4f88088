"""Evaluation of retrieval as it is called: what is ranked, skipped and printed."""

import json
import shutil

import numpy as np
import pytest
from conftest import flags
from tiny.retrieval import VIT, draw

from common.images.io import list_images
from common.vectors.feature_set import FeatureSet
from retrieval import evaluate_retrieval, extract_features


def extract(images, output, *more):
    made = flags(image_dir=images, output=output, vit_checkpoint=VIT, image_size=32, device="cpu")
    return extract_features.main([*made, *more])


@pytest.fixture
def folder(tmp_path):
    draw(tmp_path / "images", range(24))
    return tmp_path / "images"


@pytest.fixture
def features(folder, tmp_path):
    draw(tmp_path / "queries", range(100, 112))
    shutil.copytree(tmp_path / "queries" / "class_0", tmp_path / "queries" / "unheard_of")
    for name, images in (("query", tmp_path / "queries"), ("gallery", folder)):
        extract(images, tmp_path / f"{name}.npz")
    return ["--query_features", str(tmp_path / "query.npz"), "--gallery_features", str(tmp_path / "gallery.npz")]


def test_lines_and_json(features, tmp_path, capsys):
    capsys.readouterr()
    report = evaluate_retrieval.main(
        [*features, "--top_k", "1", "3", "5", "--output", str(tmp_path / "out" / "r.json")]
    )
    said = capsys.readouterr().out.splitlines()
    assert said[:5] == [
        "加载查询集特征...",
        "加载候选集特征...",
        "查询集: (15, 64), 候选集: (24, 64)",
        "构建 FAISS 索引...",
        "执行检索...",
    ]
    for k, line in zip((1, 3, 5), said[5:8]):
        hits = round(report[f"Top-{k}"] * 15)
        assert line == f"Top-{k} 准确率: {hits / 15:.4f} ({hits}/15)"
    written = json.loads((tmp_path / "out" / "r.json").read_text())
    assert written["Top-1"] == report["Top-1"] and written["coverage"] == 0.8
    assert report["Top-5"] / 0.8 == pytest.approx(report["answerable"]["Top-5"]) and report["answerable"]["Top-5"] == 1
    assert "3 of 15 queries have no image of their class in the gallery" in "\n".join(said)


@pytest.mark.parametrize(
    "more",
    [
        ["--index", "exact"],
        ["--index", "hnsw"],
        ["--index", "IVF2,Flat", "--search_params", "nprobe=2"],
        ["--pca_whiten", "4"],
        ["--dba", "2", "--alpha_qe", "2"],
        ["--rerank", "k_reciprocal", "--k1", "5", "--k2", "2"],
        ["--rerank", "diffusion"],
    ],
)
def test_every_way_of_ranking_runs(features, more):
    assert evaluate_retrieval.main([*features, *more])["answerable"]["Top-5"] > 0.6


def test_queries_that_are_the_gallery(features, folder, tmp_path):
    """Leave one out: without the rule every Top-1 would be right, whatever the classes."""
    names = [path.relative_to(folder) for path in list_images(folder)]
    (tmp_path / "labels.csv").write_text("".join(f"{name},{int(name.stem) // 12}\n" for name in names))  # not the hue
    files = {"features": features[3], "labels": tmp_path / "labels.csv"}
    alone = evaluate_retrieval.main(flags("query_", **files) + flags("gallery_", **files))
    assert alone["duplicates_removed"] == 24 and alone["chance"]["Top-1"] == pytest.approx(11 / 23)
    assert alone["Top-1"] < 0.9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,x\nb.png,\n", "line 2: no class"),
        ("a.png,x\n,y\n", "line 2: no path"),
        ("a.png,x\nb.png,y\na.png,y\n", "line 3: a.png has another class in an earlier line"),
        ("a.png,x\nb.png,y,z\n", "line 2: 3 cells, but the first line has 2"),
    ],
)
def test_tables_of_classes_are_refused_by_line(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=f"labels.csv {message}"):
        evaluate_retrieval.read_classes(tmp_path / "labels.csv")


def test_paths_of_windows_in_features():
    features = FeatureSet([np.ones((2, 4))], ["C:\\images\\cats\\a.png", "C:\\images\\dogs\\b.png"], ["", ""])
    assert evaluate_retrieval.read_labels(features) == ["cats", "dogs"]


def test_copies_under_other_names_are_left_out(features, folder, tmp_path):
    shutil.copy(folder / "class_1" / "001.png", tmp_path / "queries" / "class_2" / "copy.png")  # labelled wrongly too
    extract(tmp_path / "queries", features[1])
    report = evaluate_retrieval.main(features)
    assert report["duplicates_removed"] == 1 and report["duplicates_found_by"] == "path and bytes"


def test_features_that_do_not_belong_together(features, folder, tmp_path):
    for more, message in (
        (["--flip"], "flip True, not False as in"),
        (["--vit_checkpoint", "test_vit2:random"], "other weights as in"),
        (["--pooling", "cls+mean"], "vectors of width 128, but 64"),
    ):
        extract(folder, tmp_path / "other.npz", *more)
        with pytest.raises(ValueError, match=message):
            evaluate_retrieval.main(["--query_features", str(tmp_path / "other.npz"), *features[2:]])
    with pytest.raises(ValueError, match="--top_k"):
        evaluate_retrieval.main([*features, "--top_k", "0"])
