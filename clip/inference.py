"""Texts that match each image of a folder, and images that match a text, with heat maps.

    python clip/inference.py --data_root images/ --model best_model.pth --metadata optimized_metadata.jsonl
    python clip/inference.py --data_root images/ --model best_model.pth --query "a red house" "two birds"
    python clip/inference.py --data_root images/ --model ViT-B/32 --pretrained openai --query "a red house"

images (N, D) x texts (M, D) -> the best texts of each image -> heatmaps/<image>.png, overview.png, results.jsonl
queries (Q, D) x images (N, D) -> the best images of each query -> heatmaps/search.png

The metadata may be any file that train.py reads pairs from, or a .txt with one text per line. Where it names the images
of the folder, the rank of the true text is reported too. Image vectors are kept in <data_root>/.image_index, so the
next call encodes only new images.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from jsonargparse.typing import PositiveInt
from PIL import Image

from clip.checkpoint import load_clip
from clip.embed import embed_texts
from clip.heatmaps import find_method, heatmap, overlay, side_by_side
from clip.image_encoder import clip_extractor
from clip.model import CLIPModel
from clip.pair_files import Columns
from clip.pairs import DEFAULT_TEXT_FIELDS, TrueTexts, read_texts
from clip.tokenizer import encode_texts
from common.cli.errors import one_line, printable, run_script
from common.cli.paths import find_from_root
from common.cli.progress_bar import progress_bar
from common.cli.tool_parser import tool
from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.images.io import open_image
from common.text.files import write_jsonl
from common.training.device import choose_device
from common.training.skip_log import report_skipped, write_skipped
from common.vectors.vector_store import VectorStore, index_folder

MAX_LETTERS = 300  # of a text on the screen; results.jsonl has the whole
MAX_SHOWN = 24  # images in overview.png, and lines of results on the screen


@dataclass(frozen=True)
class Options:
    """Output of both directions."""

    top_k: PositiveInt = 5  # texts per image, or images per query
    output_dir: Path = Path("heatmaps")  # for heat maps and results
    heatmap_method: str | None = None  # a wrong name lists the methods of the model
    batch_size: PositiveInt = 32


@torch.no_grad()
def rank_texts(similarity: torch.Tensor, scale: float, top_k: int, true: set[int]) -> dict:
    """Cosines (M,) of one image -> its best texts, as indices with cosine and probability; rank of the true text.

    probability: softmax over all texts at the model's temperature. Ties count against the true text.
    """
    probability = (scale * similarity).softmax(0)
    top = [
        {"text": text, "score": float(similarity[text]), "probability": float(probability[text])}
        for text in similarity.topk(min(top_k, len(similarity))).indices.tolist()
    ]
    if not true:
        return {"top": top}
    is_true = torch.zeros(len(similarity), dtype=torch.bool)
    is_true[list(true)] = True
    return {"top": top, "true_rank": 1 + int((similarity[~is_true] >= similarity[is_true].max()).sum())}


def explain_folder(
    model: CLIPModel,
    index: VectorStore,
    texts: list[str],
    true_of_image: list[set[int]],
    options: Options,
    device: torch.device,
    skipped: dict[str, str],
    quiet: bool,
) -> list[dict]:
    """The best texts of every image -> rows of results.jsonl; writes the heat maps and overview.png.

    true_of_image: indices of the true texts of each image of the index. skipped: as of open_readable.
    """
    text_vectors = embed_texts(model, texts, device, quiet=quiet)
    shared = text_vectors.mean(0) if len(texts) > 1 else None  # the part of all texts that explains no choice
    image_vectors = torch.from_numpy(index.vectors())  # (N, D)
    paths = index.paths
    names = [path.relative_to(index.image_dir).as_posix() for path in paths]
    files = heatmap_names(list(map(Path, names)))
    rows, cells = [], []
    for start in progress_bar(range(0, len(names), options.batch_size), desc="heat maps", quiet=quiet):
        opened = open_readable(paths[start : start + options.batch_size], skipped)
        if not opened:
            continue
        part = [start + position for position in opened]
        rankings = [
            rank_texts(cosines, model.scale.item(), options.top_k, true_of_image[row])
            for row, cosines in zip(part, image_vectors[part] @ text_vectors.T)  # (B, M)
        ]
        best = text_vectors[[ranking["top"][0]["text"] for ranking in rankings]]
        images = list(opened.values())
        maps = draw_maps(model, images, best, shared, options.heatmap_method, device)
        for row, image, heat, ranking in zip(part, images, maps, rankings):
            name, file = names[row], files[row]
            top = [{**match, "text": texts[match["text"]]} for match in ranking["top"]]
            rows.append({"image": name, **top[0], **ranking, "top": top, "heatmap": file})
            score = f"{top[0]['score']:.3f}   {100 * top[0]['probability']:.1f} %"
            caption = f"cosine {score}   {name}{_true_rank(ranking)}"
            image = model.preprocess.visible(image)
            save_picture(options.output_dir / file, side_by_side(image, heat, top[0]["text"], caption))
            if len(cells) < MAX_SHOWN:
                cells.append(Cell([overlay(image, heat)], top[0]["text"], score + _true_rank(ranking)))
    if cells:
        save_picture(options.output_dir / "overview.png", contact_sheet({"": cells}))
    write_jsonl(options.output_dir / "results.jsonl", rows)
    return rows


def open_readable(paths: Sequence[Path], skipped: dict[str, str]) -> dict[int, Image.Image]:
    """-> {position: image}; skipped: collects the reasons of files that are gone or damaged since they were indexed."""
    images = {}
    for position, path in enumerate(paths):
        try:
            images[position] = open_image(path)
        except (ValueError, OSError) as error:
            skipped[str(path)] = one_line(error)
    return images


def heatmap_names(paths: list[Path]) -> list[str]:
    """a/b.jpg -> a/b.png; or a/b.jpg.png, where two images or a file of ours would have the same name."""
    counts = Counter(path.with_suffix("") for path in paths) + Counter({Path("overview"): 2, Path("search"): 2})
    return [
        (path.with_suffix(".png") if counts[path.with_suffix("")] == 1 else Path(f"{path}.png")).as_posix()
        for path in paths
    ]


def draw_maps(
    model: CLIPModel,
    images: list[Image.Image],
    vectors: torch.Tensor,
    shared: torch.Tensor | None,
    method: str | None,
    device: torch.device,
) -> torch.Tensor:
    """Images and a text vector (B, D) for each -> (B, rows, columns)."""
    if not images:
        return torch.empty(0, 1, 1)
    pixels = torch.stack([model.preprocess(image) for image in images]).to(device)
    return heatmap(model, pixels, vectors.to(device), method, None if shared is None else shared.to(device)).cpu()


def search(
    model: CLIPModel,
    index: VectorStore,
    queries: Sequence[str],
    options: Options,
    device: torch.device,
    skipped: dict[str, str],
) -> list[dict]:
    """The best images of each query -> one row per query; writes search.png with each image above its heat map.

    skipped: as of open_readable.
    """
    vectors = embed_texts(model, queries, device, quiet=True)
    rows, sections = [], {}
    for query, vector, scores, paths in zip(queries, vectors, *index.search(vectors, options.top_k)):
        opened = open_readable(paths, skipped)
        images = list(opened.values())
        maps = draw_maps(model, images, vector.expand(len(images), -1), None, options.heatmap_method, device)
        matches = [
            {"image": path.relative_to(index.image_dir).as_posix(), "score": score}
            for path, score in zip(paths, scores)
        ]
        rows.append({"query": query, "matches": matches})
        sections[query] = [
            Cell([image, overlay(model.preprocess.visible(image), heat)], match["image"], f"{match['score']:.3f}")
            for image, heat, match in zip(images, maps, map(matches.__getitem__, opened))
        ]
    save_picture(options.output_dir / "search.png", contact_sheet(sections, columns=5))
    return rows


def _true_rank(row: dict) -> str:
    return f"   true: rank {row['true_rank']}" if "true_rank" in row else ""


def format_result(result: dict, output_dir: Path) -> str:
    """The result as text for a terminal."""
    truncated, rows = result["truncated_texts"], result.get("images", [])
    lines = [f"{truncated} texts are longer than the model's context and were truncated"] if truncated else []
    lines += [
        f"{row['score']:7.3f} {100 * row['probability']:6.1f} %  {printable(row['image'])}: "
        + printable(row["text"][:MAX_LETTERS])
        + _true_rank(row)
        for row in rows[:MAX_SHOWN]
    ]
    if len(rows) > MAX_SHOWN:
        lines.append(f"... and {len(rows) - MAX_SHOWN} more")
    if ranks := sorted(row["true_rank"] for row in rows if "true_rank" in row):
        lines.append(
            f"the best text is the true one for {ranks.count(1)} of {len(ranks)} images "
            f"({result['texts']} texts), median rank {ranks[len(ranks) // 2]}"
        )
    for row in result.get("queries", []):
        lines.append(printable(row["query"]))
        lines += [f"{match['score']:7.3f}  {printable(match['image'])}" for match in row["matches"]]
    return "\n".join([*lines, f"heat maps and results are in {output_dir}"])


@tool
def main(
    *,
    data_root: Path,  # folder of images
    model: str,  # best_model.pth, a Hugging Face CLIP folder, or an architecture, ViT-B/32 or another of open_clip
    pretrained: str = "",  # of an architecture: openai, another tag of open_clip, or a file; '': the usual ones
    metadata: Path | None = None,  # candidate texts: .jsonl, .json, .csv, .tsv, .parquet, or .txt
    query: Sequence[str] = (),  # find the images for these texts
    columns: Columns,
    options: Options,
    cache_dir: Path | None = None,  # for image vectors; default: inside data_root
    device: str = "auto",
    json: bool = False,
) -> dict:
    if not metadata and not query:
        raise ValueError("--metadata or --query: give one of them, there is nothing to compare the images with")
    data_root, model = Path(find_from_root(str(data_root))), find_from_root(model)
    model = f"{model}:{find_from_root(pretrained)}" if pretrained else model
    metadata = Path(find_from_root(str(metadata))) if metadata else None
    if options.output_dir.resolve().is_relative_to(data_root.resolve()):
        raise ValueError(f"--output_dir {options.output_dir}: is inside --data_root, heat maps would be read as images")
    torch_device = choose_device(device)
    clip, content = load_clip(model, torch_device)
    find_method(clip, options.heatmap_method)  # a wrong name is an error before the folder is encoded
    fields = content.get("settings", {}).get("text_fields", DEFAULT_TEXT_FIELDS)
    texts, texts_of_image, skipped = read_texts(metadata, fields, columns) if metadata else ([], {}, {})
    index = index_folder(data_root, clip_extractor(clip, model, options.batch_size), cache_dir, quiet=json)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    skipped |= {str(path): reason for path, reason in index.skipped.items()}
    result = {
        "texts": len(texts),
        "truncated_texts": encode_texts(clip.tokenizer, [*texts, *query]).truncated,
        "skipped": skipped,
    }
    if texts:
        true_texts = TrueTexts([index.image_dir, metadata.parent], texts_of_image)
        true = [true_texts[path] for path in index.paths]
        result["images"] = explain_folder(clip, index, texts, true, options, torch_device, skipped, json)
    if query:
        result["queries"] = search(clip, index, query, options, torch_device, skipped)
    report_skipped(skipped)
    write_skipped(options.output_dir / "skipped.jsonl", skipped)
    print(dumps(result, ensure_ascii=False) if json else format_result(result, options.output_dir))
    return result


if __name__ == "__main__":
    run_script(main)
