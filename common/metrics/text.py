"""Similarity of texts to references: BLEU and ROUGE, for languages with and without spaces between words.

hypotheses (Q texts), references (Q lists of texts) -> {"bleu", "rouge1", "rouge2", "rougeL"}, each 0..100
"""

import re
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

ROUGE = ("rouge1", "rouge2", "rougeL")
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Chinese characters and Japanese kana
_TOKEN = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")


def text_metrics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Corpus BLEU (Papineni et al. 2002, by sacrebleu) and the mean F-measures of ROUGE (Lin 2004, by rouge-score).

    A hypothesis may have several references: BLEU counts n-grams of all, ROUGE takes the best. References with Chinese
    characters are split by sacrebleu's 'zh' tokenizer in BLEU, others by mteval's '13a'; ROUGE splits as WordTokenizer.
    """
    if len(hypotheses) != len(references) or not hypotheses or not all(references):
        raise ValueError(f"{len(hypotheses)} texts, {len(references)} lists of references: each text needs a reference")
    bleu = BLEU(tokenize="zh" if has_chinese(chain.from_iterable(references)) else "13a")
    rouge = RougeScorer(ROUGE, tokenizer=WordTokenizer())
    scores = [rouge.score_multi(list(targets), text) for text, targets in zip(hypotheses, references)]
    return {
        "bleu": bleu.corpus_score(list(hypotheses), list(map(list, zip_longest(*references)))).score,
        **{name: 100 * sum(score[name].fmeasure for score in scores) / len(scores) for name in ROUGE},
    }


def has_chinese(texts: Iterable[str]) -> bool:
    return any(re.search(f"[{_UNSPACED}]", text) for text in texts)


class WordTokenizer:
    """Lower-case words, single Chinese characters; rouge-score's own tokenizer drops everything but a-z and 0-9."""

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(text.lower())
