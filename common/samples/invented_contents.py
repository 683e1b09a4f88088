"""Contents of the invented styles: what is drawn, without how it is drawn.

content seed -> subject, pieces in about [-1, 1] x [-1, 1], x to the right, y down

A piece is one or more polylines. A closed one is a region; an open one is a line, to be drawn with a pen. `depth` says
what it lies on (0 the ground, 1 a body, 2 a part), `slot` which colour of a palette it takes, `rank` how soon a style
of few details leaves it out.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from common.samples.invented_glyphs import draw_glyph, smooth
from common.samples.shapes import KINDS

SUBJECTS = ("icon", "glyph", "object", "scene")


class Piece(NamedTuple):
    paths: list[np.ndarray]  # of (n, 2)
    closed: bool
    depth: int
    slot: int
    rank: float = 0.0  # in [0, 1)


class Content(NamedTuple):
    subject: str
    pieces: list[Piece]


def subject_of(content_seed: int) -> str:
    """Subjects take turns, so every fourth seed has the same one."""
    return SUBJECTS[content_seed % len(SUBJECTS)]


def draw_content(content_seed: int) -> Content:
    """The content of a seed, the same in every style."""
    random = np.random.default_rng([content_seed, 401])
    subject = subject_of(content_seed)
    pieces, shift = CONTENTS[subject](random), int(random.integers(12))
    return Content(subject, [piece._replace(slot=piece.slot + shift) for piece in pieces])


def ellipse(x: float, y: float, across: float, down: float, start: float = 0, stop: float = 360) -> np.ndarray:
    """An arc between two angles in degrees (0 right, 90 down); the whole ellipse without its double point."""
    count = max(int(abs(stop - start) / 12), 4)
    angle = np.radians(np.linspace(start, stop, count, endpoint=stop - start < 360))
    return np.array([x, y]) + np.stack([across * np.cos(angle), down * np.sin(angle)], 1)


def box(x: float, y: float, across: float, down: float) -> np.ndarray:
    """A rectangle by its middle and half sides."""
    return np.array([[x - across, y - down], [x + across, y - down], [x + across, y + down], [x - across, y + down]])


def _ring(count: int, inner: float) -> np.ndarray:
    """A star, or a polygon where inner is 1."""
    angle = np.arange(2 * count) * np.pi / count - np.pi / 2
    radius = np.where(np.arange(2 * count) % 2, inner, 1.0)[:, None]
    points = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    return points[::2] if inner == 1 else points


def _blob(random: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = [random.uniform(-0.3, 0.3) / k * np.cos(k * angle + random.uniform(0, 6.3)) for k in range(2, 6)]
    radius = 1 + np.sum(waves, axis=0)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def _body(random: np.random.Generator) -> np.ndarray:
    """A closed outline about the origin, about 1 in radius."""
    a, b = random.uniform(0.5, 1.0, 2)
    flare = random.uniform(-0.5, 0.5)
    outlines: list[Callable[[], np.ndarray]] = [
        lambda: box(0, 0, 1, a),
        lambda: box(0, 0, a, 1),
        lambda: box(0, 0, 1, 1),
        lambda: ellipse(0, 0, 1, 1),
        lambda: ellipse(0, 0, 1, a),
        lambda: _ring(int(random.integers(3, 9)), 1),
        lambda: _ring(int(random.integers(4, 14)), random.uniform(0.4, 0.85)),
        lambda: _blob(random),
        lambda: box(0, 0, 1, a) + [[0, 0], [0, 0], [-flare, 0], [flare, 0]],  # bucket, lamp shade
        lambda: np.array([[-1, -0.2], [0, -1], [1, -0.2], [1, 1], [-1, 1]]),  # house
        lambda: np.array([[-1, -0.9], [-0.2, -0.9], [0.1, -0.6], [1, -0.6], [1, 0.9], [-1, 0.9]]),  # folder
        lambda: np.array([[-0.8, -1], [0.3, -1], [0.8, -0.5], [0.8, 1], [-0.8, 1]]),  # page
        lambda: np.array(
            [[-1, -0.9], [1, -0.9], [1, 0.4], [-0.1, 0.4], [-0.5, 0.95], [-0.5, 0.4], [-1, 0.4]]
        ),  # speech
        lambda: np.array([[-0.25, 1], [-0.25, 0], [-0.8, 0], [0, -1], [0.8, 0], [0.25, 0], [0.25, 1]]),  # arrow
        lambda: np.array([[0.2, -1], [-0.7, 0.2], [-0.05, 0.2], [-0.2, 1], [0.7, -0.3], [0.05, -0.3]]),  # flash
        lambda: KINDS["heart"].shapes[0][1] * 2 - 1,
        lambda: KINDS["moon"].shapes[0][1] * 2 - 1,
        lambda: np.concatenate([ellipse(0, -0.1, 0.9, 0.9, 180, 360), [[0.85, 0.3], [0, 1], [-0.85, 0.3]]]),  # shield
        lambda: np.concatenate([[[0.0, -1.0]], ellipse(0, 0.3, 0.7, 0.7, -25, 205)]),  # drop
        lambda: np.concatenate(  # cloud
            [
                ellipse(0.5, 0.2, 0.5, 0.45, -60, 90),
                ellipse(-0.55, 0.25, 0.45, 0.4, 90, 270),
                ellipse(-0.1, -0.2, 0.5, 0.5, 190, 340),
            ]
        ),
        lambda: np.concatenate([[[-1, 0.6]], ellipse(0, 0, 0.65, 1, 180, 360), [[1.0, 0.6]]]),  # bell
    ]
    return outlines[random.integers(len(outlines))]()


def _inside(random: np.random.Generator) -> list[Piece]:
    """What lies on a body: windows, text lines, faces, bars, crosses; within about half of its radius."""
    kind, slot = random.integers(12), int(random.integers(1, 6))
    rank = random.uniform(0, 0.6)
    a = random.uniform(0.2, 0.5)

    def line(*points: float) -> Piece:
        return Piece([np.array(points, float).reshape(-1, 2)], False, 1, slot, rank)

    if kind == 0:
        return [line(-0.45, y, random.uniform(0, 0.45), y) for y in np.linspace(-0.35, 0.4, random.integers(2, 4))]
    if kind == 1:
        return [Piece([ellipse(0, 0, a, a)], True, 1, slot, rank)]
    if kind == 2:
        return [line(-a, 0, a, 0), line(0, -a, 0, a)]
    if kind == 3:
        return [line(-0.4, 0.0, -0.1, 0.3, 0.4, -0.3)]
    if kind == 4:
        bars = np.linspace(-0.4, 0.4, random.integers(2, 5))
        return [
            Piece([box(x, 0.45 - h, 0.08, h)], True, 1, slot, rank) for x, h in zip(bars, random.uniform(0.1, 0.45, 4))
        ]
    if kind == 5:
        eyes = [Piece([ellipse(x, -0.15, 0.1, 0.13)], True, 1, slot, rank) for x in (-0.3, 0.3)]
        return [*eyes, Piece([ellipse(0, 0.1, 0.3, random.uniform(-0.1, 0.3), 10, 170)], False, 1, slot, rank)]
    if kind == 6:
        inner = _body(random) * 0.45
        return [Piece([inner], True, 1, slot, rank), Piece([inner * 0.4], True, 2, slot + 1, rank / 2 + 0.5)]
    if kind == 7:
        return [Piece([box(0, random.uniform(-0.4, 0.4), 0.62, 0.12)], True, 1, slot, rank)]
    if kind == 8:
        xs = np.linspace(-0.4, 0.4, 3)
        return [
            Piece([ellipse(x, y, 0.09, 0.09)], True, 1, slot, 0.3 + abs(y))
            for x in xs
            for y in xs[: random.integers(1, 4)]
        ]
    if kind == 9:
        return [Piece([draw_glyph(random)[0] * 0.45], False, 1, slot, rank)]
    if kind == 10:
        return [Piece([ellipse(0, 0, a + 0.1, a + 0.1)], True, 1, slot, rank), line(0, -a + 0.1, 0, 0, a * 0.6, 0.1)]
    return []


def _outside(random: np.random.Generator) -> list[Piece]:
    """What is fixed to a body: handles, legs, rays, lids, wheels, a badge in the corner; drawn before the body."""
    kind, slot = random.integers(9), int(random.integers(1, 6))
    if kind == 0:
        return [Piece([ellipse(0, -0.8, 0.5, random.uniform(0.4, 0.8), 180, 360)], False, 0, slot)]
    if kind == 1:
        return [Piece([np.array([[x, 0.5], [x * random.uniform(1, 1.4), 1.4]])], False, 0, slot) for x in (-0.5, 0.5)]
    if kind == 2:
        angles = np.arange(count := int(random.integers(5, 11))) * 2 * np.pi / count
        rays = np.stack([np.cos(angles), np.sin(angles)], 1)
        reach = random.uniform(1.5, 1.9)
        return [Piece([np.stack([1.3 * ray, reach * ray])], False, 0, slot, 0.2) for ray in rays]
    if kind == 3:
        return [Piece([box(0, -1.1, random.uniform(0.3, 1.2), 0.15)], True, 0, slot)]
    if kind == 4:
        return [Piece([ellipse(x, 0.95, 0.3, 0.3)], True, 0, slot) for x in (-0.6, 0.6)]
    if kind == 5:
        badge, x = _body(random) * 0.45, random.choice([-0.85, 0.85])
        return [Piece([badge + [x, 0.85]], True, 0, slot), *(_moved(p, 0.4, x, 0.85) for p in _inside(random))]
    if kind == 6:
        return [Piece([np.array([[-1.2, 1.15], [1.2, 1.15]])], False, 0, slot)]
    if kind == 7:
        return [Piece([np.array([[0.5, 0.5], [1.5, 1.5]])], False, 0, slot)]
    return [Piece([_body(random) * 0.7 + random.uniform(-0.7, 0.7, 2)], True, 0, slot)]


def _moved(piece: Piece, scale: float | np.ndarray, x: float, y: float) -> Piece:
    return piece._replace(paths=[path * scale + [x, y] for path in piece.paths])


def _icon(random: np.random.Generator) -> list[Piece]:
    """Bodies with what is fixed to them and what lies on them; one in five of lines alone."""
    if random.random() < 0.2:
        return _lines(random)
    pieces = [piece for _ in range(random.integers(0, 3)) for piece in _outside(random)]
    body = _body(random) * random.uniform(0.75, 1.1, 2)
    pieces.append(Piece([body], True, 0, 0))
    for _ in range(random.integers(1, 3)):
        place = random.uniform(-0.25, 0.25, 2) if random.random() < 0.3 else np.zeros(2)
        pieces += [_moved(piece, random.uniform(0.7, 1.1), *place) for piece in _inside(random)]
    angle = np.radians(random.choice([0, 0, 0, 45, -45, -20, 20]))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [piece._replace(paths=[path @ turn for path in piece.paths]) for piece in pieces]


def _lines(random: np.random.Generator) -> list[Piece]:
    """Arcs, zigzags, waves, arrows and dots."""
    pieces = []
    for slot in range(random.integers(2, 5)):
        path = _free_line(random)
        pieces.append(Piece([path], False, 0, slot))
        if random.random() < 0.4:
            pieces.append(Piece([ellipse(path[-1, 0], path[-1, 1], 0.16, 0.16)], True, 0, slot + 1))
    return pieces


def _free_line(random: np.random.Generator) -> np.ndarray:
    kind, middle = random.integers(5), random.uniform(-0.6, 0.6, 2)
    reach = random.uniform(0.4, 1.1)
    if kind == 0:
        start = random.choice([0, 90, 180, 270])
        return ellipse(middle[0], middle[1], reach, reach, start, start + random.choice([90, 180, 270]))
    if kind == 1:
        knots = random.integers(3, 7)
        return np.stack([np.linspace(-1, 1, knots), random.uniform(-0.6, 0.6, knots)], 1)
    if kind == 2:  # an arrow
        head = middle + [reach, 0]
        return np.stack([middle - [reach, 0], head, head + [-0.4, -0.4], head, head + [-0.4, 0.4]])
    if kind == 3:
        along = np.array(((0, 1), (1, 0), (0.7, 0.7), (0.7, -0.7))[random.integers(4)])
        return np.stack([middle - reach * along, middle + reach * along])
    return smooth(random.uniform(-1, 1, (random.integers(3, 6), 2)))


def _object(random: np.random.Generator) -> list[Piece]:
    """An object of the sample scenes, mirrored, stretched, or two of them."""
    pieces, slots = [], {"main": 0, "dark": 1, "light": 2, "wood": 3, "leaf": 4, "gold": 5, "cream": 5, "white": 2}
    for number in range(random.choice([1, 1, 2])):
        kind = KINDS[list(KINDS)[random.integers(len(KINDS))]]
        scale = np.array([kind.aspect, 1.0]) * random.uniform(0.8, 1.25, 2) * [random.choice([-1, 1]), 1]
        for tone, points in kind.shapes:
            depth = 1 if tone in ("light", "white", "ink", "gold") else 0
            moved = (points - 0.5) * 2 * scale + number * random.choice([1.2, 1.6]) * np.array([1, 0.3])
            pieces.append(Piece([moved], True, depth + (tone == "ink"), slots.get(tone, 1) + 2 * number, depth * 0.5))
    return pieces


def _scene(random: np.random.Generator) -> list[Piece]:
    """A picture that fills its frame: a landscape, a map, a card or a face."""
    frame = Piece([box(0, 0, 1, random.choice([1, 1, 0.75]))], True, 0, int(random.integers(6)))
    kind = random.integers(4)
    if kind == 0:  # hills and a sun behind an object
        sun = Piece([ellipse(random.uniform(-0.6, 0), random.uniform(-0.6, 0), 0.25, 0.25)], True, 1, 5)
        tops = [
            np.stack([np.linspace(-1, 1, 24), y + 0.12 * np.sin(np.linspace(0, 6, 24) + y * 40)], 1) for y in (0.1, 0.4)
        ]
        hills = [Piece([np.concatenate([top, [[1, 0.75], [-1, 0.75]]])], True, 1, 2 + i) for i, top in enumerate(tops)]
        return [frame, sun, *hills, *(_moved(p, 0.4, 0, 0.25) for p in _icon(random))]
    if kind == 1:  # blocks, roads and a pin
        blocks = [
            Piece([_blob(random) * random.uniform(0.2, 0.5) + random.uniform(-0.45, 0.45, 2)], True, 1, i)
            for i in range(1, 5)
        ]
        roads = [
            Piece([np.array([[-1, a], [0, (a + b) / 2 + 0.2], [1, b]]) * [1, 0.7]], False, 1, 5)
            for a, b in random.uniform(-1, 1, (3, 2))
        ]
        ways = [Piece([road.paths[0][:, ::-1]], False, 1, 4, 0.5) for road in roads]
        pin = np.concatenate([[[0.0, 0.5]], ellipse(0, -0.3, 0.35, 0.35, 150, 390)])
        return [
            frame,
            *blocks,
            *roads,
            *ways,
            Piece([pin], True, 1, 0),
            Piece([ellipse(0, -0.3, 0.12, 0.12)], True, 2, 1),
        ]
    if kind == 2:  # pips in two columns and a sign in each corner
        frame = Piece([box(0, 0, 0.72, 1)], True, 0, 2)
        pip, sign = _body(random), Piece(draw_glyph(random), False, 1, 0)
        rows = np.linspace(-0.6, 0.6, random.integers(2, 5))
        pips = [Piece([pip * 0.14 + [x, y]], True, 1, 0) for y in rows for x in (-0.25, 0.25)]
        return [frame, *pips, *(_moved(sign, s * 0.12, -0.55 * s, -0.8 * s) for s in (1, -1))]
    face, hair = Piece([ellipse(0, 0.05, 0.8, 0.95)], True, 0, 0), random.uniform(0.1, 0.5)
    eyes = [Piece([ellipse(x, 0, 0.16, random.uniform(0.08, 0.24))], True, 1, 2) for x in (-0.32, 0.32)]
    pupils = [Piece([ellipse(x, 0.02, 0.08, 0.08)], True, 2, 1) for x in (-0.32, 0.32)]
    brows = [Piece([ellipse(x, -0.3, 0.2, 0.08, 200, 340)], False, 1, 1, 0.4) for x in (-0.32, 0.32)]
    mouth = Piece([ellipse(0, 0.4, 0.3, random.uniform(-0.1, 0.2), 10, 170)], False, 1, 3)
    top = Piece([np.concatenate([ellipse(0, 0, 0.95, 1, 190, 350), [[0.3, -hair], [-0.4, -hair - 0.2]]])], True, 1, 4)
    return [
        face,
        *eyes,
        *pupils,
        *brows,
        mouth,
        top,
        Piece([np.array([[0, 0.1], [0.08, 0.22], [-0.02, 0.24]])], False, 1, 1, 0.6),
    ]


def _sign(random: np.random.Generator) -> list[Piece]:
    return [Piece(draw_glyph(random), False, 0, 0)]


CONTENTS = {"icon": _icon, "glyph": _sign, "object": _object, "scene": _scene}
