"""Pictures of texts and images that match, with heat maps.

rows of clip/inference.py, text vectors (D,) -> overview.png, <image>.png, search.png
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from clip.heatmaps import heatmap, overlay, side_by_side
from clip.model import CLIPModel
from common.cli.errors import one_line
from common.cli.progress_bar import progress_bar
from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.images.io import open_image

MAX_SHOWN = 12  # images in overview.png
OVERVIEW, SEARCH = "overview.png", "search.png"


@dataclass
class MatchPictures:
    """Draws the images of a folder with heat maps into another.

    method: of clip/heatmaps.py. skipped: collects the reasons of files lost or damaged since they were indexed.
    """

    model: CLIPModel
    image_dir: Path
    output_dir: Path
    method: str | None
    device: torch.device
    skipped: dict[str, str]

    def draw_images(
        self, rows: list[dict], vectors: dict[str, torch.Tensor], max_files: int, batch_size: int, quiet: bool
    ) -> None:
        """Images with their best text: the first MAX_SHOWN in overview.png, the first `max_files` in files of their
        own, named by the row's "heatmap". vectors: of all texts."""
        drawn = rows[: max(MAX_SHOWN, max_files)]
        shared = torch.stack([*vectors.values()]).mean(0) if len(vectors) > 1 else None  # no reason for a choice
        files, cells = heatmap_names([Path(row["image"]) for row in drawn]), []
        for start in progress_bar(range(0, len(drawn), batch_size), desc="heat maps", quiet=quiet):
            part = drawn[start : start + batch_size]
            texts = [vectors[row["text"]] for row in part]
            for position, (image, heat) in self._maps([row["image"] for row in part], texts, shared).items():
                row, image = part[position], self.model.preprocess.visible(image)
                share = f"{100 * row['probability']:.1f} %"
                if start + position < max_files:
                    row["heatmap"] = files[start + position]
                    caption = f"cosine {row['score']:.3f}   {share}   {row['image']}   {true_rank(row)}"
                    save_picture(self.output_dir / row["heatmap"], side_by_side(image, heat, row["text"], caption))
                if len(cells) < MAX_SHOWN:
                    cells.append(Cell([overlay(image, heat)], row["text"], f"{share}   {true_rank(row)}"))
        if cells:
            save_picture(self.output_dir / OVERVIEW, contact_sheet({"": cells}))

    def draw_queries(self, rows: list[dict], vectors: Sequence[torch.Tensor]) -> None:
        """search.png: the images that each query has found, above their heat maps, with their true texts if known."""
        sections = {}
        for row, vector in zip(rows, vectors):
            matches = row["matches"]
            pictures = self._maps([match["image"] for match in matches], [vector] * len(matches))
            sections[row["query"]] = [
                Cell(
                    [image, overlay(self.model.preprocess.visible(image), heat)],
                    true_text(matches[position]) or matches[position]["image"],
                    f"{matches[position]['score']:.3f}"
                    + (f", {matches[position]['image']}" if true_text(matches[position]) else ""),
                )
                for position, (image, heat) in pictures.items()
            ]
        save_picture(self.output_dir / SEARCH, contact_sheet(sections))

    def _maps(
        self, names: Sequence[str], vectors: Sequence[torch.Tensor], shared: torch.Tensor | None = None
    ) -> dict[int, tuple[Image.Image, torch.Tensor]]:
        """Images and a text vector (D,) for each -> {position: image, map (rows, columns)} of the readable ones."""
        images = {}
        for position, name in enumerate(names):
            try:
                images[position] = open_image(self.image_dir / name)
            except (ValueError, OSError) as error:
                self.skipped[str(self.image_dir / name)] = one_line(error)
        if not images:
            return {}
        pixels = torch.stack([self.model.preprocess(image) for image in images.values()]).to(self.device)
        directions = torch.stack([vectors[position] for position in images]).to(self.device)
        shared = None if shared is None else shared.to(self.device)
        maps = heatmap(self.model, pixels, directions, self.method, shared).cpu()
        return dict(zip(images, zip(images.values(), maps)))


def heatmap_names(paths: list[Path]) -> list[str]:
    """a/b.jpg -> a/b.png; or a/b.jpg.png, where two images or a file of ours would have the same name."""
    ours = {Path(name).with_suffix(""): 2 for name in (OVERVIEW, SEARCH)}
    counts = Counter(path.with_suffix("") for path in paths) + Counter(ours)
    return [
        (path.with_suffix(".png") if counts[path.with_suffix("")] == 1 else Path(f"{path}.png")).as_posix()
        for path in paths
    ]


def true_rank(row: dict) -> str:
    return f"true: rank {row['true_rank']}" if "true_rank" in row else ""


def true_text(match: dict) -> str:
    return " / ".join(match.get("texts", []))
