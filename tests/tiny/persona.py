"""A metadata line of a persona, and how many tokens CLIP makes of a text."""

from open_clip import SimpleTokenizer


def flat(found):
    groups = [(f"{group} " if group != "appearance" else "", keys) for group, keys in found.items()]
    return {f"{prefix}{key}": values for prefix, keys in groups for key, values in keys.items() if values}


RECORD = {
    "file_name": "images/mira_01.png",
    "character": "Mira '''Vale'''[1]",
    "title": "Paper Harbour",
    "url": "x",
    "appearance": "Mira is a tall young woman with long, wavy black hair in a high ponytail and green eyes. She wears "
    "a red dress and an orange hat, has horns, and shows a broad smile.",
    "personality": "Cheerful, but never rude.",
}
TOKENIZER = SimpleTokenizer()


def slow_count(text):
    return len(TOKENIZER.encode(text)) + 2
