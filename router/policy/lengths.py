"""Prompt and output length before routing: bytes per token learned per model, output expected per session and mode."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import exp, expm1, log

_BYTES_PER_TOKEN = 4.2  # English JSON; learned from the first answers on
_OUTPUT_TOKENS = 256.0
_SESSIONS = 4096


@dataclass(slots=True)
class _Mean:
    """A mean that forgets: the first samples move it fast, later ones by a twentieth."""

    value: float
    samples: float = 0.0

    def learn(self, value: float) -> None:
        self.samples = min(self.samples + 1.0, 20.0)
        self.value += (value - self.value) / (self.samples + 1.0 if self.samples < 20 else self.samples)


@dataclass(slots=True)
class LengthModel:
    """One model's lengths. Outputs are expected per session where it was seen, else per thinking on, off, unsaid."""

    per_token: _Mean = field(default_factory=lambda: _Mean(_BYTES_PER_TOKEN))
    outputs: dict[bool | None, _Mean] = field(default_factory=dict)
    sessions: OrderedDict[str, _Mean] = field(default_factory=OrderedDict)

    def prompt_tokens(self, prompt_bytes: int) -> float:
        """About how many tokens so many bytes of prompt are."""
        return prompt_bytes / self.per_token.value

    def output_tokens(self, session: str | None, thinking: bool | None, max_tokens: int | None) -> float:
        """How many tokens the answer will probably have."""
        mean = self.sessions.get(session) if session is not None else None
        if mean is None or mean.samples < 2:
            mean = self.outputs.get(thinking)
        expected = mean.value if mean is not None else _OUTPUT_TOKENS
        return min(expected, float(max_tokens)) if max_tokens is not None else expected

    def observe_prompt(self, prompt_bytes: int, prompt_tokens: int) -> None:
        """So many bytes were so many tokens. Very short prompts are mostly template."""
        if prompt_tokens >= 16 and prompt_bytes >= 64:
            self.per_token.learn(min(12.0, max(0.5, prompt_bytes / prompt_tokens)))

    def observe_output(self, session: str | None, thinking: bool | None, completion_tokens: int) -> None:
        """An answer came to its end with so many tokens."""
        self.outputs.setdefault(thinking, _Mean(_OUTPUT_TOKENS)).learn(completion_tokens)
        if session is None:
            return
        mean = self.sessions.setdefault(session, _Mean(completion_tokens))
        mean.learn(completion_tokens)
        self.sessions.move_to_end(session)
        if len(self.sessions) > _SESSIONS:
            self.sessions.popitem(last=False)


@dataclass(slots=True)
class Calibration:
    """How predictions compare with what came (TTFT, end, lengths), as a ratio that forgets; for metrics and pages."""

    log_bias: float = 0.0  # mean of log(actual / predicted)
    log_error: float = 0.0  # mean of its size
    samples: float = 0.0

    def observe(self, predicted: float | None, actual: float | None) -> None:
        """One prediction and what came of it; nothing is learned where either is missing or not positive."""
        if not predicted or not actual or predicted < 0.0 or actual < 0.0:
            return
        ratio = log(actual / predicted)
        self.samples = min(self.samples + 1.0, 50.0)
        self.log_bias += (ratio - self.log_bias) / self.samples
        self.log_error += (abs(ratio) - self.log_error) / self.samples

    @property
    def bias(self) -> float:
        """What came, as a multiple of what was predicted: 1 is right, 2 is twice as long."""
        return exp(self.log_bias)

    @property
    def error(self) -> float:
        """By which share predictions are usually off, either way: 0 is right."""
        return expm1(self.log_error)
