"""Which text fits each image of a folder, and where in the image does it say so?

    python clip/inference.py --data_root images/ --model best_model.pth --metadata optimized_metadata.jsonl
    python clip/inference.py --data_root images/ --model best_model.pth --query "a red house" "two birds"

images (N, D) x texts (M, D) -> the best texts of each image -> heatmaps/<image>.png, overview.png, results.jsonl
queries (Q, D) x images (N, D) -> the best images of each query -> heatmaps/search.png

The metadata may be optimized_metadata.jsonl, metadata.jsonl, data.json, or a .txt with a text a line. Where it names
the images of the folder, the rank of the true text is told too. Vectors of images are kept in <data_root>/.image_index,
so the next call encodes only what is new.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from PIL import Image
from tqdm import tqdm

from clip.candidate_texts import read_texts, true_texts
from clip.checkpoint import load_clip
from clip.embed import encode_texts
from clip.heatmap_overlay import overlay, side_by_side
from clip.heatmaps import find_method, heatmap
from clip.model import CLIPModel
from clip.pairs import DEFAULT_TEXT_FIELDS
from common.cli.errors import run_script
from common.images.contact_sheet import Cell, contact_sheet, save_picture
from common.images.io import open_image
from common.text.files import write_jsonl
from common.training.device import choose_device
from common.training.skip_log import report_skipped, write_skipped
from common.vectors.image_index import ImageIndex, key_of

SHOWN = 24  # images in overview.png, and lines of results on the screen


@torch.no_grad()
def rank_texts(similarity: torch.Tensor, scale: float, top_k: int, true: set[int]) -> dict:
    """Cosines (M,) of one image -> its best texts, as numbers with cosine and probability, and the true text's rank.

    probability: softmax over all texts at the model's own temperature. Ties count against the true text.
    """
    probability = (scale * similarity).softmax(0)
    best = similarity.topk(min(top_k, len(similarity))).indices.tolist()
    row = {
        "top": [{"text": one, "score": float(similarity[one]), "probability": float(probability[one])} for one in best]
    }
    if true:
        mine = torch.zeros(len(similarity), dtype=torch.bool)
        mine[list(true)] = True
        row["true_rank"] = 1 + int((similarity[~mine] >= similarity[mine].max()).sum())
    return row


def explain_folder(
    model: CLIPModel, index: ImageIndex, texts: list[str], named: dict, args: argparse.Namespace, device: torch.device
) -> list[dict]:
    """Every image's best texts -> rows of results.jsonl; writes the heat maps and overview.png."""
    text_vectors = encode_texts(model, texts, device, quiet=args.json)
    shared = text_vectors.mean(0) if len(texts) > 1 else None  # what all texts have in common explains no choice
    roots = [index.folder, args.metadata.parent]
    files = heatmap_names([path.relative_to(index.folder) for path in index.paths])
    rows, cells = [], []
    for start in tqdm(range(0, len(files), args.batch_size), desc="heat maps", leave=False, disable=args.json):
        part = slice(start, start + args.batch_size)
        images = [open_image(path) for path in index.paths[part]]
        similarity = torch.from_numpy(index.vectors[part]) @ text_vectors.T  # (B, M)
        ranked = [
            rank_texts(one, model.scale.item(), args.top_k, true_texts(path, roots, named))
            for one, path in zip(similarity, index.paths[part])
        ]
        best = text_vectors[[row["top"][0]["text"] for row in ranked]]
        maps = draw_maps(model, images, best, shared, args.heatmap_method, device)
        for path, file, image, heat, row in zip(index.paths[part], files[part], images, maps, ranked):
            name = path.relative_to(index.folder).as_posix()
            top = [{**one, "text": texts[one["text"]]} for one in row["top"]]
            rows.append({"image": name, **top[0], **row, "top": top, "heatmap": file})
            facts = f"{top[0]['score']:.3f}   {100 * top[0]['probability']:.1f} %"
            picture = side_by_side(image, heat, top[0]["text"], f"cosine {facts}   {name}{_rank(row)}")
            save_picture(args.output_dir / file, picture)
            if len(cells) < SHOWN:
                cells.append(Cell([overlay(image, heat)], top[0]["text"], facts + _rank(row)))
    save_picture(args.output_dir / "overview.png", contact_sheet({"": cells}))
    write_jsonl(args.output_dir / "results.jsonl", rows)
    return rows


