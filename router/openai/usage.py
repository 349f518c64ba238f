"""Token counts as an answer reports them, under the names of each API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)  # one per answer; nobody changes it, and a frozen one costs 0.5 µs more
class Usage:
    """Tokens of one answer; None means that the server did not say, never zero.

    Attributes:
        prompt_tokens: the whole prompt, cached part included.
        completion_tokens: everything generated, reasoning included, all choices together.
        cached_tokens: the part of the prompt that was not computed again.
        reasoning_tokens: the part of the completion that was reasoning.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


def read_usage(found: Mapping[str, Any], earlier: Usage | None = None) -> Usage:
    """Read a usage object of any route; what it leaves out is taken from an earlier one of the same answer.

    Anthropic's `input_tokens` leaves out what was read from or written to the cache, so these are added (seen on
    llama.cpp: 1 + 33 cached for a prompt of 34); not where the stream's beginning already gave that very number as
    the whole prompt, as vLLM does.
    """
    prompt, completion = found.get("prompt_tokens"), found.get("completion_tokens")
    if earlier is None and prompt.__class__ is int and completion.__class__ is int and _SPLIT.isdisjoint(found):
        # Every plain answer of a vLLM: two numbers and mostly `null` details (2 µs less than the long way).
        inner = found.get("prompt_tokens_details")
        cached = _first(inner, "cached_tokens") if inner.__class__ is dict else None
        inner = found.get("completion_tokens_details")
        reasoning = _first(inner, "reasoning_tokens") if inner.__class__ is dict else None
        return Usage(prompt, completion, cached, reasoning)
    return _read_any(found, earlier)


# What splits a prompt's count, or gives the details under another API's names.
_SPLIT = frozenset(
    {
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "input_tokens_details",
        "output_tokens_details",
    }
)


def _read_any(found: Mapping[str, Any], earlier: Usage | None) -> Usage:
    cached = _first(found, "cache_read_input_tokens")
    prompt = _first(found, "prompt_tokens", "input_tokens")
    if prompt is not None and (earlier is None or earlier.prompt_tokens != prompt):
        prompt += (cached or 0) + (_first(found, "cache_creation_input_tokens") or 0)
    if cached is None:
        cached = _detail(found, "cached_tokens", "prompt_tokens_details", "input_tokens_details")
    completion = _first(found, "completion_tokens", "output_tokens")
    reasoning = _detail(found, "reasoning_tokens", "completion_tokens_details", "output_tokens_details")
    if earlier is not None:
        prompt = earlier.prompt_tokens if prompt is None else prompt
        completion = earlier.completion_tokens if completion is None else completion
        cached = earlier.cached_tokens if cached is None else cached
        reasoning = earlier.reasoning_tokens if reasoning is None else reasoning
    return Usage(prompt or 0, completion or 0, cached, reasoning)


def at_path(document: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """Follow keys down a parsed answer; None where the way ends."""
    value: Any = document
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _first(found: Mapping[str, Any], *keys: str) -> int | None:
    for key in keys:
        value = found.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return int(value)
    return None


def _detail(found: Mapping[str, Any], key: str, *places: str) -> int | None:
    for place in places:
        inner = found.get(place)
        if isinstance(inner, Mapping):
            return _first(inner, key)
    return None
