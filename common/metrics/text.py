"""Similarity of texts to references: BLEU and ROUGE, for languages with and without spaces between words.

hypotheses (Q texts), references (Q lists of texts) -> {"bleu", "rouge1", "rouge2", "rougeL"}, each 0..100
references -> the settings that these numbers depend on, to be written next to them
"""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from itertools import zip_longest

import regex
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_base import BaseTokenizer

ROUGE = ("rouge1", "rouge2", "rougeL")
KANA = r"\p{Hiragana}\p{Katakana}ー"
HAN = r"\p{Han}"
UNSPACED = rf"{HAN}{KANA}\p{{Thai}}\p{{Lao}}\p{{Khmer}}\p{{Myanmar}}\p{{Tibetan}}"  # in the brackets of a pattern
TOKENIZERS = ((f"[{KANA}]", "ja-mecab"), (f"[{HAN}]", "zh"), (rf"[\p{{Hangul}}{UNSPACED}]", "char"), ("", "13a"))
_WORD = regex.compile(rf"(?V1)[{UNSPACED}]\p{{M}}*|[\w--[_{UNSPACED}]]+")  # \w of `regex` includes marks: हिन्दी is one


def text_metrics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Corpus BLEU (Papineni et al. 2002, by sacrebleu) and the mean F-measures of ROUGE (Lin 2004, by rouge-score).

    A hypothesis may have several references: BLEU counts n-grams of all, ROUGE takes the best. BLEU splits each text as
    bleu_tokenizers says, and, if no text has four tokens, counts n-grams as long as there are (sacrebleu's
    effective_order); ROUGE splits as WordTokenizer.
    """
    if len(hypotheses) != len(references) or not hypotheses or not all(references):
        raise ValueError(f"{len(hypotheses)} texts, {len(references)} lists of references: each text needs a reference")
    split = list(map(_tokenizer, bleu_tokenizers(references)))
    split_hypotheses = [tokenize(text.rstrip()) for tokenize, text in zip(split, hypotheses)]
    split_references = [[tokenize(text.rstrip()) for text in targets] for tokenize, targets in zip(split, references)]
    bleu = BLEU(tokenize="none", force=True, effective_order=True)
    rouge = RougeScorer(ROUGE, tokenizer=WordTokenizer())
    scores = [rouge.score_multi(list(targets), text) for text, targets in zip(hypotheses, references)]
    return {
        "bleu": bleu.corpus_score(split_hypotheses, list(map(list, zip_longest(*split_references)))).score,
        **{name: 100 * sum(score[name].fmeasure for score in scores) / len(scores) for name in ROUGE},
    }


def text_metric_settings(references: Sequence[Sequence[str]]) -> dict[str, str]:
    """Signature of BLEU as sacrebleu writes it, with all tokenizers of a set in several languages; ROUGE's settings."""
    counts = {len(targets) for targets in references}
    tokenizers = "+".join(_tokenizer(name).signature() for name in sorted(set(bleu_tokenizers(references))))
    return {
        "bleu": f"nrefs:{counts.pop() if len(counts) == 1 else 'var'}|case:mixed|eff:yes|tok:{tokenizers}|smooth:exp"
        f"|version:{version('sacrebleu')}",
        "rouge": "F-measure|case:lower|stemmer:no|tok:words, characters in scripts without spaces|best of references"
        f"|rouge-score:{version('rouge-score')}",
    }


def bleu_tokenizers(references: Sequence[Iterable[str]]) -> list[str]:
    """Names in sacrebleu for each text: ja-mecab for references with kana; zh with Chinese characters alone, if most
    others of the set have no kana either; char for Korean (ko-mecab needs a dictionary of its own) and other scripts
    without spaces between words; else mteval's 13a."""
    texts = map(" ".join, references)
    names = [next(name for script, name in TOKENIZERS if regex.search(script, text)) for text in texts]
    is_japanese = names.count("ja-mecab") > names.count("zh")
    return ["ja-mecab" if name == "zh" and is_japanese else name for name in names]


@cache
def _tokenizer(name: str) -> BaseTokenizer:
    return BLEU(tokenize=name).tokenizer


def has_chinese(texts: Iterable[str]) -> bool:
    """Chinese characters or kana."""
    return bool(regex.search(f"[{HAN}{KANA}]", " ".join(texts)))


class WordTokenizer:
    """Lower-case words, and single characters in scripts without spaces; of a text without either, its other signs.

    rouge-score's own tokenizer drops everything but a-z and 0-9.
    """

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower()) or regex.findall(r"[^\s]", text)
