"""What nvidia-smi prints, read; whatever it prints, nothing is raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.vllm.gpu import GpuReading, parsed


def test_a_full_line_gives_every_value() -> None:
    assert parsed(b"2405, 8533, 61, 38.12, 0x0000000000000000\n") == GpuReading(2405, 8533, 61, 38.12)


def test_values_that_a_gb10_does_not_tell_are_none() -> None:
    assert parsed(b"2405, [N/A], 61, [N/A], [N/A]\n") == GpuReading(2405, None, 61, None)


@pytest.mark.parametrize(
    ("mask", "capped_by"),
    [
        ("0x0000000000000001", ()),  # idle is no cap
        ("0x0000000000000004", ("power cap",)),
        ("0x0000000000000002", ("clocks set by the operator",)),
        ("0x0000000000000060", ("heat (software slowdown)", "heat (hardware slowdown)")),
        ("0x0000000000000088", ("hardware slowdown", "power brake")),
        ("Not Active", ()),
    ],
)
def test_the_bit_mask_says_what_holds_the_clock_back(mask: str, capped_by: tuple[str, ...]) -> None:
    reading = parsed(f"700, 8533, 88, 30.0, {mask}".encode())
    assert reading is not None
    assert reading.capped_by == capped_by
    assert reading.is_capped == bool(capped_by)


@pytest.mark.parametrize(
    "printed",
    [
        b"",
        b"No devices were found\n",
        b'Field "clocks_event_reasons.active" is not a valid field to query.\n',
        b"[N/A], [N/A], [N/A], [N/A], [N/A]\n",
        b"nan, inf, -1, 1e400, 0x0\n",
    ],
)
def test_what_is_no_reading_is_none(printed: bytes) -> None:
    assert parsed(printed) is None


def test_a_warning_before_the_line_is_passed_over_and_the_first_gpu_counts() -> None:
    printed = b"WARNING: infoROM is corrupted\n2000, 8000, 50, 20, 0x0\n1000, 4000, 40, 10, 0x0\n"
    assert parsed(printed) == GpuReading(2000, 8000, 50, 20)


@given(st.binary() | st.lists(st.text(max_size=24), min_size=5, max_size=5).map(lambda c: ",".join(c).encode()))
def test_any_bytes_are_read_without_an_error(printed: bytes) -> None:
    reading = parsed(printed)
    assert reading is None or isinstance(reading, GpuReading)
