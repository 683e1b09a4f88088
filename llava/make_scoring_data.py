"""Conversations that teach scoring: questions whether a text fits an image, scores with reasons, descriptions.

    python llava/make_scoring_data.py captions.json scoring.jsonl [--language en zh --groups subgroup group]
    python llava/make_scoring_data.py held_out.csv test_zh.jsonl --language zh --evaluation

.csv, .tsv, .json or .jsonl with the fields image (or image_path, file_name), of which each language has some of TEXTS:
text, caption, name; keywords, a list or separated by ; or ,   those of other languages than the first end in _LANGUAGE:
text_zh, keywords_zh   -> fitting and unfitting pairs (llava/scoring_pairs.py) -> conversations for llava/train.py, or
with --evaluation samples for llava/evaluate.py: each image with its first text, and one unfitting text of each of
--groups and one of any image. Paths in the output are relative to its folder.
"""

import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file: imports begin at the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from common.cli.early import answer_early

if __name__ == "__main__":
    answer_early(__file__)

import numpy as np
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt

from common.cli.errors import run_script
from common.cli.names import unknown_name
from common.cli.tool_parser import tool
from common.text.conversations import IMAGE
from common.text.files import write_jsonl
from common.text.tables import check_record, read_records
from common.text.values import file_name_of
from common.training.skip_log import SkipLog, report_skipped
from llava.config import PROMPTS
from llava.eval_dataset import KEYWORD_SEPARATORS, text_list
from llava.request_io import IMAGE_KEYS
from llava.scoring_pairs import AnnotatedImage, Pair, draw_pairs, exchange_within_groups

TEXTS = ("text", "texts", "caption", "captions", "name", "keywords")  # fields, the most specific texts first
SCORES = {"fits": 9, "hard": 3, "easy": 1}  # hard: a text that fits an image of the same group
# Answers of each language of PROMPTS. {own}: the image's first text.
ANSWERS = {
    "en": {
        "no": "No",
        "comma": ", ",
        "fits": "Score: {score}\nAnalysis: It shows {own}.",
        "does not fit": "Score: {score}\nAnalysis: It shows {own}, not {text}.",
    },
    "zh": {
        "no": "否",
        "comma": "、",
        "fits": "评分：{score}\n分析：图中是{own}。",
        "does not fit": "评分：{score}\n分析：图中是{own}，不是{text}。",
    },
}
Turn = tuple[str, str]  # question, answer


@tool
def main(
    input: Path,  # images with their texts
    output: Path,  # the .jsonl to write
    *,
    language: Sequence[str] = ("en",),  # keys of PROMPTS (llava/config.py)
    groups: Sequence[str] = (),  # fields whose values make hard pairs, the finest first
    yes_no: NonNegativeInt = 4,  # fitting texts of an image and language for yes/no questions; as many unfitting ones
    score: NonNegativeInt = 1,  # the same for scores
    describe: NonNegativeInt = 1,  # first texts of an image in a language that describe it; 0: no descriptions
    turns: PositiveInt = 1,  # of a conversation
    evaluation: bool = False,  # write samples for evaluate.py
    allowed_share: ClosedUnitInterval = 0.05,  # of unusable records
    seed: int = 0,
) -> dict:
    for name in language:
        if name not in PROMPTS.keys() & ANSWERS.keys():
            raise ValueError(unknown_name(name, list(ANSWERS), "--language"))
    if evaluation and len(language) > 1:
        raise ValueError("--evaluation: samples are of one language; give one --language at a time")
    random, skip_log = np.random.default_rng(seed), SkipLog(limit=allowed_share)
    rows: list[dict[str, Any]] = []
    turns_of: dict[str, list[Turn]] = defaultdict(list)  # by image
    num_pairs: Counter[str] = Counter()
    for name in language:
        images = read_images(input, name, name == language[0], groups, output.parent, skip_log)
        if evaluation:
            rows = samples(images, random)
            continue
        for kind, count in (("yes_no", yes_no), ("score", score)):
            pairs, unused = draw_pairs(images, count, random)
            num_pairs += Counter(pair.kind for pair in pairs) + Counter(unused=unused)
            for pair in pairs:
                turns_of[images[pair.image].path].append(ask(kind, pair, images[pair.image].texts[0], name))
        for image in images if describe else ():
            turns_of[image.path].append(
                (PROMPTS[name]["describe"], ANSWERS[name]["comma"].join(image.texts[:describe]))
            )
    rows = rows or list(conversations(turns_of, turns, random))
    if not rows:
        raise ValueError(f"{input}: gives no turn; raise --yes_no or --score, or give images whose texts differ")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(output, rows)
    report_skipped(skip_log.skipped, listed="")
    counts = ", ".join(f"{count} {kind}" for kind, count in num_pairs.items() if count)
    kind = "samples" if evaluation else f"conversations with pairs: {counts}"
    print(f"{output}: {len(rows)} {kind}; {len(skip_log.skipped)} records skipped")
    return {"output": str(output), "rows": len(rows), "pairs": dict(num_pairs), "skipped": skip_log.skipped}


