"""What a machine's GPU says of itself through nvidia-smi: clock, temperature, power and what holds the clock back.

A slow backend may be a hot box: clock caps and heat move results on a Spark by 15 to 35 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

QUERY = (  # the order of the columns that `parsed` reads
    "nvidia-smi",
    "--query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_event_reasons.active",
    "--format=csv,noheader,nounits",
)

# Bits of nvmlClocksEventReasons (nvml.h); idle (0x1), sync boost (0x10) and display (0x100) are neither heat nor cap.
_REASONS = (
    (0x2, "clocks set by the operator"),
    (0x4, "power cap"),
    (0x8, "hardware slowdown"),
    (0x20, "heat (software slowdown)"),
    (0x40, "heat (hardware slowdown)"),
    (0x80, "power brake"),
)
_LARGEST = 1e6  # beyond it no clock in MHz, temperature in °C or power in W: another program's number


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One look at a machine's GPU. A value that it does not tell (GB10 says `[N/A]` of some) is None.

    `capped_by` names what held the clock back at that moment, () where nothing did or it does not tell.
    """

    clock_mhz: float | None = None  # of the streaming multiprocessors
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    capped_by: tuple[str, ...] = ()

    @property
    def is_capped(self) -> bool:
        """Say whether something other than idleness held the clock back: speed then means little."""
        return bool(self.capped_by)


def parsed(printed: bytes) -> GpuReading | None:
    """Read the answer to QUERY; None where no line is one. Of several GPUs the first one counts: a Spark has one."""
    for line in printed.decode("utf-8", "replace").splitlines():
        columns = [column.strip() for column in line.split(",")]
        if len(columns) == 5 and (reading := _reading(columns)) is not None:
            return reading
    return None


def _reading(columns: Sequence[str]) -> GpuReading | None:
    """Read one line, None where not one of its values can be read."""
    clock, memory, temperature, power = (_number(column) for column in columns[:4])
    if clock is None and memory is None and temperature is None and power is None:
        return None
    return GpuReading(clock, memory, temperature, power, _capped_by(columns[4]))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:  # [N/A], [Not Supported], [Unknown Error]
        return None
    return value if math.isfinite(value) and 0 <= value <= _LARGEST else None


def _capped_by(text: str) -> tuple[str, ...]:
    """Name the reasons in a bit mask such as 0x0000000000000004."""
    try:
        mask = int(text, 16)
    except ValueError:
        return ()
    return tuple(name for bit, name in _REASONS if mask & bit)
