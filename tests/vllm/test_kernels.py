"""Every spelling of a kernel means one kernel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.vllm.kernels import (
    Kernel,
    Requested,
    Scheme,
    Version,
    kernel_of,
    requested_from_args,
    requested_from_env,
    version_of,
)

SPELLINGS = {
    Kernel.MARLIN: ("NvFp4LinearBackend.MARLIN", "MarlinNvFp4LinearKernel", "MARLIN", "marlin", "Marlin (W4A16)"),
    Kernel.VLLM_CUTLASS: ("NvFp4LinearBackend.VLLM_CUTLASS", "CutlassNvFp4LinearKernel", "VLLM_CUTLASS", "cutlass"),
    Kernel.FLASHINFER_CUTLASS: (
        "NvFp4LinearBackend.FLASHINFER_CUTLASS",
        "FlashInferCutlassNvFp4LinearKernel",
        "flashinfer-cutlass",
        "flashinfer_cutlass",
        "fi-cutlass",
        "FlashInfer CUTLASS",
    ),
    Kernel.FLASHINFER_B12X: ("FlashInferB12xNvFp4LinearKernel", "FLASHINFER_B12X", "flashinfer_b12x"),
    Kernel.B12X: ("B12xNvFp4LinearKernel", "B12X", "b12x"),
    Kernel.B12X_W4A16: ("B12xNvFp4W4A16LinearKernel", "b12x_w4a16"),
    Kernel.FLASHINFER_CUDNN: ("FlashInferCudnnNvFp4LinearKernel", "flashinfer-cudnn", "cudnn"),
    Kernel.FLASHINFER_TRTLLM: ("FlashInferTrtllmNvFp4LinearKernel", "FLASHINFER_TRTLLM", "trtllm"),
    Kernel.FLASHINFER_CUTEDSL: ("FLASHINFER_CUTEDSL_BATCHED", "FLASHINFER_MOE_EP_CUTEDSL", "flashinfer_cutedsl"),
    Kernel.HUMMING: ("HummingNvFp4LinearKernel", "HUMMING"),
    Kernel.TORCH: ("TorchNvFp4LinearKernel", "torch"),
    Kernel.FBGEMM: ("FbgemmNvFp4LinearKernel", "NvFp4LinearBackend.FBGEMM"),
    Kernel.EMULATION: ("EmulationNvFp4LinearKernel", "EMULATION", "emulation"),
}


@pytest.mark.parametrize(
    ("spelling", "kernel"), [(spelling, kernel) for kernel, names in SPELLINGS.items() for spelling in names]
)
def test_a_spelling_means_its_kernel(spelling: str, kernel: Kernel) -> None:
    assert kernel_of(spelling) is kernel


@given(st.sampled_from(Kernel))
def test_a_kernel_is_read_back_from_its_own_name(kernel: Kernel) -> None:
    assert kernel_of(kernel.value) is kernel
    assert kernel_of(kernel.value.upper().replace("_", "-")) is kernel


@pytest.mark.parametrize("spelling", ["", "auto", "none", "VERDICT_MOE", "triton", "moe", "nvfp4"])
def test_what_is_no_kernel_is_none(spelling: str) -> None:
    assert kernel_of(spelling) is None


@given(st.text(max_size=40))
def test_no_spelling_raises(spelling: str) -> None:
    kernel_of(spelling)
    version_of(spelling)


def test_marlin_leaves_activations_alone_and_cutlass_does_not() -> None:
    assert Kernel.MARLIN.scheme is Scheme.W4A16
    assert Kernel.VLLM_CUTLASS.scheme is Scheme.W4A4
    assert Kernel.B12X_W4A16.scheme is Scheme.W4A16
    assert Kernel.B12X_W4A16.family is Kernel.B12X


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.33.0", Version(0, 33)),
        ("v0.18.1rc1.dev20+g1234", Version(0, 18, 1)),
        ("0.27.1+aeon.sm121a", Version(0, 27, 1)),
        ("0.24", Version(0, 24)),
        ("dev", None),
        ("", None),
        (None, None),
    ],
)
def test_a_version_is_its_numbers(text: str | None, version: Version | None) -> None:
    assert version_of(text) == version


def test_arguments_say_what_was_asked_for() -> None:
    assert requested_from_args({"moe_backend": "marlin", "linear_backend": "flashinfer-cutlass"}) == Requested(
        Kernel.FLASHINFER_CUTLASS, Kernel.MARLIN
    )
    assert requested_from_args({"kernel_config": {"moe_backend": "b12x"}}) == Requested(None, Kernel.B12X)
    assert requested_from_args({"moe_backend": "auto", "linear_backend": 3}) == Requested()


OLD_RECIPE = {
    "VLLM_NVFP4_GEMM_BACKEND": "marlin",
    "VLLM_USE_FLASHINFER_MOE_FP4": "0",
    "VLLM_TEST_FORCE_FP8_MARLIN": "1",
}


@pytest.mark.parametrize(
    ("version", "requested"),
    [
        (Version(0, 18, 1), Requested(Kernel.MARLIN, Kernel.MARLIN)),
        (Version(0, 23), Requested(Kernel.MARLIN, Kernel.MARLIN)),
        (Version(0, 24), Requested(None, Kernel.MARLIN)),  # the third variable lives on to 0.28
        (Version(0, 28), Requested(None, Kernel.MARLIN)),
        (Version(0, 29), Requested()),
        (None, Requested()),
    ],
)
def test_the_old_recipe_asks_for_less_and_less(version: Version | None, requested: Requested) -> None:
    assert requested_from_env(OLD_RECIPE, version) == requested


def test_the_flashinfer_variables_choose_by_goal() -> None:
    env = {"VLLM_USE_FLASHINFER_MOE_FP4": "1", "VLLM_FLASHINFER_MOE_BACKEND": "latency"}
    assert requested_from_env(env, Version(0, 20, 2)).moe is Kernel.FLASHINFER_TRTLLM
