"""The folder of a sample data set: writes its own files, and replaces or removes no others."""

import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image

MANIFEST = "sample_data.json"  # lists the files of the data set, so that a second call replaces these and no others


class SampleFolder:
    """Writes files below root and remembers them; never over a file that an earlier call did not write."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.names: set[str] = set()
        manifest = self.root / MANIFEST
        self.earlier = set(json.loads(manifest.read_text(encoding="utf-8"))["files"]) if manifest.is_file() else set()

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        if path.is_file() and name not in self.earlier and path.read_bytes() != data:
            raise FileExistsError(f"{path}: exists and was not written by create_sample_dataset; give another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.names.add(name)

    def write_image(self, name: str, image: Image.Image) -> None:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        self.write(name, buffer.getvalue())

    def write_tensor(self, name: str, tensor: torch.Tensor) -> None:
        buffer = io.BytesIO()
        torch.save(tensor, buffer)  # given a path, it would write the file's name into the file
        self.write(name, buffer.getvalue())

    def write_text(self, name: str, text: str) -> None:
        self.write(name, text.encode("utf-8"))

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, ensure_ascii=False, indent=1) + "\n")

    def write_jsonl(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.write_text(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def write_manifest(self, settings: dict[str, Any]) -> tuple[str, ...]:
        """Remove the files of an earlier call that this one did not write -> names of all files, sorted."""
        for name in self.earlier - self.names:
            if ".." not in PurePosixPath(name).parts and not PurePosixPath(name).is_absolute():
                (self.root / name).unlink(missing_ok=True)
        files = tuple(sorted(self.names))
        (self.root / MANIFEST).write_text(json.dumps({**settings, "files": files}, indent=1) + "\n", encoding="utf-8")
        return files
