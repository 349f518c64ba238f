"""NVFP4 kernel names: every spelling that vLLM, its flags, its old variables and operators use, as one enum.

Source of all names and versions: the `.py` files of vLLM's wheels 0.17.1 to 0.33.0 (`model_executor/kernels/linear`,
`fused_moe/oracle/nvfp4.py`, `config/kernel.py`, `envs.py`). How to ask for a kernel stands in `switches.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Scheme(StrEnum):
    """What the weights and the activations of a matrix multiplication are rounded to."""

    W4A4 = "w4a4"  # both 4 bit: prefill is fast
    W4A16 = "w4a16"  # weights only: decode is fast, activations stay exact


class Kernel(StrEnum):
    """Who multiplies NVFP4 matrices. The values are the names in config, metrics, headers and tables."""

    MARLIN = "marlin"
    VLLM_CUTLASS = "vllm_cutlass"
    FLASHINFER_CUTLASS = "flashinfer_cutlass"
    FLASHINFER_B12X = "flashinfer_b12x"
    B12X = "b12x"
    B12X_W4A16 = "b12x_w4a16"
    FLASHINFER_TRTLLM = "flashinfer_trtllm"
    FLASHINFER_CUDNN = "flashinfer_cudnn"
    FLASHINFER_CUTEDSL = "flashinfer_cutedsl"
    FLASHINFER_CUTEDSL_W4A16 = "flashinfer_cutedsl_w4a16"
    FBGEMM = "fbgemm"
    HUMMING = "humming"
    TORCH = "torch"
    EMULATION = "emulation"

    @property
    def scheme(self) -> Scheme:
        """What it computes in: builds of different schemes may differ without either being wrong."""
        return Scheme.W4A16 if self in _WEIGHT_ONLY else Scheme.W4A4

    @property
    def family(self) -> Kernel:
        """The kernel without its variant: what an operator means by "b12x"."""
        return _FAMILY.get(self, self)


_WEIGHT_ONLY = frozenset({Kernel.MARLIN, Kernel.B12X_W4A16, Kernel.FLASHINFER_CUTEDSL_W4A16, Kernel.HUMMING})
_FAMILY = {Kernel.B12X_W4A16: Kernel.B12X, Kernel.FLASHINFER_CUTEDSL_W4A16: Kernel.FLASHINFER_CUTEDSL}

_SPELLINGS = {
    **{kernel.value.replace("_", ""): kernel for kernel in Kernel},
    "cutlass": Kernel.VLLM_CUTLASS,  # `--linear-backend cutlass`, `VLLM_NVFP4_GEMM_BACKEND=cutlass`, CutlassNvFp4…
    "ficutlass": Kernel.FLASHINFER_CUTLASS,
    "flashinfer": Kernel.FLASHINFER_CUTLASS,  # what "FlashInfer" without more resolves to on SM12x
    "fib12x": Kernel.FLASHINFER_B12X,
    "fitrtllm": Kernel.FLASHINFER_TRTLLM,
    "trtllm": Kernel.FLASHINFER_TRTLLM,
    "ficudnn": Kernel.FLASHINFER_CUDNN,
    "cudnn": Kernel.FLASHINFER_CUDNN,
    "ficutedsl": Kernel.FLASHINFER_CUTEDSL,
    "cutedsl": Kernel.FLASHINFER_CUTEDSL,
    "flashinfercutedslbatched": Kernel.FLASHINFER_CUTEDSL,
    "flashinferepcutedsl": Kernel.FLASHINFER_CUTEDSL,
    "emulations": Kernel.EMULATION,
}
_NOISE = re.compile(r"nvfp4|linear|backend|kernel|moe|[^a-z0-9]")  # of class names, enum names and labels
_SCHEME = re.compile(r"w4a(?:4|16)")  # "marlin (W4A16)"

_MOE_GOALS = {  # VLLM_FLASHINFER_MOE_BACKEND, gone with 0.24
    "throughput": Kernel.FLASHINFER_CUTLASS,
    "latency": Kernel.FLASHINFER_TRTLLM,
    "masked_gemm": Kernel.FLASHINFER_CUTEDSL,
}


@dataclass(frozen=True, slots=True)
class Requested:
    """What a server was asked to run. None: nothing was asked, vLLM chooses ("auto")."""

    linear: Kernel | None = None
    moe: Kernel | None = None


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A vLLM release. Only numbers count: "0.18.1rc1.dev20+g1234" is taken for 0.18.1, the release it leads to."""

    major: int
    minor: int
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?")

