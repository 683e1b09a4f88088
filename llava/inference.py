"""Describe images and score how well texts fit them, from 1 to 10.

python llava/inference.py                                          test_cases of llava/config.py
python llava/inference.py --image a.png --text "a cat on a chair"  one image, one text; --json for programs
python llava/inference.py --input pairs.csv --output out.jsonl     many; started again, it goes on where it stopped
python llava/inference.py --demo                                   unseen scenes, after `python llava/train.py --demo`
"""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.errors import report_skipped, run_script
from common.cli.settings import read_settings
from common.training.run import ROOT
from llava import config
from llava.backend import open_analyzer, settings_hash
from llava.demo import demo_requests, report_demo
from llava.request_io import Request, Results, read_requests


def main(argv: list[str]) -> list[dict[str, Any]]:
    settings = read_settings(config, argv, __doc__)
    requests = choose_requests(settings)
    results = Results(settings.output, settings_hash(settings)) if settings.output else None
    asked = [request for request in requests if not (results and results.has(request))]
    if len(asked) < len(requests):
        print(f"{len(requests) - len(asked)} of {len(requests)} answers are in {settings.output}", file=sys.stderr)
    found: dict[int, dict[str, Any]] = {}
    pairs = [(request.image, request.text) for request in asked]
    for position, result in open_analyzer(settings).analyze_many(pairs, quiet=len(pairs) < 2) if pairs else ():
        found[position] = result
        if results:
            results.add(asked[position], result)
    answered = [{**request._asdict(), **found[place]} for place, request in enumerate(asked)]
    if len(answered) == 1 and "error" in answered[0]:
        raise ValueError(answered[0]["error"])
    failed = {f"pair {line['key']}": line["error"] for line in answered if "error" in line}
    report_skipped(failed)
    show(answered, settings)
    if failed and len(failed) == len(requests):
        raise ValueError(f"not one of {len(requests)} pairs could be used; the first: {next(iter(failed.values()))}")
    if settings.demo:
        report_demo(answered, settings.data)
    return answered


def choose_requests(settings: Namespace) -> list[Request]:
    if settings.image or settings.text:
        if not (settings.image and settings.text) or settings.input:
            raise ValueError("--image and --text go together, and not with --input")
        if not Path(settings.image).is_file():  # said before a large model is loaded
            raise FileNotFoundError(f"{settings.image}: no such file (--image)")
        return [Request("1", settings.image, settings.text)]
    if settings.input:
        if not settings.output and not settings.json:
            raise ValueError("--input: say with --output FILE.jsonl where the results go, or print them with --json")
        return read_requests(settings.input)
    if settings.demo:
        return demo_requests(settings)
    cases = [(image if Path(image).is_file() else str(ROOT / image), text) for image, text in config.test_cases]
    return [Request(str(number), *case) for number, case in enumerate(cases, 1)]


def show(answered: list[dict[str, Any]], settings: Namespace) -> None:
    if settings.json:
        print(json.dumps(answered, indent=2, ensure_ascii=False))
        return
    if settings.output:
        print(f"{sum('error' not in line for line in answered)} results written to {settings.output}")
        return
    for line in answered[: 6 if settings.demo else None]:
        if "error" not in line:
            print(describe(line))


def describe(line: dict[str, Any]) -> str:
    """One result as text for a terminal."""
    score = "none given" if line["score"] is None else f"{line['score']} of 10"
    expected = "" if line["expected_score"] is None else f"   expected {line['expected_score']:.2f}"
    return (
        f"{line['image']}\n"
        f"  text         {line['text']}\n"
        f"  description  {line['description']}\n"
        f"  score        {score}{expected}   P(Yes) {line['p_yes']:.3f}\n"
        f"  analysis     {line['analysis']}\n"
        f"  tokens       {sum(line['tokens'].values())} in {line['seconds']:.2f} s\n"
    )


if __name__ == "__main__":
    run_script(main)
