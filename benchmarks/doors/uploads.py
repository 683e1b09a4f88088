"""webpage.door: paths of every form and place, alone and in requests; an answer gets an upload or nothing."""

import json
import os
from functools import cache
from pathlib import Path
from random import Random

from benchmarks.doors import refused
from webpage.door import Door
from webpage.uploads import NOT_UPLOADED, Uploads

META = {"_type": "gradio.FileData"}
SECRET = b"a private picture"


def trial(random: Random, folder: Path) -> str:
    uploads = _uploads(folder)
    path = _path(random, folder, uploads)
    try:
        found = uploads.check(path)
    except ValueError as error:
        outcome = refused(error, NOT_UPLOADED)
    else:
        assert found.read_bytes() != SECRET and found.samefile(path), path
        outcome = "read"
    _check_request(random, uploads, path, outcome == "read")
    return outcome


def _check_request(random: Random, uploads: Uploads, path: object, is_ours: bool) -> None:
    """The same path within JSON, with and without the other words of a file."""
    file = {"path": path, "url": random.choice(("http://a.example/b.png", "data:image/png;base64,AAAA", path))}
    file |= {name: value for name, value in (("meta", META), ("is_stream", True)) if random.random() < 0.5}
    value: object = file if random.random() < 0.7 else {"url": path}
    for _ in range(random.randrange(4)):
        value = random.choice(([value, "text"], {"value": value}, {"__type__": "update", "value": value}))
    admitted = json.dumps(Door(_never, uploads, {}, (), 1).only_uploads({"data": [value, "text"]}))
    kept = is_ours and '"meta"' in admitted
    assert kept == (is_ours and "path" in json.dumps(value)), admitted
    assert "http" not in admitted and "base64" not in admitted and (kept or '"path": null' in admitted), admitted


@cache
def _uploads(folder: Path) -> Uploads:
    """Two uploads and a result, links that lead out and within, and a private file next to them."""
    uploads = Uploads(2**20, folder)
    (folder / "private.png").write_bytes(SECRET)
    for name in ("a.png", "图 片.png"):
        (uploads.uploads / "hash").mkdir(exist_ok=True)
        (uploads.uploads / "hash" / name).write_bytes(b"0")
    (uploads.uploads / "out.png").symlink_to(folder / "private.png")
    (uploads.uploads / "outside").symlink_to(folder)
    (uploads.uploads / "round.png").symlink_to("round.png")
    os.mkfifo(uploads.uploads / "pipe.png")
    return uploads


def _path(random: Random, folder: Path, uploads: Uploads) -> object:
    base: object = random.choice((uploads.uploads, uploads.results, folder, "", "/", uploads.uploads / "hash"))
    words = ("hash", "a.png", "图 片.png", "..", ".", "", "out.png", "outside", "private.png", "round.png", "pipe.png")
    odd = ("\0", "\udcff", "~", "x" * 300, "%2e%2e", "\\..\\", "file:", " ")
    if random.random() < 0.3:
        return str(Path(base or "/") / random.choice(("a.png", "hash/a.png", "private.png")))
    parts = random.choices((*words, *odd), k=random.randint(1, 6))
    path = "/".join((str(base), *parts))
    return random.choice((path, path, path, path, f"file://{path}", path.lstrip("/"), [path], 7))


async def _never(*_: object) -> None:
    raise AssertionError("nothing is passed on")
