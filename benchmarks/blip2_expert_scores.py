"""Scores of blip2_expert.py: answers, closed gates, few-shot styles by what reaches the language model, and tables.

run with best.pt -> scores.json (and scores_closed.json) -> mean over seeds, gains seed by seed, intervals
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.blip2_real import ABOUT, MIN_GAIN, shown
from blip2_gated.checkpoint import load_gated
from blip2_gated.images import TowerFeatures
from blip2_gated.metrics import QuestionOnlyBaseline
from blip2_gated.model import Blip2OPTGated
from blip2_gated.vqa_tables import VqaSample
from common.metrics.bootstrap import bootstrap_interval
from common.metrics.vqa import vqa_accuracy
from common.text.files import read_json, write_json
from few_shot import prototype_similarity
from style_encoder import encode_images, load_encoder

PARTS = {"seen": "seen contents, unseen drawings", "unseen": "unseen contents"}
QUESTION = "In which style is this picture drawn?"
REFERENCES, DRAWS, CONTENTS = (1, 5), 100, 32  # images per style, random draws of them, of so many contents
REFERENCE_ARMS = ("ungated", "film_imagenet")  # that gains are measured over
CPU = torch.device("cpu")
Rows = list[list[str]]  # image, question, answer, style, type


@torch.no_grad()
def judge(run: Path, data: Path, parts: dict[str, Rows], folders: list[Path], with_closed: bool = False) -> None:
    """scores.json of a run: every answer to the parts, accuracy of the style head, few-shot accuracy in each folder.

    with_closed: also scores_closed.json, the same with closed gates.
    """
    names = ["scores", "scores_closed"] if with_closed else ["scores"]
    if all((run / f"{name}.json").is_file() for name in names):
        return
    model, content = load_gated(run / "best.pt")
    rows = [row for part in parts.values() for row in part]
    features = read_features(model, {row[0]: data / row[0] for row in rows})
    drawings = {folder: read_features(model, {path: path for path in images_of(folder)}) for folder in folders}
    for name in names:
        if name == "scores_closed":
            features = {image: closed(one) for image, one in features.items()}
            drawings = {folder: {p: closed(one) for p, one in group.items()} for folder, group in drawings.items()}
        scores = {
            "best_epoch": content["epoch"],
            "trainable": sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad),
            "answers": {part: answer(model, features, rows) for part, rows in parts.items()},
            "style_head": {part: style_head_accuracy(model, features, rows) for part, rows in parts.items()},
            "few_shot": {
                folder.name: few_shot(list(group), image_token_means(model, stack(list(group.values()))))
                for folder, group in drawings.items()
            },
        }
        write_json(run / f"{name}.json", scores)


def read_features(model: Blip2OPTGated, paths: dict[Any, Path]) -> dict[Any, TowerFeatures]:
    """-> features of each image, as a batch of one."""
    names, features = list(paths), {}
    for start in range(0, len(names), 64):
        batch = names[start : start + 64]
        output = model.features(model.prepare([paths[name] for name in batch]))
        features |= {name: output.row(index) for index, name in enumerate(batch)}
    return features


def closed(features: TowerFeatures) -> TowerFeatures:
    return features._replace(pooled=None)


def stack(features: list[TowerFeatures]) -> TowerFeatures:
    pooled = [one.pooled for one in features if one.pooled is not None]
    return TowerFeatures(torch.cat([one.patches for one in features]), torch.cat(pooled) if pooled else None)


def answer(model: Blip2OPTGated, features: dict[str, TowerFeatures], rows: Rows) -> list[list]:
    """-> image, type of the question and 1 = correct of each row."""
    answers: list[list] = []
    for start in range(0, len(rows), 128):
        batch = rows[start : start + 128]
        images = stack([features[row[0]] for row in batch])
        texts = model.predict_answers(images, [row[1] for row in batch], num_beams=1)
        answers += [[row[0], row[4], vqa_accuracy(text, [row[2]])] for row, text in zip(batch, texts)]
    return answers


def style_head_accuracy(model: Blip2OPTGated, features: dict[str, TowerFeatures], rows: Rows) -> float | None:
    """Of the linear probe on the expert's features that is trained along with the gates, %; over images."""
    styles = {row[0]: row[3] for row in rows}
    logits = model.style_logits(stack([features[image] for image in styles]).pooled)
    if logits is None:
        return None
    named = [model.styles.labels[index] for index in logits.argmax(1)]
    return 100 * statistics.mean(name == style for name, style in zip(named, styles.values()))


