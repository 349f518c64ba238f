"""Declared against observed."""

from __future__ import annotations

import pytest

from router.vllm.identity import Identity, compare
from router.vllm.kernels import Kernel

MARLIN = Identity(version="0.26.0", linear=(Kernel.MARLIN,), moe=Kernel.MARLIN, ready=True)
SPLIT = Identity(version="0.26.0", linear=(Kernel.MARLIN, Kernel.VLLM_CUTLASS), moe=Kernel.FLASHINFER_CUTLASS)


@pytest.mark.parametrize("label", ["marlin", "MARLIN", "Marlin (W4A16)", "MarlinNvFp4LinearKernel"])
def test_a_label_in_any_spelling_matches_what_runs(label: str) -> None:
    verdict = compare(label, MARLIN)
    assert (verdict.matches, verdict.observed) == (True, "marlin")


def test_a_lying_label_is_told_layer_by_layer() -> None:
    verdict = compare("flashinfer_cutlass", SPLIT)
    assert verdict.matches is False
    assert verdict.observed == "linear marlin+vllm_cutlass, moe flashinfer_cutlass"
    assert verdict.detail == "declared flashinfer_cutlass, but linear layers run marlin and vllm_cutlass"
    assert "experts run marlin" in compare("cutlass", MARLIN).detail


def test_a_variant_of_a_kernel_is_that_kernel() -> None:
    assert compare("b12x", Identity(linear=(Kernel.B12X_W4A16,), moe=Kernel.B12X)).matches is True


def test_a_kernel_without_experts_is_not_blamed_for_theirs() -> None:
    assert compare("cudnn", Identity(linear=(Kernel.FLASHINFER_CUDNN,), moe=Kernel.MARLIN)).matches is True


@pytest.mark.parametrize(
    ("declared", "identity", "says"),
    [
        ("marlin", None, 'add the line "log: docker:CONTAINER"'),
        ("marlin", Identity(), "no start-up of vLLM"),
        ("marlin", Identity(version="0.26.0"), "still loading"),
        ("marlin", Identity(version="0.26.0", ready=True), "probably not NVFP4"),
        ("marlin", Identity(version="0.26.0", unrecognised=("VERDICT_MOE",)), "VERDICT_MOE"),
        (None, MARLIN, "no kernel is declared"),
        ("fastest", MARLIN, "no kernel known here"),
    ],
)
def test_what_is_not_known_is_never_as_declared(declared: str | None, identity: Identity | None, says: str) -> None:
    verdict = compare(declared, identity)
    assert verdict.matches is None
    assert says in verdict.detail


@pytest.mark.parametrize(
    ("identity", "scheme"),
    [
        (MARLIN, "w4a16"),
        (SPLIT, "w4a16+w4a4 linear, w4a4 moe"),
        (Identity(linear=(Kernel.VLLM_CUTLASS,)), "w4a4"),
        (Identity(moe=Kernel.MARLIN), "w4a16"),
        (Identity(), None),
    ],
)
def test_the_scheme_is_what_the_kernels_compute_in(identity: Identity, scheme: str | None) -> None:
    assert identity.scheme == scheme