def heatmap_names(paths: list[Path]) -> list[str]:
    """a/b.jpg -> a/b.png; with the whole name, a/b.jpg.png, where two images or our own pictures would meet."""
    taken = Counter(path.with_suffix("") for path in paths) + Counter({Path("overview"): 2, Path("search"): 2})
    return [
        (
            path.with_suffix(".png") if taken[path.with_suffix("")] == 1 else path.with_name(f"{path.name}.png")
        ).as_posix()
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
    pixels = torch.stack([model.preprocess(image) for image in images]).to(device)
    return heatmap(model, pixels, vectors.to(device), method, None if shared is None else shared.to(device)).cpu()


def search(model: CLIPModel, index: ImageIndex, args: argparse.Namespace, device: torch.device) -> list[dict]:
    """The best images of each query -> one row a query; writes search.png with each image above its heat map."""
    vectors = encode_texts(model, args.query, device, quiet=True)
    scores, found = index.search(vectors, args.top_k)
    rows, sections = [], {}
    for query, vector, row, paths in zip(args.query, vectors, scores.tolist(), found):
        images = [open_image(path) for path in paths]
        maps = draw_maps(model, images, vector.expand(len(paths), -1), None, args.heatmap_method, device)
        names = [path.relative_to(index.folder).as_posix() for path in paths]
        rows.append({"query": query, "found": [{"image": name, "score": score} for name, score in zip(names, row)]})
        sections[query] = [
            Cell([image, overlay(image, heat)], name, f"{score:.3f}")
            for image, heat, name, score in zip(images, maps, names, row)
        ]
    save_picture(args.output_dir / "search.png", contact_sheet(sections, columns=5))
    return rows


def image_encoder(model: CLIPModel, device: torch.device) -> Callable[[list[Image.Image]], torch.Tensor]:
    @torch.no_grad()
    def encode(images: list[Image.Image]) -> torch.Tensor:
        return model.encode_image(torch.stack([model.preprocess(image) for image in images]).to(device))

    return encode


def _rank(row: dict) -> str:
    return f"   true: rank {row['true_rank']}" if "true_rank" in row else ""


def report(result: dict, output_dir: Path) -> str:
    """The result as lines for a person."""
    lines = []
    if result["cut_texts"]:
        lines.append(f"{result['cut_texts']} texts are longer than the model reads and lose their end")
    rows = result.get("images", [])
    for row in rows[:SHOWN]:
        lines.append(
            f"{row['score']:7.3f} {100 * row['probability']:6.1f} %  {row['image']}: {row['text']}{_rank(row)}"
        )
    if len(rows) > SHOWN:
        lines.append(f"... and {len(rows) - SHOWN} more")
    ranks = [row["true_rank"] for row in rows if "true_rank" in row]
    if ranks:
        lines.append(
            f"the best text is the true one for {sum(rank == 1 for rank in ranks)} of {len(ranks)} images "
            f"({result['texts']} texts), median rank {sorted(ranks)[len(ranks) // 2]}"
        )
    for row in result.get("queries", []):
        lines += [row["query"], *(f"{one['score']:7.3f}  {one['image']}" for one in row["found"])]
    return "\n".join([*lines, f"pictures are in {output_dir}"])


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="inference.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data_root", required=True, type=Path, help="folder of images")
    parser.add_argument("--model", required=True, help="best_model.pth, or a Hugging Face CLIP folder")
    parser.add_argument("--metadata", type=Path, help="texts to choose from: .jsonl, data.json, or .txt")
    parser.add_argument("--query", nargs="+", help="find the images for these texts")
    parser.add_argument("--top_k", type=int, default=5, help="texts of an image, or images of a query")
    parser.add_argument("--output_dir", type=Path, default=Path("heatmaps"), help="where pictures and results go")
    parser.add_argument("--heatmap_method", help="another way to draw the maps; a wrong name lists them")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--cache_dir", type=Path, help="where image vectors are kept, if not inside data_root")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print JSON in place of text")
    args = parser.parse_args(argv)
    if not args.metadata and not args.query:
        raise ValueError("--metadata or --query: one of them is needed, there is nothing to compare the images with")
    if min(args.top_k, args.batch_size) < 1:
        raise ValueError("--top_k and --batch_size: expected 1 or more")
    if args.output_dir.resolve().is_relative_to(args.data_root.resolve()):
        raise ValueError(
            f"--output_dir {args.output_dir}: is inside --data_root, its pictures would be taken for images"
        )
    return args


def main(argv: list[str]) -> dict:
    args = read_arguments(argv)
    device = choose_device(args.device)
    model, content = load_clip(args.model, device)
    find_method(model, args.heatmap_method)  # a wrong name is told now, not after the folder was encoded
    fields = content.get("settings", {}).get("text_fields", DEFAULT_TEXT_FIELDS)
    texts, named, skipped = read_texts(args.metadata, fields) if args.metadata else ([], {}, {})
    key = key_of(model, model.image_size)
    index = ImageIndex(
        args.data_root, image_encoder(model, device), key, args.cache_dir, args.batch_size, quiet=args.json
    )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    skipped |= {str(path): why for path, why in index.skipped.items()}
    report_skipped(skipped)
    write_skipped(args.output_dir / "skipped.jsonl", skipped)
    cut = model.tokenizer.encode([*texts, *(args.query or [])])[1]
    result = {"texts": len(texts), "cut_texts": cut, "skipped": skipped}
    if texts:
        result["images"] = explain_folder(model, index, texts, named, args, device)
    if args.query:
        result["queries"] = search(model, index, args, device)
    print(json.dumps(result, ensure_ascii=False) if args.json else report(result, args.output_dir))
    return result


if __name__ == "__main__":
    run_script(main)
