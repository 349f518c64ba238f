"""Record top-20 logprobs of a small model in several states of health and damage on a CUDA GPU.

    python -m tests.study.record_gpu MODEL.gguf OUT.json.xz

Wants torch with CUDA, transformers and gguf, which the project itself does not install; `data/gpu.json.xz` is what it
wrote. The same 20 texts as `data/logprobs.json.xz`, in the same format. Healthy states differ by kernel and arithmetic
only: attention kernels, a batch of other texts, float16, TF32, float32, fused kernels; NVFP4 is emulated in
every linear layer but the head (E2M1 values, one E4M3 scale per 16 values, one float32 scale per tensor).
"""

import json
import lzma
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
TOP = 20
UNIT = 1e-4  # nats
GRID = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # what E2M1 can hold
BLOCK = 16
LAYER = 10  # the damaged one of 30
Logits = Callable[[list[list[int]]], list[Any]]


def main() -> None:
    """Record every state and write the file."""
    gguf, out = Path(sys.argv[1]), Path(sys.argv[2])
    texts = json.loads(lzma.decompress((HERE / "data" / "logprobs.json.xz").read_bytes()))["tokens"]
    exact = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    exact = exact.to(torch.bfloat16).to(torch.float32).cuda().eval()  # what a bf16 checkpoint holds
    runs = {}
    for name, state in states(exact):
        try:
            with torch.inference_mode(), state as logits:
                runs[name] = columns(texts, logits(texts))
        except RuntimeError as problem:  # a kernel that this GPU or this torch has not
            print(f"{name}: left out, {str(problem).splitlines()[0]}", flush=True)
            continue
        likely = [value for text in runs[name]["own"] for value in text]
        print(f"{name}: {-sum(likely) / len(likely) * UNIT:.4f} nats per token", flush=True)
    facts = {"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__}
    out.write_bytes(lzma.compress(json.dumps({"facts": facts, "tokens": texts, "runs": runs}).encode(), preset=9))


def columns(texts: list[list[int]], answers: list[Any]) -> dict[str, Any]:
    """Per text and position: the token's own logprob, the ids of the most likely tokens, their logprobs."""
    found: dict[str, Any] = {"own": [], "ids": [], "top": []}
    for ids, logits in zip(texts, answers, strict=True):
        logprobs = torch.log_softmax(logits[: len(ids) - 1].double(), dim=-1)
        own = logprobs.gather(1, torch.tensor(ids[1:], device=logprobs.device)[:, None])[:, 0]
        top = logprobs.topk(TOP, dim=-1)
        found["own"].append([round(v / UNIT) for v in own.tolist()])
        found["ids"].append(top.indices.tolist())
        found["top"].append([[round(v / UNIT) for v in row] for row in top.values.tolist()])
    return found


# --- states ---


def states(exact: Any) -> Iterator[tuple[str, Any]]:
    """Name and context of each state; the context gives what turns texts into logits."""
    bf16 = torch.bfloat16
    yield "bf16", served(exact, bf16)
    yield "again", served(exact, bf16)
    for name, kernel in (
        ("math", SDPBackend.MATH),
        ("flash", SDPBackend.FLASH_ATTENTION),
        ("efficient", SDPBackend.EFFICIENT_ATTENTION),
        ("cudnn", SDPBackend.CUDNN_ATTENTION),
    ):
        yield f"attention {name}", served(exact, bf16, within=lambda kernel=kernel: sdpa_kernel(kernel))
    yield "batch of 20", served(exact, bf16, together=True)
    yield "compiled", served(exact, bf16, compiled=True)
    yield "float16", served(exact, torch.float16)
    yield "tf32", served(exact, torch.float32, within=tf32)
    yield "float32", served(exact, torch.float32)
    for share in (0.005, 0.02, 0.05, 0.1):
        yield f"n{share:g}", served(noisy(exact, share), bf16)
    yield "one layer's down_proj × 1.1", served(scaled(exact, 1.1), bf16)
    yield "one layer's down_proj × 1.25", served(scaled(exact, 1.25), bf16)
    for scheme, activations in (("w4a16", False), ("w4a4", True)):
        yield f"nvfp4/{scheme}", served(quantised(exact, activations), bf16)
        yield f"nvfp4/{scheme}_f32", served(quantised(exact, activations), torch.float32)
        yield f"nvfp4/{scheme}_batch", served(quantised(exact, activations), bf16, together=True)
        yield f"nvfp4/{scheme}_compiled", served(quantised(exact, activations), bf16, compiled=True)
        yield f"nvfp4/{scheme}_bad_scale_1layer", served(quantised(exact, activations, times=1.25), bf16)
        yield f"nvfp4/{scheme}_swapped_scales_1layer", served(quantised(exact, activations, swap=True), bf16)
    yield "nvfp4/w4a4_bad_act_1layer", served(quantised(exact, True, act_times=1.25), bf16)
    yield "nvfp4/w16a16", served(exact, bf16)


@contextmanager
def served(
    exact: Any,
    dtype: Any,
    within: Callable[[], Any] = nullcontext,
    *,
    together: bool = False,
    compiled: bool = False,
) -> Iterator[Logits]:
    """The model in one arithmetic, asked text by text or with all texts side by side."""
    model = copied(exact).to(dtype)
    run = torch.compile(model, dynamic=True) if compiled else model

    def logits(texts: list[list[int]]) -> list[Any]:
        with within():
            if not together:
                return [run(torch.tensor([ids], device="cuda")).logits[0].float() for ids in texts]
            longest = max(map(len, texts))
            ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts], device="cuda")
            mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts], device="cuda")
            return [row.float() for row in run(ids, attention_mask=mask).logits]

    yield logits


