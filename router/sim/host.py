"""One DGX Spark as the engines on it feel it: memory bandwidth and compute that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

SPARK_BANDWIDTH_GB_S = 273.0  # LPDDR5X of a DGX Spark, NVIDIA's data sheet


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine takes of its host during one step, as shares of the whole: 0 nothing, 1 all of it."""

    memory: float = 0.0
    compute: float = 0.0


NO_LOAD = Load()


class HostLike(Protocol):
    """What an engine asks of its host; in one process (`Host`) or between processes (`SharedHost`)."""

    bandwidth_gb_s: float

    def others(self, key: str, now: float) -> Load:
        """The sum of what everybody but `key` takes at this moment."""

    def declare(self, key: str, now: float, until: float, load: Load) -> None:
        """Say what `key` takes from now until its step ends."""

    def leave(self, key: str) -> None:
        """`key` takes nothing any more."""


class Host:
    """A Spark whose engines live in one process; time is whatever their driver says it is."""

    def __init__(self, bandwidth_gb_s: float = SPARK_BANDWIDTH_GB_S) -> None:
        self.bandwidth_gb_s = bandwidth_gb_s
        self._steps: dict[str, tuple[float, Load]] = {}

    def __repr__(self) -> str:
        return f"<Host {self.bandwidth_gb_s} GB/s, {len(self._steps)} engines seen>"

    def others(self, key: str, now: float) -> Load:
        """Sum what the siblings take at this moment."""
        memory = compute = 0.0
        for name, (until, load) in self._steps.items():
            if name != key and until > now:
                memory += load.memory
                compute += load.compute
        return Load(memory, compute)

    def declare(self, key: str, now: float, until: float, load: Load) -> None:
        """Remember an engine's step; the one before it is over."""
        self._steps[key] = (until, load)

    def leave(self, key: str) -> None:
        """Forget an engine."""
        self._steps.pop(key, None)
