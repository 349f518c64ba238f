"""What a finding means, and what to do about it on the vLLM version at hand: two sentences each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from router.vllm.findings import OLD_VARIABLES, Finding, Kind, Weight
from router.vllm.kernels import FLAGS_SINCE, Kernel, Version, heeds
from router.vllm.switches import Switches, switches


@dataclass(frozen=True, slots=True)
class Advice:
    """Two sentences for an operator: what it means, what to do."""

    meaning: str
    action: str


_Says = Callable[[Finding, Version | None], Advice]


def advise(finding: Finding, version: Version | None) -> Advice:
    """Explain a finding; without a version the advice is for a current one (0.24 and later)."""
    return _TABLE[finding.kind](finding, version)


def how_to_ask(kernel: Kernel, version: Version | None) -> str:
    """The flags and variables that ask this version for a kernel, as one would type them."""
    found = switches(version or Version(0, 24), kernel)
    if not isinstance(found, Switches):
        return found.reason
    return " ".join([*(f"{name}={value}" for name, value in found.env), *found.flags])


def _always(meaning: str, action: str) -> _Says:
    return lambda finding, version: Advice(meaning, action)


def _marlin(text: str) -> _Says:
    """Advice that ends in how to get Marlin on this version."""
    return lambda finding, version: Advice(text, f"Compare with Marlin: {how_to_ask(Kernel.MARLIN, version)}.")


def _unknown_variable(finding: Finding, version: Version | None) -> Advice:
    if finding.detail not in OLD_VARIABLES:
        return Advice(
            "A VLLM_ variable is set that this vLLM does not know: it does nothing.",
            "Remove it, or check its spelling against this version's envs.py.",
        )
    lasted, since = ("0.28", "0.29") if finding.detail == "VLLM_TEST_FORCE_FP8_MARLIN" else ("0.23", "0.24")
    return Advice(
        f"This variable chose kernels up to vLLM {lasted}; from {since} on it does nothing: the server runs what vLLM "
        "chose by itself.",
        f"Ask with flags instead, for Marlin: {how_to_ask(Kernel.MARLIN, version)}; then read this log again.",
    )


def _deprecated_variable(finding: Finding, version: Version | None) -> Advice:
    works = "still works on this version" if heeds(version, finding.detail) else "is on its way out"
    return Advice(
        f"{finding.detail} {works}, but the next upgrade (0.24) ignores it and silently takes another kernel.",
        f"Ask with flags now, for Marlin: {how_to_ask(Kernel.MARLIN, version)}.",
    )


def _tactics(finding: Finding, version: Version | None) -> Advice:
    if finding.weight is Weight.NOTE:
        return Advice(
            "FlashInfer's autotuner left out a few tactics that this GPU does not support: normal on Blackwell.",
            "Nothing; many of them (80 in one operation were seen on a DGX Spark) would be worth a look.",
        )
    return Advice(
        "FlashInfer's autotuner found kernels that do not run on this GPU and left them out: what remains is often "
        "slower (about 16 % on a DGX Spark) and takes more memory.",
        f"Measure it against Marlin ({how_to_ask(Kernel.MARLIN, version)}), or use a build for sm_121a with a newer "
        "FlashInfer.",
    )


def _linear_fallback(finding: Finding, version: Version | None) -> Advice:
    return Advice(
        f"Some layers have no {finding.detail or 'such'} kernel and run another one: the flag holds only in part.",
        "Take the resolved kernel for this server's label; a weight-only checkpoint always runs Marlin on a Spark.",
    )


def _no_kernel(finding: Finding, version: Version | None) -> Advice:
    flags = (
        "--linear-backend and --moe-backend" if version is None or version >= FLAGS_SINCE else "the backend variables"
    )
    return Advice(
        "No kernel fits this checkpoint, GPU and request together, so the server did not start.",
        f"Drop {flags} to let vLLM choose, or check that this build contains sm_121a.",
    )


_CRASHED = (
    "The engine died on a bad memory access; on GB10 Marlin experts do this every 1 to 10 days (vLLM #49926, #50934)."
)

_TABLE: dict[Kind, _Says] = {
    Kind.TACTICS_SKIPPED: _tactics,
    Kind.TACTIC_OOM: _always(
        "The autotuner ran out of memory and fell back to an untuned kernel: this server is slower than it could be.",
        "Start it with a lower --gpu-memory-utilization, and not while another server on the same Spark is loading.",
    ),
    Kind.TMA_WS_FAILED: _marlin(
        "FlashInfer's fast grouped GEMM does not initialise on this GPU and slower tactics take its place; builds with "
        "CUTLASS 4.2.1 (FlashInfer 0.6.6) are known for it (flashinfer #2798)."
    ),
    Kind.MARLIN_WEIGHT_ONLY: _always(
        "Marlin is in use somewhere: activations stay in 16 bit (W4A16); vLLM says so on Blackwell too.",
        "Nothing, if Marlin was asked for or the checkpoint is weight-only; otherwise see which layers run it above.",
    ),
    Kind.EMULATION: _always(
        "No real kernel was found, so FP4 is emulated: right answers at a small fraction of the speed.",
        "Use a vLLM built for this GPU (sm_121a on a Spark) or ask for Marlin.",
    ),
    Kind.UNKNOWN_VARIABLE: _unknown_variable,
    Kind.DEPRECATED_VARIABLE: _deprecated_variable,
    Kind.LINEAR_FALLBACK: _linear_fallback,
    Kind.BATCH_INVARIANT: _always(
        "VLLM_BATCH_INVARIANT=1 overrules the flags: NVFP4 linear layers run CUTLASS, or emulation without it.",
        "Unset VLLM_BATCH_INVARIANT to get the kernel that was asked for, or label this server by what it runs.",
    ),
    Kind.NO_KERNEL: _no_kernel,
    Kind.NO_KERNEL_IMAGE: _always(
        "This build holds no code for this GPU.",
        "Use an image for aarch64 and sm_121a (12.1a); a build for 12.0 or 10.0 alone does not run on a Spark.",
    ),
    Kind.UNKNOWN_KERNEL: _always(
        "vLLM resolved a kernel that this router does not know by name.",
        "Label the backend by hand; its answers are judged all the same.",
    ),
    Kind.AUTOTUNE_OFF: _always(
        "FlashInfer's autotuning is off: kernels run with default tactics and may be slower.",
        "Start with --enable-flashinfer-autotune, unless tuning was what failed.",
    ),
    Kind.OUT_OF_MEMORY: _always(
        "The GPU's memory, on a Spark the machine's, ran out.",
        "Lower --gpu-memory-utilization (0.80 to 0.85 on a Spark, all its servers together) or --max-num-seqs.",
    ),
    Kind.LITTLE_FREE_MEMORY: _always(
        "At start less memory was free than --gpu-memory-utilization claims, which is a share of all there is.",
        "Stop other servers, look for memory that a killed container leaked (a reboot frees it), or claim less.",
    ),
    Kind.PROFILING_RACE: _always(
        "Another process freed memory while this server measured its own, so it gave up.",
        "Start servers one after the other (wait for /health), or skip profiling with --kv-cache-memory-bytes.",
    ),
    Kind.KV_TOO_SMALL: _always(
        "After the weights too little memory was left for the KV cache of even one request.",
        "Lower --max-model-len, raise --gpu-memory-utilization, or give this server more of the machine.",
    ),
    Kind.MISALIGNED_ADDRESS: _always(
        _CRASHED, "Restart it, let the router send calls elsewhere, and try a newer build."
    ),
    Kind.ILLEGAL_ACCESS: _always(_CRASHED, "Restart it, let the router send calls elsewhere, and try a newer build."),
    Kind.STEP_TIMEOUT: _always(
        "One engine step took longer than vLLM waits, mostly because memory ran so low that the machine was swapping.",
        "Lower --gpu-memory-utilization and --max-num-seqs, and look for other users of memory on this Spark.",
    ),
    Kind.CORRUPTED: _always(
        "vLLM counted requests with NaN in their logits: this server's answers are wrong.",
        "Take it out of routing and change the kernel; NaN on SM12x mostly comes from builds without the 12.1a suffix.",
    ),
    Kind.ENGINE_DEAD: _always(
        "The engine process died; streams that were open ended with an error event and a clean-looking [DONE].",
        "Look at the lines before it for the cause, and restart the server; on a Spark memory is the usual one.",
    ),
}
