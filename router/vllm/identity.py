"""What a backend runs, as its log tells it, and whether that is what its label says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.vllm.findings import Finding
from router.vllm.kernels import Kernel, Scheme, kernel_of

ADD_LOG = "log: docker:CONTAINER"
"""The one line to add to a backend so that its kernel can be read."""

_NO_MOE = frozenset({Kernel.FLASHINFER_CUDNN, Kernel.FLASHINFER_TRTLLM, Kernel.TORCH, Kernel.FBGEMM})  # on a Spark


@dataclass(frozen=True, slots=True)
class Identity:
    """What the log of one start says. None or empty: the log does not say.

    Attributes:
        requested_linear: what was asked for linear layers; None is "auto".
        requested_moe: what was asked for the experts; None is "auto".
        linear: what was resolved for NVFP4 linear layers (several where layers differ).
        moe: what was resolved for the experts.
        potential_moe: what it had to choose from.
        version: vLLM's version as it was printed.
        model: what was loaded.
        quantization: vLLM's name of the checkpoint's method ("modelopt_fp4", "compressed-tensors").
        checkpoint: W4A16 where a line says so; None where nothing does.
        args: the non-default arguments, without keys and tokens.
        kv_tokens: KV cache size in tokens.
        max_concurrency: how many requests of max_model_len fit at once.
        others: kernels of layers that are not NVFP4 ("CutlassFP8ScaledMMLinearKernel for ModelOptFp8LinearMethod").
        unrecognised: resolved names that are no known kernel.
        findings: what is wrong, heaviest first.
        ready: whether start-up was complete.
        starts: how many starts were seen before this one.
    """

    requested_linear: Kernel | None = None
    requested_moe: Kernel | None = None
    linear: tuple[Kernel, ...] = ()
    moe: Kernel | None = None
    potential_moe: tuple[str, ...] = ()
    version: str | None = None
    model: str | None = None
    quantization: str | None = None
    checkpoint: Scheme | None = None
    args: Mapping[str, Any] = field(default_factory=dict, hash=False)
    kv_tokens: int | None = None
    max_concurrency: float | None = None
    others: tuple[str, ...] = ()
    unrecognised: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    ready: bool = False
    starts: int = 0

    @property
    def scheme(self) -> str | None:
        """What it computes in, to compare builds by: "w4a4", "w4a16", or "w4a4 linear, w4a16 moe"; None if unknown."""
        linear = sorted({self._scheme(kernel) for kernel in self.linear})
        moe = [self._scheme(self.moe)] if self.moe else []
        if not linear or not moe or linear == moe:
            return "+".join(linear or moe) or None
        return f"{'+'.join(linear)} linear, {moe[0]} moe"

    def _scheme(self, kernel: Kernel) -> Scheme:
        """Native b12x has one name for experts of both schemes; a weight-only checkpoint leaves it only one."""
        weight_only = self.checkpoint is Scheme.W4A16 and kernel.family is Kernel.B12X
        return Scheme.W4A16 if weight_only else kernel.scheme

    @property
    def kernels(self) -> str:
        """What runs, in words: "marlin", or "linear marlin, moe vllm_cutlass", or "unknown"."""
        linear = "+".join(self.linear)
        if not self.moe or not linear or linear == self.moe.value:
            return linear or (self.moe.value if self.moe else "unknown")
        return f"linear {linear}, moe {self.moe}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Declared against observed.

    Attributes:
        matches: True, False, or None where one of the two is not known.
        observed: what runs, in words; "unknown" where nothing says.
        detail: one sentence; where nothing is known, what to add.
    """

    matches: bool | None
    observed: str
    detail: str


def compare(declared: str | None, identity: Identity | None) -> Verdict:
    """Hold a label against what the log says.

    Args:
        declared: the kernel an operator wrote down, in any spelling; None where nothing was.
        identity: what the log says; None where no log could be read.
    """
    if identity is None:
        return Verdict(None, "unknown", f'nothing says which kernel runs; add the line "{ADD_LOG}" to this backend')
    observed = identity.kernels
    if observed == "unknown":
        return Verdict(None, observed, _why_unknown(identity))
    wanted = kernel_of(declared) if declared else None
    if not declared:
        return Verdict(None, observed, f"runs {observed}; no kernel is declared")
    if wanted is None:
        return Verdict(None, observed, f'runs {observed}; "{declared}" is no kernel known here')
    other = _others_than(wanted, identity)
    if not other:
        return Verdict(True, observed, f"runs {observed} as declared")
    return Verdict(False, observed, f"declared {wanted}, but {' and '.join(other)}")


def _others_than(wanted: Kernel, identity: Identity) -> list[str]:
    """Which layers run something else."""
    linear = [kernel for kernel in identity.linear if kernel.family is not wanted.family]
    others = [f"linear layers run {' and '.join(linear)}"] if linear else []
    if identity.moe and identity.moe.family is not wanted.family and not (wanted in _NO_MOE and identity.linear):
        others.append(f"experts run {identity.moe}")
    return others


def _why_unknown(identity: Identity) -> str:
    """Say why a log that was read names no kernel."""
    if identity.unrecognised:
        return f"runs {', '.join(identity.unrecognised)}, which is no kernel known here"
    if identity.ready:
        return "its log names no NVFP4 kernel: the checkpoint is probably not NVFP4"
    if identity.version:
        return "its log does not name a kernel yet: it is still loading, or the log is cut off"
    return f'its log holds no start-up of vLLM; add a line "{ADD_LOG}" that points to where it does'
