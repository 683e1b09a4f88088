"""common.images.folders.list_images: trees of files, links and names of any bytes. What is listed can be opened; every
good file that is missing from the list, and every link that leads nowhere, is named."""

import os
from io import BytesIO
from pathlib import Path
from random import Random
from shutil import rmtree

from PIL import Image

from benchmarks.doors import refused
from common.cli.errors import printable
from common.images.folders import IMAGE_SUFFIXES, list_images
from common.images.io import open_image

STEMS = (
    b"a",
    b"b c",
    "猫".encode(),
    b"\x1b[31m",
    b"x\ny",
    b"caf\xe9",
    b"\xff\xfe",
    b".hidden",
    "\u202egnp".encode(),
    b"$a$",
)


def trial(random: Random, folder: Path) -> str:
    root = folder / "tree"
    root.mkdir()
    try:
        return _try_tree(random, root)
    finally:
        rmtree(root)


def _try_tree(random: Random, root: Path) -> str:
    folders, made = [root], [root / "good.png"]
    made[0].write_bytes(_PICTURE if random.random() < 0.9 else b"")
    for _ in range(random.randint(1, 9)):
        path = random.choice(folders) / os.fsdecode(
            random.choice(STEMS) + random.choice([b"", b".png", b".JPG", b".txt"])
        )
        if os.path.lexists(path):
            continue
        kind = random.choice(["folder", "folder", "picture", "broken", "link", "link", "dangling", "itself", "pipe"])
        if kind == "folder":
            path.mkdir()
            folders.append(path)
        elif kind in ("picture", "broken"):
            path.write_bytes(_PICTURE if kind == "picture" else b"\x89PNG")
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to({"link": random.choice(folders + made), "dangling": root / "none"}.get(kind, path.name))
        made.append(path)
    skipped: dict[str, str] = {}
    try:
        listed = list_images(root, skipped)
    except FileNotFoundError as error:
        listed, outcome = [], refused(error, root)
    else:
        outcome = "skipped" if skipped else "read"
    assert listed == sorted(set(listed)) and all("\n" not in text for pair in skipped.items() for text in pair)
    for path in made:
        relative = path.relative_to(root).parts
        if any(part.startswith(".") for part in relative) or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        is_image = path.is_file() and not path.is_dir()
        named = any(printable(parent) in skipped for parent in (path, *path.parents))
        assert (path in listed) != named or path.is_dir(), f"{path!r}: listed {path in listed}, named {named}"
        assert path not in listed or is_image
    for path in listed:
        path.name.encode()  # what is listed can be written anywhere
        try:
            open_image(path)
        except ValueError as error:
            assert path.read_bytes() != _PICTURE
            refused(error, printable(path))
    return outcome


def _picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    return file.getvalue()


_PICTURE = _picture()
