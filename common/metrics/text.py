"""How alike are texts and their references: BLEU and ROUGE, for words with and without spaces between them.

hypotheses (Q texts), references (Q lists of texts) -> {"bleu", "rouge1", "rouge2", "rougeL"}, each 0..100
"""

import re
from collections.abc import Iterable, Sequence

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

ROUGE = ("rouge1", "rouge2", "rougeL")
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Chinese characters and Japanese kana
_TOKEN = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")


def text_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Corpus BLEU (Papineni et al. 2002, by sacrebleu) and the mean F-measures of ROUGE (Lin 2004, by rouge-score).

    A hypothesis may have several references: BLEU counts n-grams of them all, ROUGE takes the best. Chinese is
    compared character by character, by sacrebleu's 'zh' tokens in BLEU; else they are mteval's '13a'.
    """
    if len(hypotheses) != len(references) or not hypotheses or not all(references):
        raise ValueError(f"{len(hypotheses)} texts, {len(references)} lists of references: each needs one, not empty")
    widest = max(map(len, references))
    streams = [[one[place] if place < len(one) else None for one in references] for place in range(widest)]
    chinese = has_chinese(text for one in references for text in one)
    bleu = BLEU(tokenize="zh" if chinese else "13a").corpus_score(list(hypotheses), streams).score
    scorer = RougeScorer(ROUGE, tokenizer=WordTokenizer())
    found = [scorer.score_multi(list(true), guess) for guess, true in zip(hypotheses, references)]
    return {"bleu": bleu, **{name: 100 * sum(one[name].fmeasure for one in found) / len(found) for name in ROUGE}}


def has_chinese(texts: Iterable[str]) -> bool:
    return any(re.search(f"[{_UNSPACED}]", text) for text in texts)


class WordTokenizer:
    """Words in small letters, Chinese characters one by one: rouge-score's own tokens drop all that is not a-z, 0-9."""

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(text.lower())
