"""Questions whose answer the toy language model knows: counting, copying, sums, and what a canary asks."""

from __future__ import annotations

import re

_COUNT = re.compile(r"\bcount (?:up )?to (\d{1,5})\b", re.IGNORECASE)
_REPEAT = re.compile(r"Repeat (?:this line )?exactly(?:, and nothing else)?:\s*(.+)", re.IGNORECASE | re.DOTALL)
_SUM = re.compile(r"What is (\d+) (\+|-|\*|times|plus|minus) (\d+)", re.IGNORECASE)
_ROW = re.compile(r"comes next in this row: ([\d, ]+)\?")
_LETTER = re.compile(r"begins with the letter (\w): ([\w, ]+)\?")
_SOLD = re.compile(r"sold (\d+) boxes of (\w+) today")
_COUNTED_LIMIT = 20_000


def known_answer(question: str) -> str | None:
    """The right answer, None where there is none to know.

    "count to N" is answered with one number a token ("1 2 3 "), so that a stream that lost, doubled or swapped a token
    shows it.
    """
    counted = _COUNT.search(question)
    if counted:
        return "".join(f"{n} " for n in range(1, min(int(counted[1]), _COUNTED_LIMIT) + 1))
    repeated = _REPEAT.search(question)
    if repeated:
        return repeated[1].strip()
    asked = _SUM.search(question)
    if asked:
        a, b = int(asked[1]), int(asked[3])
        return str({"+": a + b, "plus": a + b, "-": a - b, "minus": a - b}.get(asked[2].lower(), a * b))
    row = _ROW.search(question)
    if row:
        numbers = [int(one) for one in row[1].split(",")]
        return str(2 * numbers[-1] - numbers[-2])
    letter = _LETTER.search(question)
    if letter:
        return next((word for word in letter[2].split(", ") if word[0].upper() == letter[1].upper()), None)
    sold = _SOLD.search(question)
    if sold:
        return f'{{"item": "{sold[2]}", "count": {sold[1]}}}'
    return None
