"""How to ask a vLLM of a given version for a given NVFP4 kernel: flags, variables, or why it cannot be had.

Every row has its source. `vX path` is the vLLM wheel of that version, read as text; `#N` a pull request or report of
vllm-project/vllm. Nothing in this table was measured here on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.vllm.kernels import FLAGS_SINCE, VARIABLES_GONE, Kernel, Scheme, Version

OLDEST = Version(0, 17)
NEWEST_READ = Version(0, 33)


@dataclass(frozen=True, slots=True)
class Switches:
    """What to put on the command line and into the environment.

    Attributes:
        flags: words for `vllm serve`, in order.
        env: variables and their values.
        notes: what an operator should know, one sentence each.
        sources: where this is read from.
    """

    flags: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """This version, checkpoint or GPU cannot run that kernel."""

    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class _Row:
    """One kernel: its words, and the first version that has it for linear layers and for MoE (None: never on SM12x)."""

    linear: str
    linear_since: Version | None
    moe: str | None
    moe_since: Version | None
    source: str
    variable: tuple[str, str] | None = None  # how to ask for its linear kernel before 0.22


_GEMM = "VLLM_NVFP4_GEMM_BACKEND"
_TABLE = {
    Kernel.MARLIN: _Row(
        "marlin", OLDEST, "marlin", OLDEST, "v0.18.1 envs.py:1410, v0.33 config/kernel.py:245", (_GEMM, "marlin")
    ),
    Kernel.VLLM_CUTLASS: _Row(
        "cutlass", OLDEST, "cutlass", OLDEST, "v0.18.1 envs.py:1410, v0.33 config/kernel.py:245", (_GEMM, "cutlass")
    ),
    Kernel.FLASHINFER_CUTLASS: _Row(
        "flashinfer_cutlass",
        OLDEST,
        "flashinfer_cutlass",
        OLDEST,
        "v0.18.1 envs.py:1410, v0.33 config/kernel.py:245",
        (_GEMM, "flashinfer-cutlass"),
    ),
    Kernel.FLASHINFER_CUDNN: _Row(
        "flashinfer_cudnn", OLDEST, None, None, "v0.33 kernels/linear/__init__.py:592", (_GEMM, "flashinfer-cudnn")
    ),
    Kernel.FLASHINFER_TRTLLM: _Row(
        "flashinfer_trtllm", OLDEST, None, None, "v0.33 oracle/nvfp4.py:163", (_GEMM, "flashinfer-trtllm")
    ),
    Kernel.FLASHINFER_B12X: _Row(
        "flashinfer_b12x", Version(0, 22), "flashinfer_b12x", Version(0, 22), "#40082, v0.22.1 kernels/linear"
    ),
    Kernel.B12X: _Row(
        "b12x", Version(0, 28), "b12x", Version(0, 28), "v0.28 kernels/linear, v0.33 oracle/nvfp4.py:200"
    ),
    Kernel.B12X_W4A16: _Row(
        "b12x",
        Version(0, 32),
        "b12x",
        Version(0, 28),
        "v0.32 kernels/linear, v0.29 envs.py VLLM_B12X_MOE_FP4_FORCE_A16",
    ),
    Kernel.HUMMING: _Row("humming", Version(0, 25), "humming", Version(0, 25), "v0.25 kernels/linear"),
    Kernel.TORCH: _Row("torch", Version(0, 30), None, None, "v0.30 kernels/linear"),
    Kernel.EMULATION: _Row(
        "emulation",
        OLDEST,
        "emulation",
        Version(0, 22),
        "v0.18.1 layers/quantization/utils/nvfp4_utils.py:39, v0.33 oracle/nvfp4.py:182",
        ("VLLM_USE_NVFP4_CT_EMULATIONS", "1"),
    ),
    Kernel.FBGEMM: _Row(
        "fbgemm",
        OLDEST,
        None,
        None,
        "v0.18.1 layers/quantization/utils/nvfp4_utils.py:39, v0.33 kernels/linear/__init__.py:592",
        ("VLLM_USE_FBGEMM", "1"),
    ),
    Kernel.FLASHINFER_CUTEDSL: _Row("flashinfer_cutedsl", None, None, None, "v0.33 kernels/linear/__init__.py:592"),
    Kernel.FLASHINFER_CUTEDSL_W4A16: _Row(
        "flashinfer_cutedsl", None, None, None, "v0.33 kernels/linear/__init__.py:592"
    ),
}


def switches(
    version: Version,
    kernel: Kernel,
    checkpoint: Scheme | None = None,
    *,
    moe: bool = True,
    squared_relu: bool = False,
) -> Switches | Refusal:
    """Say how to run `kernel` on a DGX Spark (SM 12.1) under this vLLM, or why that cannot be.

    Args:
        version: the vLLM that will run.
        kernel: what is wanted for linear layers and, where `moe`, for the experts.
        checkpoint: how the checkpoint is quantised; None where that is not known.
        moe: whether the model has experts.
        squared_relu: whether its experts are not gated and use ReLU² (Nemotron-3).
    """
    row = _TABLE[kernel]
    refusal = _refused(version, kernel, row, checkpoint, moe=moe, squared_relu=squared_relu)
    if refusal is not None:
        return refusal
    flags: list[str] = []
    env: list[tuple[str, str]] = []
    if version >= FLAGS_SINCE:
        flags += ["--linear-backend", row.linear]
    elif row.variable is not None:
        env.append(row.variable)
    if moe and row.moe is not None:
        flags += ["--moe-backend", row.moe]
    if kernel is Kernel.B12X_W4A16 and moe:
        env.append(("VLLM_B12X_MOE_FP4_FORCE_A16", "1"))
    return Switches(tuple(flags), tuple(env), tuple(_notes(version, kernel, row, checkpoint, moe=moe)), (row.source,))


def _refused(
    version: Version, kernel: Kernel, row: _Row, checkpoint: Scheme | None, *, moe: bool, squared_relu: bool
) -> Refusal | None:
    """The rows of the table that say no."""
    if version < OLDEST:
        return Refusal(f"vLLM {version} is older than {OLDEST}: its NVFP4 selection was not read.", "v0.17.1")
    if row.linear_since is None:
        return Refusal(f"{kernel} needs SM 10.x; a DGX Spark is SM 12.1.", row.source)
    since = max(row.linear_since, row.moe_since) if moe and row.moe_since else row.linear_since
    if version < since:
        return Refusal(f"vLLM {version} has no {kernel} yet; it came with {since}.", row.source)
    if checkpoint is Scheme.W4A16:
        return _refused_for_weight_only(version, kernel, moe=moe)
    if kernel is Kernel.VLLM_CUTLASS and moe and squared_relu and version < Version(0, 19, 1):
        return Refusal(
            f"On vLLM {version} the CUTLASS MoE rejects experts that are not gated (ReLU², Nemotron-3); from 0.19.1 it "
            "takes them.",
            "v0.18.1 fused_moe/cutlass_moe.py _supports_no_act_and_mul",
        )
    return None


def _refused_for_weight_only(version: Version, kernel: Kernel, *, moe: bool) -> Refusal | None:
    """A W4A16 checkpoint has no activation scales, which every W4A4 kernel needs."""
    if kernel.scheme is Scheme.W4A4 and kernel is not Kernel.EMULATION and kernel is not Kernel.B12X:
        what = "its MoE wants static weight and dynamic activation scales" if moe else "it wants activation scales"
        return Refusal(
            f"A weight-only (W4A16) checkpoint cannot use {kernel}: {what}; on a Spark it runs Marlin.",
            "v0.33 oracle/nvfp4.py:200",
        )
    if kernel is Kernel.B12X and version < Version(0, 32):
        return Refusal(
            f"b12x takes weight-only (W4A16) checkpoints from 0.32, this is {version}.", "v0.32 kernels/linear"
        )
    return None


def _notes(version: Version, kernel: Kernel, row: _Row, checkpoint: Scheme | None, *, moe: bool) -> list[str]:
    """What should be known before one relies on it."""
    notes = []
    if version > Version(NEWEST_READ.major, NEWEST_READ.minor, 9999):
        notes.append(f"vLLM {version} is newer than what was read ({NEWEST_READ}): read its log for what it resolved.")
    if VARIABLES_GONE > version >= FLAGS_SINCE:
        notes.append(
            "The old variables still work here if the flags are absent, with a FutureWarning; 0.24 drops them."
        )
    if moe and row.moe is None:
        notes.append(f"{kernel} has no MoE kernel on a Spark: the experts keep what vLLM chooses by itself.")
    if kernel is Kernel.MARLIN and checkpoint is Scheme.W4A4:
        notes.append("Marlin leaves the activations in 16 bit: its answers differ from W4A4 kernels by right.")
    if checkpoint is Scheme.W4A16 and kernel is Kernel.MARLIN:
        notes.append("Marlin is what a weight-only checkpoint gets on a Spark without any flag.")
    if checkpoint is Scheme.W4A16 and kernel is Kernel.HUMMING and version >= Version(0, 30):
        notes.append('Per scheme: --kernel-config \'{"linear_backend_per_quant":{"nvfp4_w4a16":"humming"}}\'.')
    if kernel.family is Kernel.B12X:
        notes.append("Native b12x needs `pip install vllm[b12x]`; its MoE is never chosen by itself.")
    if kernel is Kernel.FLASHINFER_CUTLASS:
        notes.append("This is what vLLM chooses by itself on a Spark for a W4A4 checkpoint.")
    if Version(0, 22) <= version < Version(0, 28):
        notes.append(
            "A linear layer without this kernel stops the start (ValueError); from 0.28 it falls back and warns."
        )
    return notes
