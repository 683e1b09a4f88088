"""Tables for a terminal: aligned columns, and examples of right and wrong answers."""

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells -> lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def format_examples(titles: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], count: int = 4) -> str:
    """A table of the first `count` right and the first `count` wrong examples, in order, above the number of each."""
    indices = [[index for index, value in enumerate(right) if value == kind][:count] for kind in (True, False)]
    table = [[*rows[index], "right" if right[index] else "WRONG"] for index in sorted(sum(indices, []))]
    return f"{align([[*titles, ''], *table])}\nright: {sum(right)} of {len(right)}; above are the first of each kind"
