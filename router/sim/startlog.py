"""The log that a simulated server writes: vLLM 0.33's own start-up lines, true about kernels and not about flags.

`non-default args` repeats what was asked for; the `Using …` lines say what was resolved. Where the two differ, the
server is one of those that are believed to run something else than they do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from router.sim.state import Build

FLAGS = {  # MoE kernel as logged: the flag that asks for it, the linear kernel beside it, what both compute in
    "MARLIN": ("marlin", "MarlinNvFp4LinearKernel", "w4a16"),
    "VLLM_CUTLASS": ("cutlass", "CutlassNvFp4LinearKernel", "w4a4"),
    "FLASHINFER_CUTLASS": ("flashinfer_cutlass", "FlashInferCutlassNvFp4LinearKernel", "w4a4"),
    "FLASHINFER_B12X": ("flashinfer_b12x", "FlashInferB12xNvFp4LinearKernel", "w4a4"),
    "B12X": ("b12x", "B12xNvFp4LinearKernel", "w4a4"),
}
_POTENTIAL = ("FLASHINFER_TRTLLM", "FLASHINFER_CUTEDSL", "FLASHINFER_CUTEDSL_BATCHED", "FLASHINFER_CUTLASS",
              "VLLM_CUTLASS", "MARLIN", "HUMMING", "EMULATION")  # fmt: skip
_MARLIN_WARNING = (
    "Your GPU does not have native support for FP4 computation but FP4 quantization is being used. Weight-only FP4 "
    "compression will be used leveraging the Marlin kernel. This may degrade performance for compute-heavy workloads."
)


def kernel_named(name: str) -> tuple[str, str, str]:
    """(MoE kernel, linear kernel, scheme) by a flag's name or a MoE kernel's. Raises ValueError for another name."""
    wanted = name.lower().replace("-", "_").removeprefix("vllm_")
    for moe, (flag, linear, scheme) in FLAGS.items():
        if wanted == flag:
            return moe, linear, scheme
    raise ValueError(f"no kernel {name}; there are {', '.join(flag for flag, _, _ in FLAGS.values())}")


def start_lines(build: Build, port: int, now: datetime) -> list[str]:
    """What vLLM logs from its banner up to the point where it listens."""
    profile = build.profile
    flag = build.declared or FLAGS[profile.moe_kernel][0]
    engine, server = f"(EngineCore pid={os.getpid() + 1})", f"(APIServer pid={os.getpid()})"
    stamp = now.strftime("%m-%d %H:%M:%S")
    arguments = {
        "model_tag": profile.checkpoint, "port": port, "model": profile.checkpoint,
        "max_model_len": profile.max_model_len, "served_model_name": [build.model], "linear_backend": flag,
        "moe_backend": flag,
    }  # fmt: skip
    config = (
        f"model='{profile.checkpoint}', speculative_config=None, tokenizer='{profile.checkpoint}', "
        f"dtype=torch.bfloat16, max_seq_len={profile.max_model_len}, quantization=modelopt_fp4, enforce_eager=False, "
        f"served_model_name={build.model}, enable_prefix_caching=True"
    )
    times = profile.kv_tokens / profile.max_model_len
    potential = _POTENTIAL if profile.moe_kernel in _POTENTIAL else (profile.moe_kernel,)
    lines = [
        f"{server} INFO {stamp} [utils.py:325]   █▄█▀ █     █     █     █  version {profile.vllm_version}",
        f"{server} INFO {stamp} [api_utils.py:290] non-default args: {arguments}",
        f"{engine} INFO {stamp} [core.py:125] Initializing a V1 LLM engine (v{profile.vllm_version}) "
        f"with config: {config}",
        f"{engine} INFO {stamp} [__init__.py:1242] Using {profile.linear_kernel} for NVFP4 GEMM",
        f"{engine} INFO {stamp} [nvfp4.py:262] Using '{profile.moe_kernel}' NvFp4 MoE backend out of potential "
        f"backends: {list(potential)}.",
    ]
    if profile.moe_kernel == "MARLIN":
        lines.append(f"{engine} WARNING {stamp} [marlin.py:35] {_MARLIN_WARNING}")
    lines += [
        f"{engine} INFO {stamp} [kv_cache_utils.py:2065] GPU KV cache size: {profile.kv_tokens:,} tokens, "
        f"Maximum concurrency for {profile.max_model_len:,} tokens per request: {times:.2f}x",
        f"{server} INFO:     Started server process [{os.getpid()}]",
        f"{server} INFO:     Waiting for application startup.",
        f"{server} INFO:     Application startup complete.",
    ]
    return lines


def log_writer(path: Path | None, show: Callable[[str], None]) -> Callable[[list[str]], None]:
    """Where lines go: to the end of a file, or to `show` one by one."""

    def write(lines: list[str]) -> None:
        if path is None:
            for line in lines:
                show(line)
            return
        with path.open("a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)

    return write
