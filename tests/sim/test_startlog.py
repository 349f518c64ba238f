"""The log of a simulated server is read as a real one's: what it runs, whatever it was asked for."""

from dataclasses import replace
from datetime import datetime

import pytest

from router.sim.profiles import PROFILES
from router.sim.startlog import kernel_named, start_lines
from router.sim.state import Build
from router.vllm.kernels import Kernel
from router.vllm.logs import LogReader


@pytest.mark.parametrize(("profile", "kernel"), [
    ("marlin", Kernel.MARLIN), ("vllm-cutlass", Kernel.VLLM_CUTLASS),
    ("flashinfer-cutlass", Kernel.FLASHINFER_CUTLASS), ("b12x", Kernel.B12X),
])  # fmt: skip
def test_the_log_names_the_kernel_that_runs(profile: str, kernel: Kernel) -> None:
    reader = LogReader()
    reader.feed(
        start_lines(Build("nano", PROFILES[profile], declared="flashinfer_cutlass"), 8000, datetime(2026, 9, 1))
    )
    found = reader.identity
    assert (found.linear, found.moe) == ((kernel,), kernel)
    assert found.requested_moe is not None
    assert found.version == PROFILES[profile].vllm_version
    assert found.kv_tokens == PROFILES[profile].kv_tokens
    assert found.ready


def test_a_kernel_is_found_by_the_flag_that_asks_for_it() -> None:
    assert kernel_named("flashinfer-cutlass")[0] == "FLASHINFER_CUTLASS"
    with pytest.raises(ValueError, match="marlin"):
        kernel_named("magic")


def test_another_kernel_is_another_fingerprint() -> None:
    profile = PROFILES["marlin"]
    other = replace(profile, moe_kernel="VLLM_CUTLASS")
    assert Build("nano", profile).fingerprint != Build("nano", other).fingerprint
