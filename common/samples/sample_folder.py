"""The folder of a sample data set: only one that is missing or empty, and of its files only its own."""

import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from typing_extensions import TypedDict

from common.text.files import jsonl_line, write_atomically
from common.text.schema import read_checked

MANIFEST = "sample_data.json"  # lists the files of the data set, so that a second call replaces these and no others
STARTED = ".sample_data.started"  # while files are written; it stays where that was interrupted


class Manifest(TypedDict):
    files: list[str]


def is_vacant(root: str | Path) -> bool:
    """Whether a folder is missing, empty but for hidden files and a README.md, or left by an interrupted drawing."""
    root = Path(root)
    if not root.exists() or (root / STARTED).is_file():
        return True
    return all(path.name.startswith(".") or path.name == "README.md" for path in root.iterdir())


def is_drawn(root: str | Path) -> bool:
    """Whether a folder holds a whole set of sample data."""
    return (Path(root) / MANIFEST).is_file() and not (Path(root) / STARTED).is_file()


class SampleFolder:
    """Writes files below root and remembers them. FileExistsError where the folder holds anybody else's."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.names: set[str] = set()
        manifest = self.root / MANIFEST
        if not manifest.is_file() and not is_vacant(root):
            raise FileExistsError(
                f"{root}: is not empty; sample data is drawn into a folder that is missing or empty, nowhere else"
            )
        self.earlier = set(read_checked(manifest, Manifest)["files"]) if manifest.is_file() else set()
        self.was_interrupted = (self.root / STARTED).is_file()
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / STARTED).touch()

    def write(self, name: str, content: Any) -> None:
        """content: a picture, tensor, text, JSON value or rows of JSON, by the suffix of `name`."""
        path, data = self.root / name, _encode(name, content)
        is_ours = name in self.earlier or self.was_interrupted
        if path.is_file() and not is_ours and path.read_bytes() != data:
            raise FileExistsError(f"{path}: exists and was not written by create_sample_dataset; give another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.names.add(name)

    def write_manifest(self, settings: dict[str, Any]) -> tuple[str, ...]:
        """Remove the files of an earlier call that this one did not write -> names of all files, sorted."""
        for name in self.earlier - self.names:
            if ".." not in PurePosixPath(name).parts and not PurePosixPath(name).is_absolute():
                (self.root / name).unlink(missing_ok=True)
        files = tuple(sorted(self.names))
        with write_atomically(self.root / MANIFEST, durable=False) as file:
            file.write((json.dumps({**settings, "files": files}, indent=1) + "\n").encode())
        (self.root / STARTED).unlink()
        return files


def _encode(name: str, content: Any) -> bytes:
    buffer = io.BytesIO()
    match Path(name).suffix:
        case ".png":
            content.save(buffer, "PNG")
        case ".pt":
            torch.save(content, buffer)  # given a path, it would write the file's name into the file
        case ".json":
            buffer.write((json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
        case ".jsonl":
            buffer.writelines(map(jsonl_line, content))
        case _:
            buffer.write(content.encode())
    return buffer.getvalue()
