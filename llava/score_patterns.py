"""Regular expressions of llava/score_parsing.py for English, Chinese and Japanese answers without full-width forms."""

import re
from enum import IntEnum


class Rank(IntEnum):
    """Statements of a score, the weakest first; the strongest kind that an answer has counts."""

    WORDS = 0  # in a sentence: '8/10', '8分'
    PART = 1  # of one aspect: 'colour score: 8'
    SCORE = 2
    FINAL = 3


# --- what is no part of the answer's text -----------------------------------------------------------------------------
REASONING_END = re.compile(r"</think(?:ing)?>|</thought>|◁/think▷", re.IGNORECASE)
REASONING_START = re.compile(r"<think(?:ing)?>|<thought>|◁think▷", re.IGNORECASE)
MARKUP = (
    (re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}"), r"\1/\2"),
    (re.compile(r"\\(?:text|mathbf|textbf|mathrm)\{([^{}]*)\}"), r"\1"),
    (re.compile(r"<(score|rating|answer)>", re.IGNORECASE), r"\n\1: "),
    (re.compile(r"<(\d[\d./]*)>"), r"\1"),
    (re.compile(r"</?[a-z]\w*\s*/?>", re.IGNORECASE), "\n"),
    (re.compile(r"\\[()\[\]]|\u200b|\ufeff|[*`$]|(?<![^\W_])_|_(?![^\W_])"), ""),
)

# --- a number, and what may follow it ---------------------------------------------------------------------------------
NUMBER = r"(?P<number>[-+−]?\d{1,4}(?:[.,]\d{1,2})?)(?![.,:]?\d)"  # not of 8.1.2, 8:30 or 1,000
TOP = r"(?P<top>\d{1,4})(?!\d)"  # of a scale
TO = r"\s*(?:-|–|—|−|~|〜|to|到|至|から)\s*"
UNIT = r"(?:\s*(?:分|点|points?\b|pts?\b))?"
SCALES = [
    re.compile(UNIT + pattern, re.IGNORECASE)
    for pattern in (
        rf"[\s\"'\])】]*(?:\(\s*)?(?:/|out\s+of|of)\s*(?:an?\s+)?(?:possible\s+|maximum\s+)?(?:of\s+)?{TOP}",
        rf"\s*\(?(?:on\s+)?(?:a|the)?\s*(?:scale\s+(?:of|from)?\s*)?\d+{TO}{TOP}(?=[^\d\n]*(?:scale|\)))",
        rf"\s*\(?on\s+(?:a|the)\s+(?:scale\s+(?:of|from)\s+\d+{TO})?{TOP}(?:[- ]point)?",
        rf"\s*\(?(?:满分|滿分)(?:为|是)?\s*{TOP}",
        rf"\s*\(\s*{TOP}(?=\s*(?:点満点|点中|分制|分满分))",
    )
]
RANGE = re.compile(  # and sums, percent, doubt
    rf"{UNIT}\s*(?:(?:{TO}|±|\+/-|[+*×=]|or\b|and\b|&|或|か)\s*\d|%|,?\s*(?:maybe|perhaps)\b)", re.IGNORECASE
)
UNUSABLE = re.compile(  # without a scale: percent, stars, fractions of nothing, 3 1/2, 8th, 8-bit, 8²
    r"[ ]\d/\d(?!\d)|\s*(?:percent|パーセント|[★☆⭐🌟]|stars?\b|星|つ星|段階|/)|[a-z²³°]|[-–][a-z]", re.IGNORECASE
)
COUNTED = re.compile(r"\s+(?:of|people|(?!(?:as|is|was|this|points|pts|stars|matches|fits)\b)[a-z]{3,}s)\b")
EXPLAINED = re.compile(
    r"\W*\b(?:would|means?|indicates?|represents?|requires?|implies|denotes|if|when)\b", re.IGNORECASE
)
DENIED = re.compile(  # in the sentence before
    r"\b(?:not|never|cannot|if|unless|instead|initially|at first)\b|n't\b|不是|不能|不应|如果|没有"
    r"|\b(?:for|than|to (?:get|earn|reach|achieve|receive|deserve))\s+(?:an?|the)?\s*$",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"[.!?;](?=\s)|[\n。！？]")

