"""The models that recipes know: size, quantisation and the flags they need, each figure with its public source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from router.vllm.kernels import Scheme, Version


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint, and what `vllm serve` has to be told about it.

    Attributes:
        name: its name on Hugging Face, which is also what clients ask for.
        weights_gib: GiB of its weights once they are loaded (their size on disk where nobody measured it).
        scheme: how the checkpoint is quantised; None where that is not known.
        since: the first vLLM that serves it on a Spark.
        flags: words for `vllm serve`, beside kernel, memory, port and context.
        context: tokens of prompt and answer together that fit one call (`--max-model-len`).
        sequences: calls that run at once (`--max-num-seqs`).
        moe: whether it has experts.
        squared_relu: whether its experts are not gated and use ReLU².
        loads_in_s: seconds from start to ready on a Spark, the upper end of what was reported.
        sources: where all of this is from.
    """

    name: str
    weights_gib: float
    scheme: Scheme | None
    since: Version
    flags: tuple[str, ...] = ()
    context: int = 32768
    sequences: int = 8
    moe: bool = True
    squared_relu: bool = False
    loads_in_s: float = 1200.0
    sources: tuple[str, ...] = ()

    @property
    def short_name(self) -> str:
        """Its name without owner, precision and case: what a directory or a project may be called."""
        bare = self.name.rsplit("/", 1)[-1].removeprefix("NVIDIA-").removesuffix("-NVFP4")
        return bare.lower().replace(".", "-").replace("_", "-")


TOOLS = ("--enable-auto-tool-choice", "--tool-call-parser")
MODELS = (
    Model(
        name="nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4",
        weights_gib=17.7,
        scheme=Scheme.W4A4,
        since=Version(0, 17, 1),
        flags=(
            "--trust-remote-code",
            *("--kv-cache-dtype", "fp8"),
            *(*TOOLS, "qwen3_coder"),
            *("--reasoning-parser", "nemotron_v3"),
        ),
        context=131072,
        sequences=8,
        squared_relu=True,
        sources=(
            "19 GB on disk, 32.1 GB used in all: Sggin1/DGX-SPARK nvfp4-guide",
            "flags: eugr/spark-vllm-docker recipes/nemotron-3-nano-nvfp4.yaml; nemotron_v3 is built in from 0.17.1",
        ),
    ),
    Model(
        name="nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4",
        weights_gib=70.3,
        scheme=Scheme.W4A4,
        since=Version(0, 17, 1),
        flags=(
            "--trust-remote-code",
            *("--kv-cache-dtype", "fp8"),
            *("--mamba-ssm-cache-dtype", "float32"),
            *(*TOOLS, "qwen3_xml"),
            *("--reasoning-parser", "nemotron_v3"),
        ),
        context=131072,
        sequences=4,
        squared_relu=True,
        loads_in_s=1800.0,
        sources=(
            "75 GB: vllm-project/recipes models/nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16.yaml (nvfp4)",
            "context, sequences: vllm.ai/blog/2026-06-01-vllm-dgx-spark; utilization 0.85: vllm-project/recipes#632",
            "float32 state: docs.nvidia.com/nemotron, Nemotron-3-Super SparkDeploymentGuide",
        ),
    ),
    Model(
        name="nvidia/Qwen3.6-35B-A3B-NVFP4",
        weights_gib=21.8,
        scheme=Scheme.W4A16,
        since=Version(0, 24),
        flags=(
            "--trust-remote-code",
            *("--kv-cache-dtype", "fp8"),
            "--enable-prefix-caching",
            *(*TOOLS, "qwen3_coder"),
            *("--reasoning-parser", "qwen3"),
        ),
        context=131072,
        sequences=8,
        sources=(
            "21.8 GiB of shards, scheme and flags: vllm-project/recipes models/Qwen/Qwen3.6-35B-A3B.yaml (nvfp4)",
            "weight-only, always Marlin on SM12x by itself: v0.33 oracle/nvfp4.py:200",
        ),
    ),
    Model(
        name="nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4",
        weights_gib=17.3,
        scheme=Scheme.W4A16,
        since=Version(0, 27, 1),
        flags=(
            *("--kv-cache-dtype", "fp8"),
            *("--mamba-backend", "flashinfer"),
            *("--mamba-cache-mode", "align"),
            "--enable-prefix-caching",
            *(*TOOLS, "qwen3_xml"),
            *("--reasoning-parser", "nemotron_v3"),
        ),
        context=131072,
        sequences=8,
        squared_relu=True,
        sources=(
            "18 GB, W4A16, flags: vllm-project/recipes models/nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-BF16.yaml",
            "Marlin on a Spark: vllm-project/recipes#879",
        ),
    ),
)


def find(name: str, models: Iterable[Model] = MODELS) -> Model | None:
    """Return the model of that name; owner and case may be left out, and any part of the name that only one has."""
    wanted, models = name.lower(), tuple(models)
    exact = [one for one in models if wanted in (one.name.lower(), one.name.lower().split("/")[-1], one.short_name)]
    partial = [one for one in models if wanted in one.name.lower()]
    if exact or len(partial) == 1:
        return (exact or partial)[0]
    return None


def near(name: str, models: Iterable[Model] = MODELS) -> tuple[str, ...]:
    """Return the names of known models that may be meant."""
    known = {one.short_name: one.name for one in models}
    return tuple(known[short] for short in get_close_matches(name.lower().split("/")[-1], known, n=3, cutoff=0.4))
