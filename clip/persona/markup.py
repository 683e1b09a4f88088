"""Removal of wiki markup and reference marks.

Her [[hair]] is '''silver'''.[7] -> Her hair is silver.
"""

import html
import re

from common.text.files import split_lines

TAGS = "a|abbr|b|big|blockquote|br|center|code|dd|del|div|dl|dt|em|font|gallery|h[1-6]|hr|i|img|li|nowiki|ol|p|poem|pre"
TAGS += "|rb|ref|rp|rt|ruby|s|small|span|strike|strong|sub|sup|tabber|table|tbody|td|th|tr|tt|u|ul"
MARKUP = [
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), new)
    for pattern, new in (
        (r"<!--(?:(?!<!--|-->).)*-->", " "),
        (r"<ref\b[^>]*/>|<(ref|gallery)\b[^>]*>(?:(?!<ref\b|<gallery\b|</ref|</gallery).)*</\1\s*>", " "),
        (rf"</?(?:{TAGS})\b[^<>]*>", " "),
        (r"\[\[(?:file|image|category|media)\s*:(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", " "),
        (r"\[\[(?:[^\[\]|]*\|)*([^\[\]|]*)\]\]", r"\1"),
        (r"\[(?:https?:)?//\S+\s*([^\]]*)\]", r"\1"),
        (r"(?:https?://|www\.)[^\s\])>]+", " "),
        (
            r"\[\s*(?:\d+(?:\s*[,:–-]\s*\d+)*|[a-z]|[a-z][a-z ]*needed|edit|source|sic|who|when|where|which|why|how|"
            r"(?:(?:foot)?notes?|nb|n|fn|refs?|cit(?:e|ation)|ch(?:apter|\.)?|ep(?:isode|\.)?|vol(?:ume|\.)?|p{1,2}(?:age|\.)?)"
            r"[\s.:]*[\divxlc, –-]*)\s*\??\s*\]",
            " ",
        ),
        (r"\{\|(?:(?!\{\||\|\}).)*\|\}", " "),
        (r"'{2,}|\{\{|\}\}|\[\[|\]\]|__[A-Z]+__", ""),
        (r"={2,}", "\n"),
    )
]
TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("‘’ʼ", "'"),
        **dict.fromkeys("“”„", '"'),
        **dict.fromkeys("‑‐", "-"),
        **dict.fromkeys("\u00a0\u202f↑†‡", " "),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff\ufffd"),
    }
)
NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """One line without markup and reference marks; what had a line of its own ends in a full stop."""
    text = _without_markup(text)
    lines = (re.sub(r"^[\s*#:;•]+|^[+-]\s+", "", line).strip() for line in split_lines(text))
    ended = (
        line if line.endswith((".", "!", "?", ",", ";", ":", "。", "！", "？")) else f"{line}."
        for line in lines
        if line
    )
    text = re.sub(r"\s+", " ", " ".join(ended))
    text = re.sub(r"\(\s*[,;]*\s*\)|\[\s*\]", "", text)
    text = re.sub(r"\s+([.,;:!?)])", r"\1", text)
    text = re.sub(r"([.,])(?:\s*,)+|(\.)\.+(?=\s|$)", r"\1\2", text)
    return re.sub(r"\s+", " ", text).strip().removesuffix(" .").strip()


def clean_name(text: str) -> str:
    """A character or a title: only markup is removed, everything else is part of the name."""
    return re.sub(r"\s+", " ", _without_markup(text)).strip()


def _without_markup(text: str) -> str:
    text = NOT_TEXT.sub(" ", html.unescape(html.unescape(text)).translate(CHARACTERS))
    for _ in range(text.count("{{") and 20):  # innermost first
        text = TEMPLATE.sub(" ", text)
    for pattern, new in MARKUP:
        text = pattern.sub(new, text)
    return text
