"""The folder of a sample data set: writes its own files, and replaces or removes no others."""

import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

import torch

MANIFEST = "sample_data.json"  # lists the files of the data set, so that a second call replaces these and no others


class SampleFolder:
    """Writes files below root and remembers them; never over a file that an earlier call did not write."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.names: set[str] = set()
        manifest = self.root / MANIFEST
        self.earlier = set(json.loads(manifest.read_text(encoding="utf-8"))["files"]) if manifest.is_file() else set()

    def write(self, name: str, content: Any) -> None:
        """content: a picture, tensor, text, JSON value or rows of JSON, by the suffix of `name`."""
        path, data = self.root / name, _encode(name, content)
        if path.is_file() and name not in self.earlier and path.read_bytes() != data:
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
        (self.root / MANIFEST).write_text(json.dumps({**settings, "files": files}, indent=1) + "\n", encoding="utf-8")
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
            buffer.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content).encode())
        case _:
            buffer.write(content.encode())
    return buffer.getvalue()
