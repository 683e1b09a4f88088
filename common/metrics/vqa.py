"""VQA accuracy (Antol et al. 2015) and its normalisation of answers, equal to the official evaluator of VQA v2.

prediction, the annotators' answers (usually ten) -> accuracy in 0..1

Equal also where the official code (github.com/GT-Vision-Lab/VQA) does something other than it seems to mean: answers
that are all the same are compared as they are, upper and lower case included, without normalisation; only the first 32
periods are removed; a comma between two digits makes every other sign vanish without leaving a space. LAVIS normalises
every prediction but only the punctuation of the annotators' answers, MMF (TextVQA) normalises both always and splits
off 's, A-OKVQA normalises nothing and does not leave annotators out, so their figures can differ from these.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

MIN_ANSWERS = 4  # with fewer, leaving one out leaves less than the three that a full score needs
NUMBERS = dict(zip("zero one two three four five six seven eight nine ten".split(), map(str, range(11)))) | {
    "none": "0"
}
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # the apostrophe and the colon are text
# Written with one apostrophe missing, wherever it is, they get it back.
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
RESTORED = {
    word[: match.start()] + word[match.end() :]: word for word in CONTRACTIONS for match in re.finditer("'", word)
} | {"somebody'd": "somebodyd"}  # the other way round, in the official table


@lru_cache(2**16)
def normalise_answer(text: str) -> str:
    """Lower case, numbers up to ten as digits, no articles, no punctuation, apostrophes of contractions; 2.5 stays 2.5.

    A sign is a space between characters and nothing next to a space.
    """
    text = signed = _one_line(text)
    keeps_no_space = re.search(r"\d,\d", text)
    for sign in PUNCTUATION:
        vanishes = keeps_no_space or f"{sign} " in signed or f" {sign}" in signed
        text = text.replace(sign, "" if vanishes else " ")
    text = re.sub(r"\.(?!\d)", "", text, count=32)
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(RESTORED.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """min(agreeing annotators / 3, 1), averaged over leaving each annotator out.

    With fewer than four answers, for which there is no official score, one that agrees after normalisation is enough.
    """
    prediction, *answers = map(_one_line, (prediction, *answers))
    if len(answers) < MIN_ANSWERS or len(set(answers)) > 1:
        prediction, *answers = map(normalise_answer, (prediction, *answers))
    agree = sum(answer == prediction for answer in answers)
    if len(answers) < MIN_ANSWERS:
        return float(agree > 0)
    left_out = agree * min((agree - 1) / 3, 1) + (len(answers) - agree) * min(agree / 3, 1)
    return left_out / len(answers)


def most_frequent_answer(answers: Sequence[str]) -> str:
    """The most frequent answer after normalisation, in its most frequent spelling; of equally frequent the first."""
    ((frequent, _),) = Counter(map(normalise_answer, answers)).most_common(1)
    return Counter(answer for answer in answers if normalise_answer(answer) == frequent).most_common(1)[0][0]


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
