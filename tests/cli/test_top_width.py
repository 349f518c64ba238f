"""`router top` keeps every name, kernel and number readable, however wide the terminal is."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from router.cli.top import Fleet


def backend(name: str) -> dict[str, Any]:
    """As the admin API says it, the part that the table shows."""
    return {
        "name": name, "intent": "active", "health": "healthy", "declared_kernel": "flashinfer_cutlass",
        "observed_kernel": "marlin", "kernel_matches": False, "kv_usage": 0.37, "in_flight": 3, "waiting": 7.0,
    }  # fmt: skip


STATUS = {"backends": [backend("spark-1-marlin"), backend("spark-2-flashinfer")]}
COLUMNS: dict[str, list[float | None]] = {
    "tokens_per_s": [60.0 + step for step in range(40)], "ttft_s": [1.234] * 40, "tpot_s": [0.0171] * 40,
}  # fmt: skip
HISTORY = {"backends": {"spark-2-flashinfer": COLUMNS}}


def shown(width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(Fleet(STATUS, HISTORY))
    return captured.get()


@pytest.mark.parametrize("width", [80, 100, 120, 136, 160])
def test_nothing_is_cut_at_the_widths_people_have(width: int) -> None:
    text = shown(width)
    assert "…" not in text, text
    for word in ("spark-2-flashinfer", "healthy", "flashinfer_cutlass", "MARLIN", "99", "1234 ms", "17.1 ms", "3", "7"):
        assert word in text, text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_a_narrow_terminal_says_the_kv_use_in_figures_where_a_wide_one_draws_it() -> None:
    assert "37%" in shown(80)
    assert "━" in shown(160)
