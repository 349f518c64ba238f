"""The table of how to ask for a kernel, version by version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.vllm.kernels import Kernel, Scheme, Version
from router.vllm.switches import Refusal, Switches, switches

GEMM = "VLLM_NVFP4_GEMM_BACKEND"
V17, V18, V19, V20, V22 = Version(0, 17, 1), Version(0, 18, 1), Version(0, 19, 1), Version(0, 20, 2), Version(0, 22, 1)
V24, V28, V33 = Version(0, 24), Version(0, 28), Version(0, 33)


@pytest.mark.parametrize(
    ("version", "kernel", "flags", "env"),
    [
        (V17, Kernel.MARLIN, ("--moe-backend", "marlin"), ((GEMM, "marlin"),)),
        (V18, Kernel.VLLM_CUTLASS, ("--moe-backend", "cutlass"), ((GEMM, "cutlass"),)),
        (V20, Kernel.FLASHINFER_CUTLASS, ("--moe-backend", "flashinfer_cutlass"), ((GEMM, "flashinfer-cutlass"),)),
        (V22, Kernel.MARLIN, ("--linear-backend", "marlin", "--moe-backend", "marlin"), ()),
        (V24, Kernel.VLLM_CUTLASS, ("--linear-backend", "cutlass", "--moe-backend", "cutlass"), ()),
        (V28, Kernel.B12X, ("--linear-backend", "b12x", "--moe-backend", "b12x"), ()),
        (V33, Kernel.FLASHINFER_B12X, ("--linear-backend", "flashinfer_b12x", "--moe-backend", "flashinfer_b12x"), ()),
        (V33, Kernel.FLASHINFER_CUDNN, ("--linear-backend", "flashinfer_cudnn"), ()),
    ],
)
def test_each_version_is_asked_in_its_own_words(
    version: Version, kernel: Kernel, flags: tuple[str, ...], env: tuple[tuple[str, str], ...]
) -> None:
    found = switches(version, kernel, Scheme.W4A4)
    assert isinstance(found, Switches)
    assert (found.flags, found.env) == (flags, env)
    assert found.sources


@pytest.mark.parametrize(
    ("version", "kernel", "why"),
    [
        (Version(0, 16), Kernel.MARLIN, "older than"),
        (V20, Kernel.FLASHINFER_B12X, "came with 0.22.0"),
        (V24, Kernel.B12X, "came with 0.28.0"),
        (V24, Kernel.HUMMING, "came with 0.25.0"),
        (V28, Kernel.TORCH, "came with 0.30.0"),
        (V33, Kernel.FLASHINFER_CUTEDSL, "SM 10.x"),
    ],
)
def test_what_a_version_lacks_is_refused_with_the_reason(version: Version, kernel: Kernel, why: str) -> None:
    found = switches(version, kernel)
    assert isinstance(found, Refusal)
    assert why in found.reason


@given(st.integers(24, 60), st.sampled_from(Kernel), st.sampled_from([None, *Scheme]), st.booleans())
def test_from_0_24_on_no_old_variable_is_ever_written(
    minor: int, kernel: Kernel, checkpoint: Scheme | None, moe: bool
) -> None:
    found = switches(Version(0, minor), kernel, checkpoint, moe=moe)
    if isinstance(found, Switches):
        assert {name for name, _ in found.env} <= {"VLLM_B12X_MOE_FP4_FORCE_A16"}
        assert "--linear-backend" in found.flags
        assert moe or "--moe-backend" not in found.flags


@given(st.integers(17, 40), st.sampled_from([kernel for kernel in Kernel if kernel.scheme is Scheme.W4A4]))
def test_a_weight_only_checkpoint_never_gets_a_w4a4_kernel(minor: int, kernel: Kernel) -> None:
    found = switches(Version(0, minor), kernel, Scheme.W4A16)
    if kernel in (Kernel.EMULATION, Kernel.B12X) and isinstance(found, Switches):
        return  # they take both schemes
    assert isinstance(found, Refusal)


def test_cutlass_experts_reject_squared_relu_up_to_0_18() -> None:
    assert isinstance(switches(V18, Kernel.VLLM_CUTLASS, Scheme.W4A4, squared_relu=True), Refusal)
    assert isinstance(switches(V19, Kernel.VLLM_CUTLASS, Scheme.W4A4, squared_relu=True), Switches)
    assert isinstance(switches(V18, Kernel.VLLM_CUTLASS, Scheme.W4A4, moe=False, squared_relu=True), Switches)


def test_a_version_that_was_never_read_says_so() -> None:
    found = switches(Version(0, 40), Kernel.MARLIN)
    assert isinstance(found, Switches)
    assert any("newer than what was read" in note for note in found.notes)
