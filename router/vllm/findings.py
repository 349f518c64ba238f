"""Lines of a vLLM log that mean something is wrong or other than asked: kinds, weights and the patterns behind them.

Sources of the wordings: vLLM wheels 0.17.1 to 0.33.0 and FlashInfer wheels 0.6.4 to 0.7.2 (`autotuner.py`, csrc
`moe_gemm_tma_ws_launcher.inl`), read as text, and published logs of DGX Sparks. What each means stands in `advice.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Weight(IntEnum):
    """How much a finding matters."""

    NOTE = 0  # good to know
    WARNING = 1  # not what was asked for, or slower than it could be
    FAULT = 2  # it broke, or its answers may be wrong


class Kind(StrEnum):
    """What was found."""

    TACTICS_SKIPPED = "tactics_skipped"
    TACTIC_OOM = "tactic_oom"
    TMA_WS_FAILED = "tma_ws_failed"
    MARLIN_WEIGHT_ONLY = "marlin_weight_only"
    EMULATION = "emulation"
    UNKNOWN_VARIABLE = "unknown_variable"
    DEPRECATED_VARIABLE = "deprecated_variable"
    LINEAR_FALLBACK = "linear_fallback"
    BATCH_INVARIANT = "batch_invariant_override"
    NO_KERNEL = "no_kernel"
    NO_KERNEL_IMAGE = "no_kernel_image"
    UNKNOWN_KERNEL = "unknown_kernel"
    AUTOTUNE_OFF = "autotune_off"
    OUT_OF_MEMORY = "out_of_memory"
    LITTLE_FREE_MEMORY = "little_free_memory"
    PROFILING_RACE = "profiling_race"
    KV_TOO_SMALL = "kv_too_small"
    MISALIGNED_ADDRESS = "misaligned_address"
    ILLEGAL_ACCESS = "illegal_memory_access"
    STEP_TIMEOUT = "step_timeout"
    CORRUPTED = "corrupted_requests"
    ENGINE_DEAD = "engine_dead"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a log says.

    Attributes:
        kind: what it is.
        weight: how much it matters.
        detail: what it is about: a variable, a kernel, a number; empty where the kind says all.
        count: how often it was said since the last start.
        line: the first line that said it, cut to 300 characters.
    """

    kind: Kind
    weight: Weight
    detail: str
    count: int
    line: str


OLD_VARIABLES = frozenset(
    {
        "VLLM_NVFP4_GEMM_BACKEND",
        "VLLM_USE_FLASHINFER_MOE_FP4",
        "VLLM_FLASHINFER_MOE_BACKEND",
        "VLLM_TEST_FORCE_FP8_MARLIN",
        "VLLM_USE_FBGEMM",
        "VLLM_USE_NVFP4_CT_EMULATIONS",
    }
)
"""They chose kernels up to 0.23 and do nothing from 0.24 on."""

IMAGE_VARIABLES = frozenset({"VLLM_BUILD_COMMIT", "VLLM_BUILD_PIPELINE", "VLLM_BUILD_URL", "VLLM_IMAGE_TAG"})
"""Baked into the official image, which then warns about itself (seen on 0.21 to 0.26): nothing to report."""

_UNSUPPORTED = r"unsupported tactic\(s\) for [^\s(]+"

