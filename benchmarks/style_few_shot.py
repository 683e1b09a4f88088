"""Few-shot classification of styles that the encoder has not seen, its calibration, and "none of these".

    python benchmarks/style_few_shot.py --data_dir HELD_OUT_STYLES --weights A.pth [B.pth ...] [--grey]

N styles, 1, 5 or 10 random references of each, all other images are queries; mean over draws. Accuracy by prototype and
by linear probe, also of vectors that need no training; 95 % interval by bootstrap over styles.
calibration error: expected calibration error (Naeini et al. 2015, 10 bins) of the comparator's probability that an
image is of a prototype's style, where half of the pairs are.
none of these: half of the styles have no references; ROC-AUC of the probability of "none of these" as the sign of an
image of theirs.
"""

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from sys import path as import_path
from typing import Any

import_path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from common.cli.errors import run_script
from common.cli.tool_parser import tool
from common.images.cache import CACHE_SCALE, ImageCache
from common.metrics.bootstrap import bootstrap_interval
from common.text.files import write_json
from common.training.device import choose_device
from common.training.skip_log import report_skipped
from dataset import StyleDataset, find_samples
from evaluate_style import baseline_vectors, style_vectors
from few_shot import draw_references, prototype_similarity
from style_bank import style_probabilities
from style_encoder import build_untrained, load_encoder
from targets import TargetShapes

REFERENCES = (1, 5, 10)  # per style
PROBE_C = 10.0  # with one reference there is nothing to choose it by
BINS = 10  # of the calibration error


@tool
def main(
    *,
    data_dir: str,  # folder of <style>/<name>_img.*, styles that training has not seen
    weights: Sequence[str],  # .pth files written by train.py
    grey: bool = False,  # remove the colours first
    draws: PositiveInt = 20,  # of references
    device: str = "auto",
    seed: int = 0,
    output: Path | None = None,  # write the results to this JSON file
    json: bool = False,
) -> dict[str, Any]:
    torch_device, results, style_names = choose_device(device), {}, []
    for path in weights:
        encoder, content = load_encoder(path, torch_device)
        samples, size = find_samples(data_dir), encoder.tower.image_size
        images = ImageCache(round(CACHE_SCALE * size))
        unreadable = images.check([sample.image for sample in samples], len(samples))
        report_skipped(unreadable)
        samples = [sample for sample in samples if str(sample.image) not in unreadable]
        dataset = StyleDataset(samples, images, size, TargetShapes(), grey=grey)
        style_ids, style_names = torch.tensor(dataset.style_ids), dataset.styles
        methods = {f"style encoder, {path}": style_vectors(encoder, dataset, torch_device)}
        if not results:
            untrained, _ = build_untrained(content, torch_device)
            methods |= baseline_vectors(untrained, dataset, torch_device)
        for name, vectors in methods.items():
            calibration = content.get("validation", {}).get("calibration") if name.startswith("style encoder") else None
            unit = F.normalize(vectors.float(), dim=1)
            results[name] = {n: measure(unit, style_ids, n, calibration, draws, seed) for n in REFERENCES}
    report = {"data_dir": data_dir, "grey": grey, "styles": style_names, "draws": draws, "results": results}
    if output:
        write_json(output, report)
    title = f"{len(style_names)} styles of {data_dir}{', without colour' if grey else ''}, {draws} draws"
    print(dumps(report, ensure_ascii=False) if json else f"{title}\n\n{markdown(results)}")
    return report


def measure(
    vectors: torch.Tensor, style_ids: torch.Tensor, images: int, calibration: dict | None, draws: int, seed: int
) -> dict[str, Any]:
    """Unit vectors (N, S) -> accuracies per style and their intervals; with a calibration its error and the AUC."""
    generator = torch.Generator().manual_seed(seed)
    styles = len(style_ids.unique())
    hits: dict[str, list[torch.Tensor]] = {"prototype": [], "probe": []}
    calibration_errors, none_aucs = [], []
    for _ in range(draws):
        chosen = draw_references(style_ids, images, generator)
        queries, answers = vectors[~chosen], style_ids[~chosen]
        similarity, counts = prototype_similarity(queries, vectors[chosen], style_ids[chosen])
        # Centred and of unit mean square, so that one C suits vectors of any kind.
        centre = vectors[chosen].mean(0)
        features = ((vectors - centre) / (vectors[chosen] - centre).norm() * chosen.sum().sqrt()).numpy()
        probe = LogisticRegression(C=PROBE_C, max_iter=1000).fit(features[chosen], style_ids[chosen].numpy())
        for method, guess in (
            ("prototype", similarity.argmax(1)),
            ("probe", torch.from_numpy(probe.predict(features[~chosen]))),
        ):
            hits[method].append(torch.bincount(answers, (guess == answers).double()) / torch.bincount(answers))
        if calibration:
            same = answers[:, None] == torch.arange(styles)
            pairs = style_probabilities(similarity.reshape(-1, 1), counts.reshape(-1, 1), calibration)[:, 0]
            calibration_errors.append(calibration_error(pairs, same.flatten()))
            known = torch.randperm(styles, generator=generator)[: styles // 2]
            none = style_probabilities(similarity[:, known], counts[:, known], calibration)[:, -1]
            none_aucs.append(float(roc_auc_score(~torch.isin(answers, known), none)))
    result: dict[str, Any] = {}
    for method, rows in hits.items():
        per_style = torch.stack(rows).mean(0).tolist()
        result[method] = {
            "mean": sum(per_style) / styles,
            "interval": bootstrap_interval(per_style),
            "styles": per_style,
        }
    if calibration:
        result |= {"calibration_error": sum(calibration_errors) / draws, "none_auc": sum(none_aucs) / draws}
    return result


def calibration_error(probabilities: torch.Tensor, answers: torch.Tensor) -> float:
    """Mean distance of probability and frequency over BINS, true and false answers weighing the same in total."""
    weights = torch.where(answers, 0.5 / answers.sum(), 0.5 / (~answers).sum()).double()
    bins = (probabilities * BINS).long().clamp(max=BINS - 1)
    difference = torch.bincount(bins, weights * (probabilities.double() - answers.double()), minlength=BINS)
    return float(difference.abs().sum())


def markdown(results: dict[str, dict]) -> str:
    lines = ["| | references | prototype | linear probe | calibration error | none of these, AUC |", "|" + "---|" * 6]
    for name, rows in results.items():
        for images, row in rows.items():
            accuracies = [
                f"{row[method]['mean']:.3f} [{row[method]['interval'][0]:.3f}, {row[method]['interval'][1]:.3f}]"
                for method in ("prototype", "probe")
            ]
            rest = [f"{row[key]:.3f}" if key in row else "-" for key in ("calibration_error", "none_auc")]
            lines.append(f"| {' | '.join([name, str(images), *accuracies, *rest])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
