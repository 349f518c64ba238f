"""Traces to replay: when calls come, how long prompts and answers are, which prompts begin alike.

Read from files with the columns of two public traces (Azure LLM Inference 2023: TIMESTAMP, ContextTokens,
GeneratedTokens; Mooncake: timestamp in ms, input_length, output_length, hash_ids of 512-token blocks), or made up.
They were recorded on clusters: a slice of one is replayed, scaled in time to the load that is wanted.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

PREFIX_BLOCK = 512  # tokens that one of Mooncake's hash ids stands for


@dataclass(frozen=True, slots=True)
class Arrival:
    """One call: moment (s), prompt and answer (tokens), and the ids of its prompt's leading 512-token blocks."""

    at: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    model: str = ""


def read(path: Path) -> list[Arrival]:
    """Every call of a trace file, by its moment, the first at 0.

    Raises:
        OSError, ValueError: it cannot be read, or has other columns.
    """
    with path.open(encoding="utf-8", newline="") as lines:
        calls = list(_jsonl(lines) if path.suffix in (".jsonl", ".ndjson", ".json") else _table(lines))
    if not calls:
        raise ValueError(f"{path}: no calls in it")
    calls.sort(key=lambda one: one.at)
    first = calls[0].at
    return [replace(one, at=one.at - first) for one in calls]


def _jsonl(lines: Iterator[str]) -> Iterator[Arrival]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            blocks = tuple(row.get("hash_ids", ()))
            yield Arrival(row["timestamp"] / 1000.0, row["input_length"], max(1, row["output_length"]), blocks)
        except (KeyError, TypeError, json.JSONDecodeError) as fault:
            raise ValueError(f"line {number}: not a call of a Mooncake trace ({fault})") from fault


def _table(lines: Iterator[str]) -> Iterator[Arrival]:
    for number, row in enumerate(csv.DictReader(lines), 2):
        try:
            # Seven digits of a second are one too many for datetime.
            at = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            yield Arrival(at, max(1, int(row["ContextTokens"])), max(1, int(row["GeneratedTokens"])))
        except (KeyError, TypeError, ValueError) as fault:
            raise ValueError(f"line {number}: not a call of an Azure trace ({fault})") from fault


def synthetic(count: int, seed: int, prompt_tokens: float = 800.0, output_tokens: float = 200.0) -> list[Arrival]:
    """Poisson arrivals at one a second, log-normal lengths (sigma 1.0 and 0.8) around these medians; no prefixes."""
    dice = random.Random(seed)
    at, calls = 0.0, []
    for _ in range(count):
        at += dice.expovariate(1.0)
        prompt = int(prompt_tokens * math.exp(dice.gauss(0.0, 1.0)))
        output = int(output_tokens * math.exp(dice.gauss(0.0, 0.8)))
        calls.append(Arrival(at, min(max(prompt, 8), 32_000), min(max(output, 1), 4000)))
    return calls


def slice_of(calls: Sequence[Arrival], count: int, seed: int, longest_prompt: int) -> list[Arrival]:
    """`count` calls in a row from a place drawn by the seed, without prompts longer than this."""
    fitting = [one for one in calls if one.prompt_tokens <= longest_prompt]
    if not fitting:
        raise ValueError(f"every prompt is longer than {longest_prompt} tokens")
    start = random.Random(seed).randrange(max(1, len(fitting) - count + 1))
    found = fitting[start : start + count]
    return [replace(one, at=one.at - found[0].at) for one in found]


def at_rate(calls: Sequence[Arrival], per_s: float, seed: int | None = None) -> list[Arrival]:
    """The same calls in the same order at another mean rate.

    Without a seed the gaps keep their proportions (a trace with coarse timestamps keeps its lumps); with one they are
    drawn anew as a Poisson process.
    """
    if seed is not None:
        dice, at, drawn = random.Random(seed), 0.0, []
        for one in calls:
            at += dice.expovariate(per_s)
            drawn.append(replace(one, at=at))
        return drawn
    length = max(calls[-1].at - calls[0].at, 1e-9)
    scale = (len(calls) - 1) / per_s / length if len(calls) > 1 else 1.0
    return [replace(one, at=(one.at - calls[0].at) * scale) for one in calls]


def with_models(calls: Sequence[Arrival], shares: dict[str, float], seed: int) -> list[Arrival]:
    """Each call given a model, drawn by the models' shares of the traffic."""
    dice = random.Random(seed)
    names, weights = list(shares), list(shares.values())
    return [
        replace(one, model=model) for one, model in zip(calls, dice.choices(names, weights, k=len(calls)), strict=True)
    ]