@contextmanager
def tf32() -> Iterator[None]:
    """Let float32 products round their factors to 10 bits, as tensor cores do."""
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


def copied(model: Any) -> Any:
    """A model of its own, with the hooks of emulation kept."""
    import copy

    return copy.deepcopy(model)


def linears(model: Any) -> Iterator[tuple[str, Any]]:
    """Every linear layer but the head."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name:
            yield name, module


def noisy(exact: Any, share: float) -> Any:
    """Gaussian noise of a share of its own root mean square on every matrix."""
    model, dice = copied(exact), torch.Generator(device="cuda").manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                noise = torch.randn(weight.shape, generator=dice, device="cuda")
                weight += noise * share * weight.pow(2).mean().sqrt()
    return model


def scaled(exact: Any, times: float) -> Any:
    """One layer's output scaled: a wrong global scale."""
    model = copied(exact)
    with torch.no_grad():
        model.model.layers[LAYER].mlp.down_proj.weight *= times
    return model


# --- NVFP4 ---


def quantised(exact: Any, activations: bool, *, times: float = 1.0, swap: bool = False, act_times: float = 1.0) -> Any:
    """NVFP4 in every linear layer but the head; `times` and `swap` damage one layer's block scales."""
    model = copied(exact)
    with torch.no_grad():
        for name, layer in linears(model):
            damaged = f".{LAYER}.mlp.down_proj" in name
            layer.weight.copy_(rounded(layer.weight, times if damaged else 1.0, swap and damaged))
            if activations:
                wrong = act_times if damaged else 1.0
                layer.register_forward_pre_hook(lambda _, args, wrong=wrong: (rounded(args[0], wrong), *args[1:]))
    return model


def rounded(values: Any, times: float = 1.0, swap: bool = False) -> Any:
    """To NVFP4 and back, along the last axis, rounding to nearest."""
    exact = values.float().reshape(-1, BLOCK)
    whole = exact.abs().amax().clamp(min=1e-12) / (448.0 * 6.0)
    scale = (exact.abs().amax(dim=1, keepdim=True) / 6.0 / whole).to(torch.float8_e4m3fn).float() * whole
    grid = torch.tensor(GRID, device=exact.device)
    size = exact.abs() / scale.clamp(min=1e-20)
    nearest = grid[torch.bucketize(size, (grid[1:] + grid[:-1]) / 2)]
    if swap:
        scale = scale.reshape(-1, 2).flip(1).reshape(-1, 1)
    return (exact.sign() * nearest * scale * times).reshape(values.shape).to(values.dtype)


if __name__ == "__main__":
    main()
