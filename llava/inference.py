"""Description of images and scores, from 1 to 10, of how well texts match them.

python llava/inference.py                                          test_cases of llava/config.py
python llava/inference.py --image a.png --text "a cat on a chair"  one image, one text; --json for programs
python llava/inference.py --input pairs.csv --output out.jsonl     many pairs; the same command resumes
python llava/inference.py --demo                                   unseen scenes, after `python llava/train.py --demo`
"""

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early
from llava import config

if __name__ == "__main__":
    answer_early(__file__, config)

from common.cli.errors import printable, run_script
from common.cli.paths import find_from_root, find_inputs
from common.cli.settings import read_settings
from common.training.skip_log import report_skipped
from llava.analysis import ServerGone
from llava.backend import INPUTS, open_analyzer, settings_hash
from llava.demo import demo_requests, report_demo
from llava.request_io import Request, Results, read_requests


def main(argv: list[str]) -> list[dict[str, Any]]:
    settings = read_settings(config, argv, __doc__)
    find_inputs(settings, *INPUTS)
    requests = choose_requests(settings)
    results = Results(settings.output, settings_hash(settings), requests) if settings.output else None
    pending = results.pending if results else requests
    if done := len(requests) - len(pending):
        print(f"{done} of {len(requests)} results are already in {settings.output}", file=sys.stderr)
    rows: dict[str, dict[str, Any]] = {}
    stopped = None
    try:
        for request, result in score(settings, pending):
            rows[request.key] = {"key": request.key, "image": request.image, "text": request.text, **result}
            if results:
                results.add(rows[request.key])
    except ServerGone as error:
        stopped = error
    finally:
        if results:
            results.close()
    ordered = [rows[request.key] for request in pending if request.key in rows]
    failed = {f"pair {row['key']}": row["error"] for row in ordered if "error" in row}
    if len(failed) == len(requests) == 1:
        raise stopped or ValueError(ordered[0]["error"])
    report_skipped(failed, listed=settings.output)
    show(ordered, settings)
    if stopped:
        raise stopped
    if failed and len(failed) == len(requests):
        raise ValueError(f"none of {len(requests)} pairs could be scored; the first: {next(iter(failed.values()))}")
    if settings.demo:
        report_demo(ordered, settings.data)
    return ordered


def score(settings: Namespace, requests: list[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
    """-> (request, result), as they are finished. Requests of the same image and text are analysed once."""
    by_pair: dict[tuple[str, str], list[Request]] = {}
    for request in requests:
        if request.error:
            yield request, {"error": request.error}
        else:
            by_pair.setdefault((request.image, request.text), []).append(request)
    pairs = list(by_pair)
    for position, result in open_analyzer(settings).analyze_many(pairs, quiet=len(pairs) < 2) if pairs else ():
        yield from ((request, result) for request in by_pair[pairs[position]])


def choose_requests(settings: Namespace) -> list[Request]:
    if settings.image or settings.text:
        if not (settings.image and settings.text) or settings.input:
            raise ValueError("--image and --text go together, and not with --input")
        if not Path(settings.image).is_file():  # before a large model is loaded
            raise FileNotFoundError(f"{settings.image}: no such file (--image)")
        return [Request("1", settings.image, settings.text)]
    if settings.input:
        if not settings.output and not settings.json:
            raise ValueError("--input: give --output FILE.jsonl for the results, or print them with --json")
        return read_requests(settings.input)
    if settings.demo:
        return demo_requests(settings)
    return [
        Request(str(number), find_from_root(image), text) for number, (image, text) in enumerate(config.test_cases, 1)
    ]


def show(rows: list[dict[str, Any]], settings: Namespace) -> None:
    if settings.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif settings.output:
        print(f"{sum('error' not in row for row in rows)} results written to {settings.output}")
    else:
        for row in rows[: 2 if settings.demo else None]:
            if "error" not in row:
                print(format_result(row))


def format_result(row: dict[str, Any]) -> str:
    """One result as text for a terminal."""
    score = "none" if row["score"] is None else f"{row['score']} of 10"
    p_yes = "" if row["p_yes"] is None else f"   P(Yes) {row['p_yes']:.3f}"
    expected = "" if row["expected_score"] is None else f"   expected {row['expected_score']:.2f}"
    return (
        f"{printable(row['image'])}\n"
        f"  text         {row['text']}\n"
        f"  description  {row['description']}\n"
        f"  score        {score}{expected}{p_yes}\n"
        f"  analysis     {row['analysis']}\n"
        f"  tokens       {sum(row['tokens'].values())} in {row['seconds']:.2f} s\n"
    )


if __name__ == "__main__":
    run_script(main)
