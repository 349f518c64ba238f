"""Reads the logprobs that a server answered into frozen values, or says why they cannot be used.

Three shapes are read: vLLM's `prompt_logprobs` (a list, first entry null, then `{token_id: {logprob, rank,
decoded_token}}`), a chat choice's `logprobs.content`, and a completion's `logprobs` (`tokens`, `token_logprobs`,
`top_logprobs`). A NaN, a null where a number belongs or a logprob above zero is not a value to average over but a
finding: a right kernel never writes one. Logprobs are natural logarithms (nats).

A NaN rarely arrives as a NaN. vLLM's JSON encoder refuses it, so the request fails with "Out of range float values are
not JSON compliant"; in a stream it becomes null. `judge_error` and the null rules read both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

Token = int | str  # an id where the server gave ids, else the token's text

MAX_TOP = 20  # vLLM's own default limit (--max-logprobs); more makes the server's memory grow with the vocabulary
LEAST_LOGPROB = -100.0  # vLLM writes -9999.0 for minus infinity; one such token must not drown a whole text
ROUNDING = 1e-3  # a logprob this little above zero is float32 rounding; more is no probability


class Fault(StrEnum):
    """Why logprobs cannot be used. `HARD_FAULTS` speak against the backend, the others only say "not measured"."""

    NAN = "nan"
    NULL = "null_logprobs"
    NOT_A_PROBABILITY = "not_a_probability"
    IGNORED = "ignored"  # the server does not know the field: llama.cpp answers 200 and leaves it out
    OTHER_TOKENS = "other_tokens"  # another tokenizer, a cut prompt, a baseline of another checkpoint
    MALFORMED = "malformed"
    TOO_LONG = "too_long"  # the context is shorter than the probe
    TOO_MANY = "too_many_logprobs"  # max_logprobs is smaller than what was asked
    ERROR = "error"  # any other error: a matter for health, not for quality


HARD_FAULTS = frozenset({Fault.NAN, Fault.NULL, Fault.NOT_A_PROBABILITY})


@dataclass(frozen=True, slots=True)
class Unscorable:
    """No logprobs to compare: which fault, and what exactly was seen."""

    fault: Fault
    detail: str

    @property
    def is_hard(self) -> bool:
        """Whether this alone is evidence of wrong answers."""
        return self.fault in HARD_FAULTS


@dataclass(frozen=True, slots=True)
class Position:
    """What a server thought of one position.

    Attributes:
        token: the token that stands there.
        logprob: its own logprob in nats, None where the server lists only others.
        top: the k most likely tokens, most likely first, with their logprobs.
    """

    token: Token
    logprob: float | None
    top: Mapping[Token, float]

    @property
    def best(self) -> Token | None:
        """The most likely token, None where nothing was listed."""
        return next(iter(self.top), None)


@dataclass(frozen=True, slots=True)
class Text:
    """One text as a server scored it: every position but the first, whose logprob nobody computes."""

    name: str
    positions: tuple[Position, ...]

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens that were scored."""
        return tuple(p.token for p in self.positions)


def read_prompt_logprobs(
    name: str, answer: object, token_ids: Sequence[int], *, top: int = MAX_TOP
) -> Text | Unscorable:
    """Read `choices[0].prompt_logprobs` for a prompt that was sent as `token_ids`.

    vLLM lists the top k and adds the prompt's own token where it ranks lower; only the first k count as `top`.
    """
    if answer is None:
        return Unscorable(Fault.IGNORED, "the answer has no prompt_logprobs")
    if not isinstance(answer, list):
        return Unscorable(Fault.MALFORMED, f"prompt_logprobs is a {type(answer).__name__}, not a list")
    if len(answer) != len(token_ids):
        return Unscorable(Fault.OTHER_TOKENS, f"{len(answer)} positions for {len(token_ids)} tokens")
    positions: list[Position] = []
    for index, (entry, token) in enumerate(zip(answer[1:], token_ids[1:], strict=True), start=1):
        where = f"position {index}"
        if entry is None:
            return Unscorable(Fault.NULL, f"{where} is null")
        if not isinstance(entry, dict):
            return Unscorable(Fault.MALFORMED, f"{where} is a {type(entry).__name__}")
        listed = _read_entry(entry, where)
        if isinstance(listed, Unscorable):
            return listed
        if token not in listed:
            return Unscorable(Fault.OTHER_TOKENS, f"{where} does not list the prompt's own token {token}")
        positions.append(Position(token, listed[token], _first(listed, top)))
    if not positions:
        return Unscorable(Fault.MALFORMED, "a text of one token has nothing to score")
    return Text(name, tuple(positions))