_PATTERNS: tuple[tuple[Kind, Weight, str], ...] = (
    # FlashInfer up to 0.6.6 (vLLM up to 0.19) warns per tactic, from 0.6.8 (vLLM 0.20.2) one summary per operation
    (Kind.TACTICS_SKIPPED, Weight.WARNING, r"\[Autotuner\]: Skipping tactic \S+"),
    # per operation; a handful is normal on any Blackwell
    (Kind.TACTICS_SKIPPED, Weight.WARNING, rf"\[Autotuner\]: Skipped (?P<d>(?:[2-9]\d|\d{{3,}}) {_UNSUPPORTED})"),
    (Kind.TACTICS_SKIPPED, Weight.NOTE, rf"\[Autotuner\]: Skipped (?P<d>\d+ {_UNSUPPORTED})"),
    (Kind.TACTIC_OOM, Weight.WARNING, r"\[Autotuner\]: OOM detected"),
    (Kind.TMA_WS_FAILED, Weight.WARNING, r"Failed to initialize cutlass TMA WS grouped gemm"),
    (Kind.MARLIN_WEIGHT_ONLY, Weight.NOTE, r"does not have native support for FP4 computation"),
    (Kind.EMULATION, Weight.WARNING, r"NVFP4 linear falling back to the slow and unoptimized emulation"),
    (Kind.DEPRECATED_VARIABLE, Weight.NOTE, r"(?P<d>VLLM_\w+) is deprecated and will be removed in"),
    # mixed checkpoints have FP8 layers that no NVFP4 kernel fits: only a fall-back of NVFP4 layers weighs
    (Kind.LINEAR_FALLBACK, Weight.WARNING, r"(?P<d>[\w-]+)'? was requested, but no \S+ kernel exists for NVFP4"),
    (Kind.LINEAR_FALLBACK, Weight.NOTE, r"(?P<d>[\w-]+)'? was requested, but no \S+ kernel exists for"),
    (Kind.LINEAR_FALLBACK, Weight.NOTE, r"--linear-backend=(?P<d>[\w-]+) has no kernel for this linear layer"),
    (Kind.BATCH_INVARIANT, Weight.WARNING, r"VLLM_BATCH_INVARIANT (?:overrides|forces) (?P<d>[^,.;]{1,80})"),
    (Kind.NO_KERNEL, Weight.FAULT, r"No NvFp4 MoE backend supports the deployment configuration"),
    (Kind.NO_KERNEL, Weight.FAULT, r"Failed to find a kernel that can implement the NVFP4 linear layer"),
    (Kind.NO_KERNEL_IMAGE, Weight.FAULT, r"no kernel image is available for execution|cudaErrorNoKernelImageForDevice"),
    (Kind.AUTOTUNE_OFF, Weight.NOTE, r"Skipping FlashInfer autotune because it is disabled"),
    (
        Kind.LITTLE_FREE_MEMORY,
        Weight.FAULT,
        r"Free memory on device \S+ (?P<d>\([^)]*\)) on startup is less than desired",
    ),
    (Kind.PROFILING_RACE, Weight.FAULT, r"Error in memory profiling\. Initial free memory"),
    (
        Kind.KV_TOO_SMALL,
        Weight.FAULT,
        r"No available memory for the cache blocks|larger than the available KV cache memory",
    ),
    (Kind.OUT_OF_MEMORY, Weight.FAULT, r"(?P<d>CUDA out of memory|torch\.OutOfMemoryError|NV_ERR_NO_MEMORY)"),
    (Kind.MISALIGNED_ADDRESS, Weight.FAULT, r"misaligned address"),
    (Kind.ILLEGAL_ACCESS, Weight.FAULT, r"illegal memory access"),
    (Kind.STEP_TIMEOUT, Weight.FAULT, r"RPC call to (?P<d>sample_tokens|execute_model) timed out"),
    (Kind.CORRUPTED, Weight.FAULT, r"Corrupted: (?!0 reqs)\d+ reqs"),
    (
        Kind.ENGINE_DEAD,
        Weight.FAULT,
        r"EngineDeadError|EngineCore encountered (?:an issue|a fatal error)|EngineCore died",
    ),
)
_COMPILED = tuple((kind, weight, re.compile(pattern)) for kind, weight, pattern in _PATTERNS)
_UNKNOWN_VARIABLE = re.compile(r"Unknown vLLM environment variable detected: (VLLM_\w+)")

HINTS = (  # a line with none of these says nothing that is looked for
    "Autotuner",
    "TMA WS",
    "FP4",
    "NvFp4",
    "VLLM_",
    "linear-backend",
    "was requested, but",
    "kernel image",
    "NoKernelImage",
    "autotune",
    "emory",  # Free memory, Error in memory profiling, out of memory, illegal memory access, OutOfMemory
    "NO_MEMORY",
    "misaligned",
    "RPC call",
    "Corrupted",
    "EngineDead",
    "EngineCore encountered",
    "EngineCore died",
)


def find(line: str) -> tuple[Kind, Weight, str] | None:
    """What a line says is wrong (kind, weight, detail), or None."""
    unknown = _UNKNOWN_VARIABLE.search(line)
    if unknown:
        name = unknown[1]
        if name in IMAGE_VARIABLES:
            return None
        return Kind.UNKNOWN_VARIABLE, Weight.WARNING if name in OLD_VARIABLES else Weight.NOTE, name
    for kind, weight, pattern in _COMPILED:
        match = pattern.search(line)
        if match:
            return kind, weight, match.groupdict().get("d") or ""
    return None