def read_images(
    path: Path, language: str, is_first: bool, groups: Sequence[str], root: Path, skip_log: SkipLog
) -> list[AnnotatedImage]:
    """Images that have a text in this language, those of several records once. root: folder that their paths become
    relative to."""
    fields = [field + suffix for field in TEXTS for suffix in (f"_{language}", "") if suffix or is_first]
    texts: dict[str, list[str]] = defaultdict(list)
    groups_of: dict[str, tuple[str, ...]] = {}
    records = list(read_records(path, "expected images with their texts"))
    for key, record in records:
        try:
            check_record(record)
            name = file_name_of(next((record[field] for field in IMAGE_KEYS if record.get(field)), None), path.parent)
            if not os.path.isfile(path.parent / name):  # noqa: PTH113, Path.is_file() raises where a name is too long
                raise ValueError(f"no such image: {path.parent / name}")
            image = os.path.relpath(path.parent / name, root)
            for field in fields:
                texts[image] += text_list(record.get(field), KEYWORD_SEPARATORS if "keywords" in field else "")
            groups_of[image] = tuple(str(record.get(field) or "") for field in groups)
        except ValueError as error:
            skip_log.add(key, error, len(records))
    for number, field in enumerate(groups):
        if not any(values[number] for values in groups_of.values()):
            raise ValueError(f"{path}: no record has the field {field!r} of --groups")
    images = [AnnotatedImage(image, tuple(dict.fromkeys(of)), groups_of[image]) for image, of in texts.items() if of]
    if not images:
        reason = next(iter(skip_log.skipped.values()), f"expected one of the fields {', '.join(fields)}")
        raise ValueError(f"{path}: no image with a text in {language!r}; {reason}")
    return images


def conversations(
    turns_of: Mapping[str, list[Turn]], num_turns: int, random: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """The turns of each image in random order, num_turns a conversation."""
    for image, turns in turns_of.items():
        random.shuffle(turns)
        for start in range(0, len(turns), num_turns):
            messages = [
                {"from": speaker, "value": text}
                for turn in turns[start : start + num_turns]
                for speaker, text in zip(("human", "gpt"), turn)
            ]
            messages[0]["value"] = f"{IMAGE}\n{messages[0]['value']}"
            yield {"image": image, "conversations": messages}


def ask(kind: str, pair: Pair, own: str, language: str) -> Turn:
    """own: the text that fits the image best."""
    answers, prompts = ANSWERS[language], PROMPTS[language]
    values = {"text": pair.text, "own": own.rstrip(".。!！"), "score": str(SCORES[pair.kind])}
    if kind == "yes_no":
        answer = prompts["yes"] if pair.fits else answers["no"]
    else:
        answer = answers["fits" if pair.fits else "does not fit"]
    # In one pass, and not by str.format: the texts themselves may hold braces.
    question, answer = (
        re.sub(r"\{(text|own|score)\}", lambda match: values[match[1]], form) for form in (prompts[kind], answer)
    )
    return question, answer


def samples(images: Sequence[AnnotatedImage], random: np.random.Generator) -> list[dict[str, Any]]:
    """Each image with its first text and, of each grouping and of all images, a text that does not fit."""
    fitting = [Pair(number, image.texts[0], True) for number, image in enumerate(images)]
    negatives: list[list[str]] = [[] for _ in images]
    for level in range(len(images[0].groups) + 1):
        for pair in exchange_within_groups(images, fitting, random, level)[0]:
            negatives[pair.image].append(pair.text)
    return [
        {
            "image": image.path,
            "text": image.texts[0],
            "negatives": list(dict.fromkeys(texts)),
            "group": image.groups[-1] if image.groups else "",
        }
        for image, texts in zip(images, negatives)
        if texts
    ]


if __name__ == "__main__":
    run_script(main)