def read_chat_logprobs(name: str, choice: Mapping[str, object], *, top: int = MAX_TOP) -> Text | Unscorable:
    """Read `choices[i].logprobs.content` of a chat answer (or of its chunks, joined into one list)."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if content is None:
        return Unscorable(Fault.IGNORED, "the answer has no logprobs")
    if not isinstance(content, list) or not content:
        return Unscorable(Fault.MALFORMED, "logprobs.content is not a list of tokens")
    positions: list[Position] = []
    for index, item in enumerate(content):
        where = f"token {index}"
        if not isinstance(item, dict) or not isinstance(item.get("token"), str):
            return Unscorable(Fault.MALFORMED, f"{where} has no text")
        own = check_logprob(item.get("logprob"), where)
        listed = _read_items(item.get("top_logprobs"), where)
        if isinstance(own, Unscorable):
            return own
        if isinstance(listed, Unscorable):
            return listed
        positions.append(Position(_token(item["token"]), own, _first(listed, top)))
    return Text(name, tuple(positions))


def read_completion_logprobs(name: str, choice: Mapping[str, object], *, top: int = MAX_TOP) -> Text | Unscorable:
    """Read `choices[i].logprobs` of a completion; with `echo` its first token has null, which is right."""
    logprobs = choice.get("logprobs")
    if logprobs is None:
        return Unscorable(Fault.IGNORED, "the answer has no logprobs")
    lists = [logprobs.get(key) for key in ("tokens", "token_logprobs")] if isinstance(logprobs, dict) else []
    if len(lists) != 2 or not all(isinstance(x, list) for x in lists) or not isinstance(logprobs, dict):
        return Unscorable(Fault.MALFORMED, "logprobs has no tokens and token_logprobs")
    tokens, own = lists
    tops = logprobs.get("top_logprobs") or [{} for _ in tokens or ()]
    if not (isinstance(tops, list) and isinstance(tokens, list) and isinstance(own, list)):
        return Unscorable(Fault.MALFORMED, "top_logprobs is not a list")
    if not len(tokens) == len(own) == len(tops):
        return Unscorable(
            Fault.MALFORMED, f"{len(tokens)} tokens, {len(own)} logprobs, {len(tops)} lists of top tokens"
        )
    echoed = 1 if own and own[0] is None and tops[0] is None else 0
    positions: list[Position] = []
    for index in range(echoed, len(tokens)):
        where = f"token {index}"
        value = check_logprob(own[index], where)
        listed = (
            _read_entry(tops[index], where) if isinstance(tops[index], dict) else _null_or_malformed(tops[index], where)
        )
        if isinstance(value, Unscorable):
            return value
        if isinstance(listed, Unscorable):
            return listed
        positions.append(Position(_token(str(tokens[index])), value, _first(listed, top)))
    return Text(name, tuple(positions)) if positions else Unscorable(Fault.MALFORMED, "no token was scored")


def judge_error(status: int, message: str) -> Unscorable:
    """What an error on a logprob request says: a NaN that JSON cannot carry, a limit, or nothing about quality."""
    said = message.lower()
    detail = f"{status}: {message[:200]}"
    if "json compliant" in said or "out of range float" in said:
        return Unscorable(Fault.NAN, detail)
    if "logprobs" in said and ("maximum" in said or "greater than" in said or "max" in said):
        return Unscorable(Fault.TOO_MANY, detail)
    if "context length" in said or "too long" in said or "exceed_context_size" in said:
        return Unscorable(Fault.TOO_LONG, detail)
    return Unscorable(Fault.ERROR, detail)


def check_logprob(value: object, where: str) -> float | Unscorable:
    """A logprob as a number between `LEAST_LOGPROB` and zero, or the finding that it is none."""
    if value is None:
        return Unscorable(Fault.NULL, f"{where} has a null logprob")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Unscorable(Fault.MALFORMED, f"{where} has the logprob {value!r}")
    number = float(value)
    if math.isnan(number):
        return Unscorable(Fault.NAN, f"{where} is NaN")
    if number > ROUNDING:
        return Unscorable(Fault.NOT_A_PROBABILITY, f"{where} has the logprob {number:g}, above zero")
    return min(max(number, LEAST_LOGPROB), 0.0)


def _token(text: str) -> Token:
    """`token_id:42` (asked for with `return_tokens_as_token_ids`) is the id 42; anything else is a token's text."""
    number = text.removeprefix("token_id:")
    return int(number) if number != text and number.isdigit() else text


def _read_entry(entry: Mapping[str, object], where: str) -> dict[Token, float] | Unscorable:
    """`{token: {logprob}}` or `{token: logprob}`; ids become numbers."""
    listed: dict[Token, float] = {}
    for key, value in entry.items():
        is_id = isinstance(value, dict)
        number = check_logprob(value.get("logprob") if isinstance(value, dict) else value, where)
        if isinstance(number, Unscorable):
            return number
        listed[int(key) if is_id and key.isdigit() else _token(key)] = number
    return listed


def _read_items(items: object, where: str) -> dict[Token, float] | Unscorable:
    """`[{token, logprob}]`. Special tokens share the empty text, so a second one is told apart by its place."""
    if not isinstance(items, list):
        return _null_or_malformed(items, where)
    listed: dict[Token, float] = {}
    for rank, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("token"), str):
            return Unscorable(Fault.MALFORMED, f"{where} lists something that is no token")
        number = check_logprob(item.get("logprob"), where)
        if isinstance(number, Unscorable):
            return number
        token = _token(item["token"])
        listed[token if token not in listed else f"{token}\0{rank}"] = number
    return listed


def _null_or_malformed(value: object, where: str) -> Unscorable:
    if value is None:
        return Unscorable(Fault.NULL, f"{where} has null where its top tokens belong")
    return Unscorable(Fault.MALFORMED, f"{where} lists its top tokens as a {type(value).__name__}")


def _first(listed: Mapping[Token, float], count: int) -> dict[Token, float]:
    """The `count` most likely, most likely first; equals keep the server's order."""
    return dict(sorted(listed.items(), key=lambda item: -item[1])[:count])