# --- labels -----------------------------------------------------------------------------------------------------------
LABEL = re.compile(
    r"(?:(?<![^\W\d_])(?P<word>[^\W\d_]{1,20})[ \t_-]{1,3}|(?<![a-z]))(?:scores?|ratings?|grade|marks?)(?![a-z])"
    r"|(?P<prefix>综合|最终|总体|总|総合|最終)?(?:评分(?:结果)?|評分|得分|分数|分數|打分|评级|スコア|評価|点数|得点|採点)"
    r"|^[ \t>#|{,\"'-]{0,9}(?P<line>(?:final\s+)?(?:answer|verdict)|overall|total|result|relevance|match|alignment"
    r"|similarity|consistency|答案|结果|結果|结论|結論|一致度|十分制)(?=[\s\"']*(?:\([^()\n]*\)\s*)?[:=|])",
    re.IGNORECASE | re.MULTILINE,
)
FINAL_WORDS = {"final", "overall", "total", "verdict", "final answer", "final verdict"}
FINAL_WORDS |= {"综合", "最终", "总体", "总", "総合", "最終"}
PLAIN_WORDS = {"", "the", "my", "a", "an", "this", "its", "your", "and", "is", "of", "with", "give", "i", "answer"}
PLAIN_WORDS |= {"result", "答案", "结果", "結果", "结论", "結論"}
OTHER_WORDS = {"max", "maximum", "min", "minimum", "highest", "lowest", "perfect", "full", "possible", "confidence"}
OTHER_WORDS |= {"previous", "initial", "no", "threshold", "passing"}  # not the score of this pair
LABEL_SCALE = re.compile(
    r"[\s\"']*[(\[][^()\[\]\n]{0,40}\d[^()\[\]\n]{0,40}[)\]]"
    rf"|\s*(?:from\s+|on\s+a\s+scale\s+(?:of|from)\s+)?(?:\d+{TO}|out\s+of\s*|/\s*){TOP}\s*(?=[:=])",
    re.IGNORECASE,
)
SIGN = r"[:=|→\n]|[-=]>|\s[-–—]\s"
GAP = re.compile(  # between a label and its number
    rf"(?:{SIGN}|[\s~\"'“”‘’()\[\]{{}}【】「」『』]|\b(?:is|was|of|be|would|should|as|an?|the|for|this|that|image|pair|text"
    r"|match|to|it|given|assigned|i|give|at|around|about|approximately|roughly|exactly|solid|strong|therefore)\b"
    r"|是|为|為|は)*",
    re.IGNORECASE,
)
HAS_SIGN = re.compile(SIGN)

# --- numbers without a label ------------------------------------------------------------------------------------------
RATE = r"\b(?:rate|give|assign|award|grade|score)(?:s|d|ing)?\b[^.\n\d]{0,60}?"
UNLABELLED = [
    (rank, re.compile(pattern, re.IGNORECASE | re.MULTILINE))
    for rank, pattern in (
        (Rank.FINAL, rf"(?:\[\[\s*|\[RESULT\][\s(\[]*|\\boxed\{{\s*|^####\s*){NUMBER}"),
        (Rank.SCORE, rf"\bon\s+a\s+scale\s+(?:of|from)\s+\d+{TO}{TOP}[^.\n\d]{{0,80}}?(?<![\w.]){NUMBER}"),
        (Rank.SCORE, rf"{RATE}\b(?:an?|as|at)\s+{NUMBER}(?=[\s\"')]*(?:[.,;!]|\n|\Z))"),
        (Rank.SCORE, rf"{RATE}(?<![\w.]){NUMBER}(?=\s*(?:/|out\s+of)\s*\d)"),
        (Rank.SCORE, rf"{TOP}\s*(?:点(?:満点)?|段階(?:評価)?)(?:中|で|の|:|、|,)+\s*{NUMBER}"),
        (Rank.SCORE, rf"{TOP}\s*分(?:满分|滿分|制)[^\d\n]{{0,12}}{NUMBER}"),
        (Rank.SCORE, rf"(?:满分|滿分)(?:为|是)?\s*{TOP}\s*分?[^\d\n]{{0,12}}{NUMBER}"),
        (Rank.SCORE, rf"\A[\s:=\[(【“]*{NUMBER}(?={UNIT}\s*(?:\Z|\n(?!\s*\d)|[\])】”/.,;:-]|out\s+of|\(|です))"),
        (Rank.SCORE, rf"(?<=\n)(?<!\d\n)[^\w\n]*{NUMBER}(?={UNIT}(?:/\d+)?\W*\Z)"),
        (Rank.WORDS, rf"(?<![a-z\d_./]){NUMBER}(?=\s*(?:/|out\s+of)\s*10(?!\d))"),
        (
            Rank.WORDS,
            rf"(?<![\d.扣减減少差加高低每共第])(?<!满分){NUMBER}(?=\s*分(?![钟鐘之の米类部别歧間间割前後以]))",
        ),
    )
]
