"""Judges an answer by its text alone: is a known answer right, and has the text degenerated?

Known answers are the only evidence for a build that nothing can be compared with. They are judged kindly (a right
number in a sentence is right), because a small model that phrases clumsily is not a broken kernel.

A text has degenerated when one character floods it or when it repeats itself over and over. Repetition inside tables
and code is their nature, so those lines don't count.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

GRAM = 4  # words in a row that make up one n-gram
WORD = 3  # characters that stand for a word in a script without spaces
LEAST_WORDS = 60  # fewer say nothing about repetition
MOST_REPEATED = 0.6  # share of n-grams that stood there before: a chorus stays under it, a loop does not
LEAST_FLOOD = 120  # characters
FLOOD_SHARE = 0.9
LONGEST_CELL = 32  # characters on average from comma to comma in a row of a table; prose has about 60
RULE_CHARACTERS = frozenset("-=_.*#~─━═ ")  # lines are drawn with these
_NO_RULES = str.maketrans("", "", "".join(RULE_CHARACTERS))
BROKEN = "\N{REPLACEMENT CHARACTER}"
MOST_BROKEN = 0.02  # share of the characters; one split emoji is an accident of streaming
LEAST_BROKEN = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer as the judges see it: its text, and the tool calls as (name, arguments)."""

    text: str
    tool_calls: tuple[tuple[str, str], ...] = ()


def is_right(check: str, expected: str, answer: Answer) -> bool:
    """Judge a known answer.

    `check` is one of: "contains" (the expected words stand in it, case and spacing apart), "number" (the last number
    is the expected one), "copy" (the expected text stands there letter by letter), "row" (its numbers are the expected
    ones, in order), "json" (an object that holds every expected key and value) and "tool" (a call of the expected name,
    its arguments likewise; expected is `{"name": …, "arguments": {…}}`).

    Raises:
        KeyError: for another check.
    """
    return _CHECKS[check](expected, answer)


def _contains(expected: str, answer: Answer) -> bool:
    return _plain(expected) in _plain(answer.text)


def _copy(expected: str, answer: Answer) -> bool:
    return expected.strip() in answer.text


def _number(expected: str, answer: Answer) -> bool:
    found = re.findall(r"-?\d+(?:\.\d+)?", answer.text.replace(",", ""))
    return bool(found) and float(found[-1]) == float(expected)


def _row(expected: str, answer: Answer) -> bool:
    return f" {expected} " in f" {' '.join(re.findall(r'[0-9]+', answer.text))} "


def right_so_far(expected: str, text: str) -> int:
    """How many numbers of a row were said in order before something else came."""
    wanted, said = expected.split(), re.findall(r"[0-9]+", text)
    start = said.index(wanted[0]) if wanted[0] in said else len(said)
    count = 0
    for one, other in zip(wanted, said[start:], strict=False):
        if one != other:
            break
        count += 1
    return count


def _json(expected: str, answer: Answer) -> bool:
    start, end = answer.text.find("{"), answer.text.rfind("}")
    return 0 <= start < end and _holds(answer.text[start : end + 1], json.loads(expected))


def _tool(expected: str, answer: Answer) -> bool:
    wanted = json.loads(expected)
    return any(name == wanted["name"] and _holds(said, wanted["arguments"]) for name, said in answer.tool_calls)


_CHECKS: Mapping[str, Callable[[str, Answer], bool]] = {
    "contains": _contains,
    "copy": _copy,
    "number": _number,
    "row": _row,
    "json": _json,
    "tool": _tool,
}


