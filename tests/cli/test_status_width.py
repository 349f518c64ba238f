"""`router status` keeps every name, kernel and number readable, however wide the terminal is."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from router.cli.status import Fleet, gpu_line


def backend(name: str, declared: str, observed: str) -> dict[str, Any]:
    """As the admin API says it, the part that the table shows."""
    speed = {"decode_rate": {"value": 52.8, "samples": 9}, "prefill_rate": {"value": 2819.0, "samples": 9}}
    model = {"model": "nemotron-3-nano", "grade": "plausible", "speed": speed, "in_flight": 1}
    return {
        "name": name, "models": [model], "health": "healthy", "loading_for_s": None, "loading_eta_s": None,
        "intent": "active", "declared_kernel": declared, "observed_kernel": observed,
        "kernel_matches": declared == observed, "kv_usage": 0.37, "in_flight": 1,
    }  # fmt: skip


FLEET = {
    "backends": [
        backend("spark-1-marlin", "marlin", "marlin"),
        backend("spark-2-flashinfer", "flashinfer_cutlass", "marlin"),
    ]
}


def shown(width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(Fleet(FLEET))
    return captured.get()


@pytest.mark.parametrize("width", [72, 80, 100, 110, 120, 160])
def test_nothing_is_cut_at_the_widths_people_have(width: int) -> None:
    text = shown(width)
    assert "…" not in text
    for word in ("spark-2-flashinfer", "nemotron-3-nano", "healthy", "plausible", "flashinfer_cutlass", "MARLIN"):
        assert word in text, text
    for number in ("52.8", "2,819", "37%"):
        assert number in text, text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_each_backend_is_one_line_where_the_terminal_is_wide_and_two_where_it_is_narrow() -> None:
    assert [len(shown(width).splitlines()) for width in (160, 80)] == [3, 6]


def test_a_gpu_shows_what_it_tells_and_that_its_clock_is_held_back() -> None:
    reading = {"clock_mhz": 1400.0, "temperature_c": 88.0, "power_w": None, "capped_by": ["power cap"]}
    assert gpu_line({"reading": reading, "detail": ""}).plain == "1400 MHz, 88 °C (clock-capped: power cap)"
    assert gpu_line({"reading": None, "detail": "not read: no ssh"}).plain == "not read: no ssh"
