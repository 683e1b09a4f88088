"""Texts that match each image of a folder, and images that match a text, with heat maps.

    python clip/inference.py --data_root images/ --model best_model.pth --metadata optimized_metadata.jsonl
    python clip/inference.py --data_root images/ --model best_model.pth --query "a red house" "two birds"
    python clip/inference.py --data_root images/ --model ViT-B/32 --pretrained openai --query "a red house"

images (N, D) x texts (M, D) -> the best texts of each image -> heatmaps/overview.png, <image>.png, results.jsonl
queries (Q, D) x images (N, D) -> the best images of each query -> heatmaps/search.png

The metadata may be any file that train.py reads pairs from, or a .txt with one text per line. Where it names the images
of the folder, the rank of the true text is reported too, and images that a query finds are shown with their true text.
Image vectors are kept in <data_root>/.image_index, so the next call encodes only new images.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from json import dumps
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from clip.checkpoint import load_clip
from clip.embed import embed_texts
from clip.heatmaps import find_method
from clip.image_encoder import clip_extractor
from clip.match_pictures import MAX_SHOWN, OVERVIEW, SEARCH, MatchPictures, true_rank, true_text
from clip.model import CLIPModel
from clip.pair_files import Columns
from clip.pairs import DEFAULT_TEXT_FIELDS, TrueTexts, read_texts
from clip.tokenizer import encode_texts
from common.cli.errors import printable, run_script
from common.cli.paths import find_from_root
from common.cli.tool_parser import tool
from common.text.files import write_jsonl
from common.training.device import choose_device
from common.training.skip_log import report_skipped, write_skipped
from common.vectors.vector_store import VectorStore, index_folder

BLOCK = 64  # images whose cosines with all texts are computed at once
MAX_LETTERS = 300  # of a text on the screen; results.jsonl has the whole


@dataclass(frozen=True)
class Options:
    """Output of both directions."""

    top_k: PositiveInt = 5  # texts per image, or images per query
    output_dir: Path = Path("heatmaps")  # for heat maps and results
    max_heatmaps: NonNegativeInt = 12  # images with a file of their own, too
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


def explain_images(
    model: CLIPModel, index: VectorStore, texts: list[str], text_vectors: torch.Tensor, true: list[set[int]], top_k: int
) -> list[dict]:
    """The best texts of every image -> rows of results.jsonl. true: indices of the true texts of each image."""
    rows = []
    blocks = (part @ text_vectors.T for part in torch.from_numpy(index.vectors()).split(BLOCK))  # (B, M)
    for path, cosines, own in zip(index.paths, chain.from_iterable(blocks), true):
        ranking = rank_texts(cosines, model.scale.item(), top_k, own)
        top = [{**match, "text": texts[match["text"]]} for match in ranking["top"]]
        rows.append({"image": path.relative_to(index.image_dir).as_posix(), **top[0], **ranking, "top": top})
    return rows


def search(
    index: VectorStore, queries: Sequence[str], vectors: torch.Tensor, top_k: int, true_texts: dict[Path, list[str]]
) -> list[dict]:
    """The best images of each query -> one row per query, with the rank of the image whose text it is, if it is one.

    vectors (Q, D) unit. true_texts: of the images, as far as they are known.
    """
    image_vectors, rows = torch.from_numpy(index.vectors()), []  # (N, D)
    for query, vector, scores, paths in zip(queries, vectors, *index.search(vectors, top_k)):
        matches = [
            {"image": path.relative_to(index.image_dir).as_posix(), "score": score}
            | ({"texts": true_texts[path]} if true_texts.get(path) else {})
            for path, score in zip(paths, scores)
        ]
        rows.append({"query": query, "matches": matches})
        if own := [number for number, path in enumerate(index.paths) if query in true_texts.get(path, ())]:
            cosines = image_vectors @ vector
            rows[-1]["true_rank"] = 1 + int((cosines > cosines[own].max()).sum())
    return rows


def format_result(result: dict, output_dir: Path) -> str:
    """The result as text for a terminal."""
    truncated, rows = result["truncated_texts"], result.get("images", [])
    lines = [f"{truncated} texts are longer than the model's context and were truncated"] if truncated else []
    lines += [
        f"{row['score']:7.3f} {100 * row['probability']:6.1f} %  {printable(row['image'])}: "
        f"{printable(row['text'][:MAX_LETTERS])}   {true_rank(row)}".rstrip()
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
        rank = f"   its own picture: rank {row['true_rank']}" if "true_rank" in row else ""
        lines.append(f"\nfound for: {printable(row['query'])}{rank}")
        for match in row["matches"]:
            text = printable(true_text(match)[:MAX_LETTERS])
            lines.append(f"{match['score']:7.3f}  {printable(match['image'])}" + (f": {text}" if text else ""))
    sheets = [name for name, key in ((OVERVIEW, "images"), (SEARCH, "queries")) if result.get(key)]
    return "\n".join([*lines, f"heat maps and results are in {output_dir}: {', '.join(sheets)}"])


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
    pictures = MatchPictures(clip, index.image_dir, options.output_dir, options.heatmap_method, torch_device, skipped)
    true: list[set[int]] = []
    if texts:
        indices = TrueTexts([index.image_dir, metadata.parent], texts_of_image)
        true, vectors = [indices[path] for path in index.paths], embed_texts(clip, texts, torch_device, quiet=json)
        rows = explain_images(clip, index, texts, vectors, true, options.top_k)
        pictures.draw_images(rows, dict(zip(texts, vectors)), options.max_heatmaps, options.batch_size, json)
        result["images"] = [row for row in rows if str(index.image_dir / row["image"]) not in skipped]
        write_jsonl(options.output_dir / "results.jsonl", result["images"])
    if query:
        vectors = embed_texts(clip, query, torch_device, quiet=True)
        true_texts = {path: [texts[text] for text in sorted(own)] for path, own in zip(index.paths, true)}
        result["queries"] = search(index, query, vectors, options.top_k, true_texts)
        pictures.draw_queries(result["queries"], vectors)
    report_skipped(skipped)
    write_skipped(options.output_dir / "skipped.jsonl", skipped)
    print(dumps(result, ensure_ascii=False) if json else format_result(result, options.output_dir))
    return result


if __name__ == "__main__":
    run_script(main)
