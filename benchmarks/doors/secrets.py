"""common.models.scrub: random texts with paths, passwords and tokens in them; these go, and the rest stays."""

import string
from pathlib import Path
from random import Random

from common.models.scrub import hide_secrets, scrub

WORDS = ("learning rate 1/2", "image/png", "a red cat", "and/or", "https://a.org/b/c", "猫/狗/鸟", "</s>", "x = 3.5")
BEFORE = ("", " ", "(", "[", "=", ", ", ";", "|", '"', "'", "`", ": ", "--data ", "--data=", "->", "{", "。")
AFTER = {"(": ")", "[": "]", '"': '"', "'": "'", "`": "`", "{": "}"}


def trial(random: Random, folder: Path) -> str:
    """Every planted secret starts with its own random word, which must be gone; the last part of a path may stay."""
    pieces, planted = [], []
    for _ in range(random.randint(1, 4)):
        kept, before = random.choice(WORDS), random.choice(BEFORE)
        secret, word = _secret(random)
        pieces += [f"{kept} ", before, secret, AFTER.get(before, ""), " "]
        planted.append((kept, word))
    text = "".join(pieces)
    cleaned = scrub(text)
    for kept, word in planted:
        assert word not in cleaned, (text, cleaned)
        assert kept in cleaned, (text, cleaned)
    assert scrub(cleaned) == cleaned and hide_secrets(hide_secrets(text)) == hide_secrets(text), (text, cleaned)
    clean = " ".join(random.choices(WORDS, k=3))
    assert scrub(clean) == clean, (clean, scrub(clean))
    return "read"


def _secret(random: Random) -> tuple[str, str]:
    """-> a path, an address or a token; the word in it that must not leave this machine."""
    word = "".join(random.choices(string.ascii_letters, k=12))
    last = random.choice(("cat.png", "data", "模型.pth", "a-b_c"))
    forms = (
        f"/home/{word}/{last}",
        f"/{word}/x/{last}",
        f"~/{word}/{last}",
        f"~{word}/{last}",
        f"../{word}/{last}",
        f"./{word}/{last}",
        f"file:///{word}/{last}",
        f"file://host/{word}/{last}",
        f"//{word}/share/{last}",
        f"\\\\{word}\\share\\{last}",
        f"C:\\Users\\{word}\\{last}",
        f"d:/{word}/{last}",
        f"$HOME/{word}/{last}",
        f"https://me:{word}@host/{last}",
        f"https://{word}@host/{last}",
        f"postgres://{word}:pw@host:5432/db",
        f"https://host/{last}?token={word}1&v=2",
        f"hf_{word}{word}",
        f"api_key={word}",
        f"password: {word}",
        f"Bearer {word}1",
        f"ghp_{word}{word}",
    )
    return random.choice(forms), word
