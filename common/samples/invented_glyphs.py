"""Skeletons of letters, digits and signs, and of signs of alphabets that do not exist."""

import numpy as np

# Skeletons on a grid of 9 columns and 10 rows, "column row" of each point; ~ a smooth curve through the points.
GLYPHS = {
    # fmt: off
    "A": "09 40 89|16 76",
    "B": "00 09|~00 50 72 50 04|~04 55 87 58 09",
    "C": "~81 50 22 04 27 59 88",
    "D": "00 09|~00 51 84 58 09",
    "E": "80 00 09 89|04 64",
    "F": "80 00 09|04 64",
    "G": "~81 50 13 17 59 87|87 85 55",
    "H": "00 09|80 89|04 84",
    "J": "70 76|~76 58 29 07",
    "K": "00 09|80 04 89",
    "L": "00 09 89",
    "M": "09 00 46 80 89",
    "N": "09 00 89 80",
    "O": "~40 11 04 18 49 78 84 71 40",
    "P": "00 09|~00 50 82 55 05",
    "Q": "~40 11 04 18 49 78 84 71 40|56 89",
    "R": "00 09|~00 50 82 55 05|45 89",
    "S": "~81 40 02 44 86 49 08",
    "T": "00 80|40 49",
    "U": "00 05|~05 28 49 68 85|85 80",
    "V": "00 49 80",
    "W": "00 29 43 69 80",
    "X": "00 89|80 09",
    "Y": "00 45 80|45 49",
    "Z": "00 80 09 89",
    "a": "~73 43 16 49 76|73 79",
    "b": "00 09|~05 43 76 49 07",
    "d": "70 79|~75 33 06 39 77",
    "e": "16 76|~76 43 16 49 78",
    "f": "~71 50 33|33 39|14 64",
    "g": "~73 43 15 47 75|73 78|~78 59 19",
    "h": "00 09|~06 43 75|75 79",
    "k": "10 19|73 15 79",
    "m": "03 09|~06 23 45|45 49|~46 63 85|85 89",
    "n": "13 19|~15 43 75|75 79",
    "p": "03 09|~04 53 75 57 06",
    "q": "73 79|~74 43 15 47 76",
    "r": "13 19|~15 43 73",
    "s": "~73 43 14 46 77 49 18",
    "t": "30 37|~37 59 78|13 63",
    "u": "13 16|~16 48 76|73 79",
    "y": "03 48|83 29",
    "0": "~40 12 17 49 77 72 40",
    "1": "12 40 49",
    "2": "~12 40 72 55|55 19 79",
    "3": "~11 50 72 44|~44 77 49 08",
    "4": "60 06 86|60 69",
    "5": "70 20 14|~14 54 77 49 08",
    "6": "~70 33 07 49 77 54 16",
    "7": "00 80 39",
    "8": "~44 12 40 72 44 17 49 77 44",
    "9": "~75 43 12 40 72 75 59 29",
    "?": "~12 40 72 45 46|48 49",
    "&": "~89 23 40 53 06 39 75",
    "+": "05 85|41 49",
    "#": "20 19|60 59|03 83|06 86",
    "%": "80 09|~10 02 23 10|~76 69 88 76",
    "@": "~65 43 25 46 65|~65 76 84 41 05 49 78",
    "$": "~81 40 02 44 86 49 08|40 49",
    # fmt: on
}


def draw_glyph(random: np.random.Generator) -> list[np.ndarray]:
    """A letter, a digit, or a sign of an alphabet that does not exist."""
    if random.random() < 0.25:
        strokes = []
        for _ in range(random.integers(2, 4)):
            knots = np.stack(np.divmod(random.permutation(9)[: random.integers(2, 5)], 3), 1)
            strokes.append((random.random() < 0.5, knots * [4.0, 4.5]))
    else:
        text = GLYPHS[list(GLYPHS)[random.integers(len(GLYPHS))]]
        strokes = [
            (stroke[0] == "~", np.array([[int(pair[0]), int(pair[1])] for pair in stroke.lstrip("~").split()], float))
            for stroke in text.split("|")
        ]
    paths = [smooth(points) if curved else points for curved, points in strokes]
    return [(path - [4, 4.5]) / 4.5 for path in paths]


def smooth(points: np.ndarray, per_knot: int = 8) -> np.ndarray:
    """A Catmull-Rom spline through the points; closed if the last is the first."""
    closed = len(points) > 3 and bool((points[0] == points[-1]).all())
    before, after = (points[-2], points[1]) if closed else (2 * points[0] - points[1], 2 * points[-1] - points[-2])
    knots = np.concatenate([before[None], points, after[None]])
    p0, p1, p2, p3 = (knots[i : len(knots) - 3 + i, None] for i in range(4))
    t = np.linspace(0, 1, per_knot, endpoint=False)[None, :, None]
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return np.concatenate([curve.reshape(-1, 2), points[-1:]])