FLAGS_SINCE = Version(0, 22)  # --linear-backend exists
VARIABLES_GONE = Version(0, 24)  # the old environment variables are unknown from here on, but for one
FORCE_MARLIN_GONE = Version(0, 29)  # VLLM_TEST_FORCE_FP8_MARLIN forces the MoE to Marlin up to 0.28


def kernel_of(spelling: str) -> Kernel | None:
    """Give the kernel behind any spelling of it; None for "auto", "" and whatever is not a known NVFP4 kernel.

    Understood: `NvFp4LinearBackend.MARLIN` (up to 0.19), `MarlinNvFp4LinearKernel` (from 0.20), MoE names such as
    `VLLM_CUTLASS`, flag and variable values such as `flashinfer-cutlass`, and labels such as "cutlass" or "fi-cutlass".
    """
    bare = _NOISE.sub("", spelling.lower())
    return _SPELLINGS.get(bare) or _SPELLINGS.get(_SCHEME.sub("", bare))


def version_of(text: str | None) -> Version | None:
    """Read the numbers of a version; None where there are none ("dev")."""
    match = _VERSION.match(text.strip()) if text else None
    return Version(int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def requested_from_args(args: Mapping[str, Any]) -> Requested:
    """What the start-up line "non-default args" (or a kernel_config) asks for; a key that is absent means auto."""
    nested = args.get("kernel_config")
    inner = nested if isinstance(nested, Mapping) else {}
    return Requested(
        linear=_asked(args.get("linear_backend", inner.get("linear_backend"))),
        moe=_asked(args.get("moe_backend", inner.get("moe_backend"))),
    )


def heeds(version: Version | None, variable: str) -> bool:
    """Whether this vLLM still does anything with an old kernel variable; an unknown version is taken for a new one."""
    gone = FORCE_MARLIN_GONE if variable == "VLLM_TEST_FORCE_FP8_MARLIN" else VARIABLES_GONE
    return version is not None and version < gone


def requested_from_env(env: Mapping[str, Any], version: Version | None) -> Requested:
    """What the old environment variables ask for, as far as this version heeds them.

    Order as in 0.18.1 `nvfp4_utils.py` and `oracle/nvfp4.py`.
    """
    env = {name: value for name, value in env.items() if heeds(version, name)}
    linear = _asked(env.get("VLLM_NVFP4_GEMM_BACKEND"))
    if _is_on(env.get("VLLM_USE_NVFP4_CT_EMULATIONS")):
        linear = Kernel.EMULATION
    if _is_on(env.get("VLLM_USE_FBGEMM")):
        linear = Kernel.FBGEMM
    moe = None
    if _is_on(env.get("VLLM_TEST_FORCE_FP8_MARLIN")):
        moe = Kernel.MARLIN
    if _is_on(env.get("VLLM_USE_FLASHINFER_MOE_FP4")):
        moe = _MOE_GOALS.get(str(env.get("VLLM_FLASHINFER_MOE_BACKEND")), Kernel.FLASHINFER_CUTLASS)
    return Requested(linear, moe)


def _asked(value: object) -> Kernel | None:
    return kernel_of(value) if isinstance(value, str) else None


def _is_on(value: object) -> bool:
    return str(value).strip().lower() in {"1", "true", "yes", "on"}