def _holds(text: str, expected: Mapping[str, object]) -> bool:
    """Whether the JSON object holds these keys with these values, words compared without case."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    if not isinstance(value, dict):
        return False
    return all(_plain(str(value.get(key))) == _plain(str(wanted)) for key, wanted in expected.items())


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def degeneration(text: str) -> str | None:
    """Why a text is no answer any more, in a few words, or None. Looks at prose only."""
    prose = prose_of(text.splitlines())
    return flood(prose) or repetition(prose) or broken_utf8(text)


def prose_of(lines: Sequence[str]) -> str:
    """The lines that are neither table rows nor inside a code fence."""
    kept: list[str] = []
    in_code = False
    for line in lines:
        if is_fence(line):
            in_code = not in_code
        elif not in_code and not is_table_row(line):
            kept.append(line)
    return "\n".join(kept)


def is_fence(line: str) -> bool:
    """Whether the line opens or closes a block of code."""
    return line.lstrip().startswith(("```", "~~~"))


def is_table_row(line: str) -> bool:
    """Whether the line is a row of a table, drawn with bars, commas or tabs."""
    if line.count("|") >= 2 or line.count("\t") >= 2 or line.count(";") >= 3:
        return True
    commas = line.count(",")
    return commas >= 8 and len(line) < LONGEST_CELL * commas  # a paragraph has many commas too, but far apart


def flood(prose: str) -> str | None:
    """One character that fills the text: "!!!!" is what the first token of many vocabularies looks like."""
    dense = "".join(prose.split())
    if len(dense) < LEAST_FLOOD or _is_mixed(dense):
        return None
    character, count = Counter(dense).most_common(1)[0]
    if count < FLOOD_SHARE * len(dense) or (character in RULE_CHARACTERS and len(dense) < 10 * LEAST_FLOOD):
        return None
    return f"{character!r} fills {count} of {len(dense)} characters"


def _is_mixed(dense: str) -> bool:
    """Whether no character can fill the text: quick, and right where it says yes.

    Two or three of its characters mostly do: together they leave less room than a flood needs.
    """
    taken = 0
    for character in set(dense[:24]):
        count = dense.count(character)
        if count >= FLOOD_SHARE * len(dense):
            return False
        taken += count
        if len(dense) - taken < FLOOD_SHARE * len(dense):  # as `flood` counts: 1 - 0.9 is a little less than 0.1
            return True
    return False


def repetition(prose: str) -> str | None:
    """The same words over and over, or, where a script writes no spaces, the same few characters."""
    words = prose.split()
    if len(words) * 12 < len(prose):
        return _repetition_unspaced("".join(words))
    most = len(words) - GRAM + 1
    # An n-gram begins with each word but the last few: so many words, at least so many n-grams, less those few.
    if len(words) < LEAST_WORDS or len(set(words)) - GRAM + 1 > (1.0 - MOST_REPEATED) * most:
        return None
    share = 1.0 - len({tuple(words[i : i + GRAM]) for i in range(most)}) / most
    return _repeats(share) if share >= MOST_REPEATED and not _counts(words) else None


def _repetition_unspaced(text: str) -> str | None:
    """The same where each character that is followed by two others counts as a word of three."""
    dense = text.translate(_NO_RULES)
    most = len(dense) - WORD - GRAM + 2
    if len(dense) - WORD + 1 < LEAST_WORDS:
        return None
    share = 1.0 - len({dense[i : i + WORD + GRAM - 1] for i in range(most)}) / most
    if share < MOST_REPEATED or _counts([dense[i : i + WORD] for i in range(len(dense) - WORD + 1)]):
        return None
    return _repeats(share)


def _repeats(share: float) -> str:
    return f"{share:.0%} of its {GRAM}-grams repeat earlier ones"


def _counts(words: Sequence[str]) -> bool:
    """Whether the text is mostly numbers that go on: a list someone asked for."""
    numbers = [int(w.strip(".,;:")) for w in words if w.strip(".,;:").isdecimal()]
    rising = sum(a != b for a, b in pairwise(numbers))
    return len(numbers) > 0.8 * len(words) and rising > 0.8 * len(numbers)


def broken_utf8(text: str) -> str | None:
    """Bytes that were no UTF-8 and became replacement characters on the way."""
    count = text.count(BROKEN)
    if count < LEAST_BROKEN or count < MOST_BROKEN * len(text):
        return None
    return f"{count} of {len(text)} characters are broken UTF-8"