def image_token_means(model: Blip2OPTGated, features: TowerFeatures) -> torch.Tensor:
    """-> (N, L), the mean of the image tokens that the language model gets with QUESTION."""
    count = len(features.patches)
    batch = model.prompts.collate([model.prompts.encode(QUESTION)] * count)
    control = model.control_tokens(features.pooled, batch["question_ids"], batch["question_mask"])
    return model.image_tokens(features.patches, control).mean(1)


def images_of(folder: Path) -> list[Path]:
    """Drawings of the CONTENTS contents that most styles have."""
    paths = sorted(folder.glob("*/*_img.png"))
    counts = Counter(path.name for path in paths)
    kept = sorted(counts, key=lambda name: (-counts[name], name))[:CONTENTS]
    return [path for path in paths if path.name in kept]


def few_shot(paths: list[Path], vectors: torch.Tensor) -> dict[str, float]:
    """{references per style: accuracy of the nearest prototype in %}, mean over styles and DRAWS.

    Half of the contents, drawn at random, are references, the others queries. The mean of the references is subtracted
    from every vector, since the tokens of all images have a large component in common.
    """
    names = sorted({path.parent.name for path in paths})
    style_ids = torch.tensor([names.index(path.parent.name) for path in paths])
    contents = sorted({path.name for path in paths})
    content_ids = torch.tensor([contents.index(path.name) for path in paths])
    accuracies: dict[str, list[float]] = {str(count): [] for count in REFERENCES}
    generator = torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        for_reference = torch.zeros(len(contents), dtype=torch.bool)
        for_reference[torch.randperm(len(contents), generator=generator)[: len(contents) // 2]] = True
        order = torch.randperm(len(paths), generator=generator)
        is_query, candidates = ~for_reference[content_ids], order[for_reference[content_ids[order]]]
        groups = [candidates[style_ids[candidates] == style] for style in range(len(names))]
        for count in REFERENCES:
            chosen = torch.cat([group[:count] for group in groups])
            unit = F.normalize(vectors - vectors[chosen].mean(0), dim=1)
            similarity, _ = prototype_similarity(unit[is_query], unit[chosen], style_ids[chosen])
            truth = style_ids[is_query]
            hits = torch.bincount(truth, (similarity.argmax(1) == truth).double(), len(names))
            accuracies[str(count)].append(float((hits / torch.bincount(truth, minlength=len(names))).nanmean()))
    return {count: 100 * statistics.mean(values) for count, values in accuracies.items()} | {"chance": 100 / len(names)}


def judge_style_vectors(encoder_run: Path, folders: list[Path]) -> None:
    """scores.json of a style encoder: few-shot accuracy of its style vector, which sees the files and no BLIP-2."""
    if (encoder_run / "scores.json").is_file():
        return
    encoder, _ = load_encoder(encoder_run / "best.pth", CPU)
    scores = {folder.name: few_shot(images_of(folder), encode_images(images_of(folder), encoder)) for folder in folders}
    write_json(encoder_run / "scores.json", {"few_shot": scores})


def judge_baseline(run: Path, training: Rows, parts: dict[str, Rows]) -> None:
    """scores.json of the question-only baseline."""
    run.mkdir(exist_ok=True)
    guess = QuestionOnlyBaseline(VqaSample(0, *row) for row in training)
    answers = {
        part: [[image, kind, vqa_accuracy(guess(question), [true])] for image, question, true, _, kind in rows]
        for part, rows in parts.items()
    }
    write_json(run / "scores.json", {"answers": answers})


def check_base(folder: Path) -> None:
    """Stop if the base does not use the image: an arm can then gain nothing."""
    base, baseline = (read_json(folder / run / "scores.json") for run in ("base", "question_only"))
    correct, guessed = (accuracy(scores, "seen", ABOUT["style"]) for scores in (base, baseline))
    if correct < guessed + MIN_GAIN:
        raise SystemExit(
            f"{folder / 'base'}: {correct:.1f} % correct about style, question-only baseline {guessed:.1f} %; "
            "train the base longer or at another learning rate"
        )


def accuracy(scores: dict, part: str, kinds: Sequence[str]) -> float:
    return 100 * statistics.mean(correct for _, kind, correct in scores["answers"][part] if kind in kinds)


def report(folders: list[Path], arms: Sequence[str]) -> str:
    """folders: of the seeds. arms: names of runs, RUN/closed for its closed gates -> tables as Markdown."""
    files = {arm: arm.replace("/closed", "/scores_closed.json") for arm in arms}
    files = {arm: name if name.endswith(".json") else f"{name}/scores.json" for arm, name in files.items()}
    scores = {arm: [read_json(folder / name) for folder in folders] for arm, name in files.items()}
    lines = [part_table(scores, part) + "\n" + gain_table(scores, part) for part in PARTS]
    return "\n".join([*lines, few_shot_table(folders, scores)])


def part_table(scores: dict[str, list[dict]], part: str) -> str:
    """Mean over seeds, and behind it the lowest and the highest."""
    kinds = [kind for what in ABOUT.values() for kind in what]
    questions = ", ".join(str(len(one["answers"][part])) for one in scores["base"])
    lines = [f"\n**{PARTS[part]}** ({questions} questions), correct answers in %\n"]
    lines += ["| | style questions | content questions | " + " | ".join(kinds) + " | style head |"]
    lines += ["|---" * (len(kinds) + 4) + "|"]
    for arm, seeds in scores.items():
        cells = [shown([accuracy(one, part, about) for one in seeds]) for about in ABOUT.values()]
        cells += [f"{statistics.mean(accuracy(one, part, [kind]) for one in seeds):.1f}" for kind in kinds]
        heads = [one.get("style_head", {}).get(part) for one in seeds]
        cells += ["" if None in heads else f"{statistics.mean(heads):.1f}"]
        lines += [f"| {arm} | " + " | ".join(cells) + " |"]
    return "\n".join(lines)


def gain_table(scores: dict[str, list[dict]], part: str) -> str:
    lines = ["\n| gain in points | questions | seed by seed | mean | 95 % interval |", "|---" * 5 + "|"]
    arms = [arm for arm in scores if arm not in ("question_only", "base") and not arm.endswith("/closed")]
    for reference in [arm for arm in REFERENCE_ARMS if arm in arms]:
        for arm in [arm for arm in arms if arm not in REFERENCE_ARMS or reference == "ungated" != arm]:
            for what, kinds in ABOUT.items():
                cells = gain(scores[arm], scores[reference], part, kinds)
                lines += [f"| {arm} over {reference} | {what} | {cells} |"]
    return "\n".join(lines)


def gain(seeds: list[dict], references: list[dict], part: str, kinds: Sequence[str]) -> str:
    """Cells: of each seed, mean, interval by bootstrap over contents (their questions are drawn together)."""
    differences, contents, means = [], [], []
    for one, reference in zip(seeds, references):
        pairs = [
            (100 * (after - before), Path(image).name)
            for (image, kind, after), (_, _, before) in zip(one["answers"][part], reference["answers"][part])
            if kind in kinds
        ]
        means.append(statistics.mean(difference for difference, _ in pairs))
        differences += [difference for difference, _ in pairs]
        contents += [name for _, name in pairs]
    names = {name: number for number, name in enumerate(sorted(set(contents)))}
    low, high = bootstrap_interval(differences, [names[name] for name in contents])
    seed_by_seed = ", ".join(f"{mean:+.1f}" for mean in means)
    return f"{seed_by_seed} | {statistics.mean(differences):+.1f} | {low:+.1f} .. {high:+.1f}"


def few_shot_table(folders: list[Path], scores: dict[str, list[dict]]) -> str:
    vectors = [read_json(folder / "style_encoder" / "scores.json")["few_shot"] for folder in folders]
    rows = {arm: [one["few_shot"] for one in seeds] for arm, seeds in scores.items() if "few_shot" in seeds[0]}
    rows["style vector"] = vectors
    domains = [(domain, str(count)) for domain in vectors[0] for count in REFERENCES]
    lines = ["\n| few-shot styles, % | " + " | ".join(f"{domain}, {count}" for domain, count in domains) + " |"]
    lines += ["|---" * (len(domains) + 1) + "|"]
    lines += ["| chance | " + " | ".join(f"{vectors[0][domain]['chance']:.1f}" for domain, _ in domains) + " |"]
    for name, seeds in rows.items():
        cells = [shown([one[domain][count] for one in seeds]) for domain, count in domains]
        lines += [f"| {name} | " + " | ".join(cells) + " |"]
    return "\n".join(lines) if domains else ""
