"""Evaluation of real images by features so plain that their score was measured independently."""

import numpy as np
import pytest
from PIL import Image

from common.images.io import open_image
from retrieval import evaluate_retrieval


@pytest.mark.parametrize("task, published", [("by_content", 0.60), ("by_style", 0.34)])
def test_pixels_score_what_the_data_says(real_data, tmp_path, task, published):
    """16 x 16 pixels as a vector; the README of the data names their Top-1 (its way of shrinking may be another)."""
    folder = real_data / "retrieval"
    arguments = []
    for side in ("query", "gallery"):
        rows = [line.split("\t") for line in (folder / task / f"{side}.tsv").read_text().splitlines()]
        paths = [folder / name for name, _ in rows]
        pixels = [np.asarray(open_image(path).resize((16, 16), Image.Resampling.BILINEAR)) for path in paths]
        vectors = np.stack(pixels).reshape(len(paths), -1).astype(np.float32)
        np.savez(tmp_path / f"{side}.npz", features=vectors, image_paths=[str(path) for path in paths])
        (tmp_path / f"{side}.tsv").write_text("".join(f"{path}\t{row[1]}\n" for path, row in zip(paths, rows)))
        arguments += [f"--{side}_features", str(tmp_path / f"{side}.npz")]
        arguments += [f"--{side}_labels", str(tmp_path / f"{side}.tsv")]
    report = evaluate_retrieval.main(arguments)
    assert report["Top-1"] == pytest.approx(published, abs=0.07) and report["coverage"] == 1
