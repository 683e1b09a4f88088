"""Tiling against InternVL's published numbers and a slow search over every grid."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.images.tiling import IMAGENET_MEAN, IMAGENET_STD, Tiling

GOLDEN = [  # sizes, (grid, tiles) at most 6, (grid, tiles) at most 12; 256 tokens a tile
    ([(448, 448), (512, 512)], ((1, 1), 1), ((1, 1), 1)),
    ([(640, 640), (800, 800)], ((2, 2), 5), ((2, 2), 5)),
    ([(1024, 1024), (2048, 2048)], ((2, 2), 5), ((3, 3), 10)),
    ([(640, 480), (800, 600)], ((3, 2), 7), ((4, 3), 13)),
    ([(1280, 720), (1920, 1080)], ((2, 1), 3), ((4, 2), 9)),
    ([(720, 1280)], ((1, 2), 3), ((2, 4), 9)),
]


@pytest.mark.parametrize("sizes, six, twelve", GOLDEN, ids=str)
def test_published_grids(sizes, six, twelve):
    for width, height in sizes:
        for limit, (grid, tiles) in ((6, six), (12, twelve)):
            tiling = Tiling(448, 256)
            assert tiling.grid((width, height), limit) == grid
            assert tiling.count((width, height), limit) == tiles
            assert replace(tiling, thumbnail=False).count((width, height), limit) == grid[0] * grid[1]


@settings(max_examples=200, deadline=None)
@given(st.integers(20, 3000), st.integers(20, 3000), st.integers(1, 12), st.integers(1, 3))
def test_against_every_grid(width, height, limit, least):
    least = min(least, limit)
    grids = [(i, j) for i in range(1, limit + 1) for j in range(1, limit + 1) if least <= i * j <= limit]
    nearest = min(abs(width / height - i / j) for i, j in grids)
    best = None
    for area in sorted({i * j for i, j in grids}):
        for i, j in grids:
            if (
                i * j == area
                and abs(width / height - i / j) == nearest
                and (best is None or width * height > 0.5 * 448 * 448 * area)
            ):
                best = (i, j)
    found = Tiling(448, 256, least, limit).grid((width, height), limit)
    assert found == best
    assert abs(Fraction(width, height) - Fraction(*found)) <= min(
        abs(Fraction(width, height) - Fraction(i, j)) for i, j in grids
    ) + Fraction(1, 10**9)


def test_tiles_are_the_image_row_by_row():
    ramp = np.zeros((56, 84, 3), dtype=np.uint8)
    for row in range(2):
        for column in range(3):
            ramp[row * 28 : row * 28 + 28, column * 28 : column * 28 + 28] = 40 * (row * 3 + column)
    image = Image.fromarray(ramp)
    tiles = Tiling(28, 4).cut(image, 6)
    assert [tile.size for tile in tiles] == [(28, 28)] * 7
    assert [int(np.asarray(tile).mean()) for tile in tiles[:6]] == [0, 40, 80, 120, 160, 200]
    assert np.array_equal(np.asarray(tiles[6]), np.asarray(image.resize((28, 28), Image.Resampling.BICUBIC)))
    assert len(Tiling(28, 4, thumbnail=False).cut(image, 6)) == 6
    assert len(Tiling(28, 4).cut(image, 1)) == 1


def test_counted_before_as_cut_after():
    random = np.random.default_rng(0)
    for _ in range(20):
        image = Image.new("RGB", tuple(int(side) for side in random.integers(10, 300, 2)))
        assert len(Tiling(56, 16).cut(image, 9)) == Tiling(56, 16).count(image.size, 9)


def test_pixel_values_are_normalised():
    image = Image.new("RGB", (8, 4), (255, 0, 128))
    image.paste((0, 0, 0), (4, 0, 8, 4))
    values = Tiling(4, 1, thumbnail=False).pixel_values(image, 2)
    assert values.shape == (2, 3, 4, 4) and values.dtype == torch.float32
    grey = Tiling(4, 1, thumbnail=False, mean=(0.5,) * 3, std=(0.5,) * 3)
    expected = [(value / 255 - mean) / std for value, mean, std in zip((255, 0, 128), IMAGENET_MEAN, IMAGENET_STD)]
    assert torch.allclose(values[0, :, 0, 0], torch.tensor(expected), atol=1e-6)
    assert torch.allclose(grey.pixel_values(image, 2)[1], torch.tensor(-1.0))


def test_impossible_limits_are_refused():
    with pytest.raises(ValueError, match="max_dynamic_patch"):
        Tiling(28, 4, min_tiles=3, max_tiles=2)
