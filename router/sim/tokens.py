"""A toy tokenizer: reversible, the same in every process, about four characters of English to a token.

Ids: 0 to 255 bytes ("!" is 0: what an engine that computes NaN answers with, as seen with Qwen's vocabulary); 256 on
special tokens; then words with and without a space before them, pairs of letters, and from `NUMBERS` on whole numbers
with a space after them, so that "1 2 3 " is three tokens and a counted answer can be checked token by token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from string import ascii_lowercase

from router.sim.words import PIECES, SPOKEN

VOCABULARY = range(131_072)  # ids
SPECIALS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>")
IM_START, IM_END, END_OF_TEXT, THINK, END_THINK = range(256, 256 + len(SPECIALS))
FIRST_PIECE = 512
NUMBERS = 65_536
_NUMBERS_END = VOCABULARY[-1] - NUMBERS


def _pieces() -> list[str]:
    found: dict[str, None] = {}
    for word in PIECES:
        for form in (" " + word, word, " " + word.capitalize(), word.capitalize()):
            found[form] = None
    for first in ascii_lowercase:
        for second in ascii_lowercase:
            found[first + second] = None
            found[" " + first + second] = None
        found[" " + first] = None
    for mark in (". ", ", ", "\n\n", ": ", '", "', '":', " = ", "()", "  ", "    "):
        found[mark] = None
    return list(found)


_TEXTS = _pieces()
_IDS = {text: FIRST_PIECE + n for n, text in enumerate(_TEXTS)}
PIECES_END = FIRST_PIECE + len(_TEXTS)
_SPECIAL_IDS = {text: 256 + n for n, text in enumerate(SPECIALS)}
_SPLIT = re.compile(
    r"(?P<special><\|im_start\|>|<\|im_end\|>|<\|endoftext\|>|<think>|</think>)"
    r"|(?P<number>(?:0|[1-9]\d{0,4}) )|(?P<word> ?[A-Za-z]+)|(?P<other>.)",
    re.DOTALL,
)
_cache: dict[str, tuple[int, ...]] = {}

WORDS = SPOKEN
WORD_IDS = tuple(_IDS[" " + word] for word in WORDS)  # what prose is made of


def _byte(value: int) -> int:
    """The id of a byte, and the byte of an id: "!" and NUL have changed places."""
    return {0x21: 0, 0: 0x21}.get(value, value)


FULL_STOP = _byte(0x2E)
IDS = {b"!": 0, **{text.encode(): token for text, token in _SPECIAL_IDS.items()}}  # those that are asked for by name


def _bytes_of(text: str) -> list[int]:
    return [_byte(value) for value in text.encode("utf-8", "surrogatepass")]


def _word(text: str) -> tuple[int, ...]:
    """Longest known pieces from the left; letters that nothing covers become bytes."""
    known = _cache.get(text)
    if known is not None:
        return known
    ids: list[int] = []
    at = 0
    while at < len(text):
        for length in range(min(len(text) - at, 14), 1, -1):
            piece = _IDS.get(text[at : at + length])
            if piece is not None:
                ids.append(piece)
                at += length
                break
        else:
            ids += _bytes_of(text[at])
            at += 1
    if len(_cache) < 20_000:
        _cache[text] = tuple(ids)
    return tuple(ids)


def encode(text: str, specials: bool = True) -> list[int]:
    """Token ids of a text; with `specials` the spelled-out special tokens become one id each."""
    ids: list[int] = []
    for match in _SPLIT.finditer(text):
        kind, part = match.lastgroup, match[0]
        if kind == "special" and specials:
            ids.append(_SPECIAL_IDS[part])
        elif kind == "number" and int(part) <= _NUMBERS_END:
            ids.append(NUMBERS + int(part))
        elif kind == "word":
            ids += _word(part)
        else:
            ids += _bytes_of(part)
    return ids


def token_bytes(token: int) -> bytes:
    """What one token says. An id that nothing is assigned to says nothing."""
    if token < 0:
        return b""
    if token < 256:
        return bytes((_byte(token),))
    if token < 256 + len(SPECIALS):
        return SPECIALS[token - 256].encode()
    if FIRST_PIECE <= token < PIECES_END:
        return _TEXTS[token - FIRST_PIECE].encode()
    if NUMBERS <= token < len(VOCABULARY):
        return b"%d " % (token - NUMBERS)
    return b""


def token_text(token: int) -> str:
    """One token as text; a part of a character reads as the replacement character."""
    return token_bytes(token).decode("utf-8", "replace")


def decode(ids: Iterable[int], specials: bool = True) -> str:
    """The text of token ids; without `specials` the special tokens are left out."""
    kept = ids if specials else [one for one in ids if not 256 <= one < 256 + len(SPECIALS)]
    return b"".join(map(token_bytes, kept)).decode("utf-8", "replace")


def token_string(token: int) -> str:
    """One token as `/tokenize` spells it with `return_token_strs`: a space is Ġ, a line end Ċ."""
    return token_text(token).replace(" ", "Ġ").replace("\n", "Ċ")


def id_of(piece: str) -> int:
    """The id of a piece that is one token."""
    return _IDS[piece]


class Detokenizer:
    """Text of a growing answer: bytes of one character are held back until it is whole."""

    def __init__(self) -> None:
        self._held = b""

    def push(self, token: int) -> str:
        """The new text that this token completes."""
        self._held += token_bytes(token)
        try:
            text = self._held.decode()
        except UnicodeDecodeError as error:
            cut = error.start
            if len(self._held) - cut >= 4 or error.reason == "invalid start byte":
                cut = len(self._held)
            text = self._held[:cut].decode("utf-8", "replace")
            self._held = self._held[cut:]
            return text
        self._held = b""
        return text


def render_chat(messages: Sequence[tuple[str, str]], opened: bool, prompt: bool, thinking: bool | None) -> str:
    """A conversation in the ChatML template.

    Args:
        messages: role and text of each message.
        opened: leave the last message open, to be continued (`continue_final_message`).
        prompt: begin the assistant's answer (`add_generation_prompt`).
        thinking: for a model that thinks: begin to, or begin with nothing thought; None for one that does not.
    """
    parts = [f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in messages]
    if opened and parts:
        parts[-1] = parts[-1].removesuffix("<|im_end|>\n")
    elif prompt:
        parts.append("<|im_start|>assistant\n")
        if thinking is not None:
            parts.append("<think>\n" if thinking else "<think>\n\n</think>\n\n")
    return "".join(parts)
