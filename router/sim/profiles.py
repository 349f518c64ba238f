"""Named engines: what a checkpoint and its NVFP4 kernels read, compute and hold on a DGX Spark, with sources.

A figure is *published* (with where), *derived* (computed from published ones, how), or *assumed* (nobody measured it).
The shapes: Nemotron-3-Nano has 52 layers (23 Mamba-2, 23 MoE of 128 routed experts with 6 active, 6 attention), hidden
2688, expert width 1856, vocabulary 131,072 (its model card). Routed experts: 23 x 128 x 2 x 2688 x 1856 x 0.5625 bytes
(4-bit values, one 8-bit scale per 16) = 16.5 GB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Profile:
    """One checkpoint on one kernel, alone on one Spark. Bytes in GB (1e9), times in seconds."""

    name: str
    checkpoint: str
    scheme: str  # "w4a16" or "w4a4": what the kernels compute with
    linear_kernel: str  # as vLLM's log names it
    moe_kernel: str
    vllm_version: str
    always_read_gb: float  # attention, Mamba, shared experts, head: every step reads them
    routed_gb: float  # all routed experts; a step reads those its tokens reach
    routed_share: float  # active experts / experts: what one token reaches
    state_gb: float  # recurrent state read and written per sequence and step
    kv_bytes_per_token: float
    dense_efficiency: float  # share of the peak bandwidth that sequential reads reach
    routed_efficiency: float  # the same for scattered expert reads
    overhead_s: float  # scheduling, launch, sampling: each step
    flop_per_token: float  # 2 x active parameters
    attention_flop: float  # per new token and token of context: 4 x attention layers x width
    compute_flop_s: float  # what prefill kernels reach
    first_touch: float = 1.0  # how many times longer a prefill shape takes when first seen
    kv_tokens: int = 400_000
    max_model_len: int = 131_072
    max_num_seqs: int = 256
    max_batched_tokens: int = 8192
    draft_tokens: int = 0  # speculative decoding: tokens proposed a step, 0 = off
    draft_accepted: float = 0.0  # probability that a proposed token is right
    jitter: float = 0.02  # relative spread of a step's duration
    reasoning: bool = False


# c1 63.1, c5 150.5, c10 206.1 tok/s; prefill 2766 to 6002: vLLM 0.26.0 + Marlin, djangodevreng/dgx-spark-benchmarks.
MARLIN = Profile(
    name="marlin",
    checkpoint="nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4",
    scheme="w4a16",
    linear_kernel="MarlinNvFp4LinearKernel",
    moe_kernel="MARLIN",
    vllm_version="0.33.0",
    always_read_gb=2.3,  # derived: 1.85 G parameters outside the experts, mostly FP8, head in BF16
    routed_gb=16.5,  # derived, above
    routed_share=6 / 128,  # model card
    state_gb=0.1,  # derived: 23 Mamba-2 layers x 64 x 64 x 128 x 4 bytes, read and written
    kv_bytes_per_token=6144,  # derived: 6 layers x 2 KV heads x 128 x 2 (K, V) x 2 bytes
    dense_efficiency=0.85,  # assumed; the usual share for streaming reads
    routed_efficiency=0.68,  # derived: fits the slope from c1 to c10 with the expert coverage of n tokens
    overhead_s=0.0013,  # derived: what is left of c1's 15.8 ms
    flop_per_token=7.0e9,  # derived: 3.5 G active parameters (model card)
    attention_flop=98_304,  # derived: 4 x 6 layers x 4096
    compute_flop_s=48e12,  # derived: 6002 tok/s at 8192 tokens; then 512 tokens give about the published 2766
    first_touch=4.5,  # published: vllm-project/vllm#49476
)

# Decode: FlashInfer 42.6 against Marlin 50.0 tok/s (Sggin1/spark-ai-containers, eager, 0.18). Prefill: assumed 1.3 x
# Marlin's, between the 1.21 and 1.37 published for b12x (vllm-project/vllm#49476). Which CUTLASS leads is assumed.
VLLM_CUTLASS = replace(
    MARLIN, name="vllm-cutlass", scheme="w4a4", linear_kernel="CutlassNvFp4LinearKernel", moe_kernel="VLLM_CUTLASS",
    dense_efficiency=0.75, routed_efficiency=0.62, overhead_s=0.0022, compute_flop_s=60e12, first_touch=1.5,
)  # fmt: skip
FLASHINFER_CUTLASS = replace(
    MARLIN, name="flashinfer-cutlass", scheme="w4a4", linear_kernel="FlashInferCutlassNvFp4LinearKernel",
    moe_kernel="FLASHINFER_CUTLASS", dense_efficiency=0.72, routed_efficiency=0.64, overhead_s=0.0020,
    compute_flop_s=64e12, first_touch=1.5,
)  # fmt: skip
# 74.75 tok/s at c1 (ai-muninn), prefill 1.21 to 1.37 x Marlin and no first-touch penalty (vllm-project/vllm#49476).
B12X = replace(
    MARLIN, name="b12x", scheme="w4a4", linear_kernel="B12xNvFp4LinearKernel", moe_kernel="B12X",
    dense_efficiency=0.95, routed_efficiency=0.85, overhead_s=0.0003, compute_flop_s=62e12,
)  # fmt: skip

# 15.9-16.0 (c1), 62-63 (c10) tok/s: eugr/spark-vllm-docker#125 (VLLM_CUTLASS 0.18). Marlin 16-17: eugr#93. Prefill
# about 1130 tok/s (djangodevreng). Split of the 12 G active parameters between dense and routed: assumed.
SUPER_MARLIN = replace(
    MARLIN, name="super-marlin", checkpoint="nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4", always_read_gb=8.6,
    routed_gb=62.0, routed_share=22 / 512, state_gb=0.2, kv_bytes_per_token=8192, routed_efficiency=0.75,
    overhead_s=0.008, flop_per_token=24e9, attention_flop=131_072, compute_flop_s=30e12, kv_tokens=600_000,
    reasoning=True,
)  # fmt: skip
SUPER_CUTLASS = replace(
    SUPER_MARLIN, name="super-cutlass", scheme="w4a4", linear_kernel="CutlassNvFp4LinearKernel",
    moe_kernel="VLLM_CUTLASS", routed_efficiency=0.72, overhead_s=0.010, compute_flop_s=40e12, first_touch=1.5,
)  # fmt: skip
# 42.6 (c1), 133.4 (c5), 196.1 (c10) tok/s, prefill 6487: vLLM 0.26 + Marlin, djangodevreng. The checkpoint is W4A16.
QWEN = replace(
    MARLIN, name="qwen", checkpoint="nvidia/Qwen3.6-35B-A3B-NVFP4", always_read_gb=3.9, routed_gb=18.0,
    routed_share=8 / 256, state_gb=0.06, kv_bytes_per_token=20_480, dense_efficiency=0.85, routed_efficiency=0.68,
    overhead_s=0.0030, flop_per_token=6e9, attention_flop=163_840, compute_flop_s=48e12, reasoning=True,
)  # fmt: skip
# Nothing real: a tiny model on a fast machine, for tests and for trying a config without waiting.
FAST = replace(
    MARLIN, name="fast", checkpoint="sim/fast", always_read_gb=0.02, routed_gb=0.05, state_gb=0.0005,
    overhead_s=0.0001, flop_per_token=1e7, attention_flop=100, first_touch=1.0, kv_tokens=200_000, max_model_len=32_768,
    jitter=0.0,
)  # fmt: skip

PROFILES = {
    profile.name: profile
    for profile in (
        MARLIN,
        VLLM_CUTLASS,
        FLASHINFER_CUTLASS,
        B12X,
        SUPER_MARLIN,
        SUPER_CUTLASS,
        QWEN,
        FAST,
    )
}
