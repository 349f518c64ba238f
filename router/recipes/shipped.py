"""The recipes in `deploy/`: written by this module, so that they can't drift from the tables.

`python -m router.recipes.shipped DIRECTORY` writes them again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from router.recipes.models import MODELS, Model
from router.recipes.recipe import Recipe, Wish, plan
from router.recipes.write import compose, fleet
from router.vllm.kernels import Kernel, Version

NEWEST = Version(0, 33)
NANO, SUPER, QWEN, LIGHTNING = MODELS
COMPARED = (Kernel.MARLIN, Kernel.VLLM_CUTLASS, Kernel.FLASHINFER_CUTLASS)
RECIPES: dict[str, tuple[Model, tuple[Kernel, ...]]] = {
    "nemotron-3-nano-30b.yaml": (NANO, COMPARED),
    "nemotron-3-nano-30b-marlin.yaml": (NANO, (Kernel.MARLIN,)),
    "nemotron-3-super-120b-marlin.yaml": (SUPER, (Kernel.MARLIN,)),
    "nemotron-3-super-120b-vllm-cutlass.yaml": (SUPER, (Kernel.VLLM_CUTLASS,)),
    "nemotron-3-super-120b-flashinfer-cutlass.yaml": (SUPER, (Kernel.FLASHINFER_CUTLASS,)),
    "qwen3.6-35b-marlin.yaml": (QWEN, (Kernel.MARLIN,)),
    "nemotron-3.5-lightning-30b-marlin.yaml": (LIGHTNING, (Kernel.MARLIN,)),
}


def recipe(model: Model, kernels: tuple[Kernel, ...]) -> Recipe:
    """Plan one of the recipes below."""
    return plan(Wish(model, kernels, NEWEST, tuple(range(8000, 8000 + len(kernels)))))


def shipped() -> dict[str, str]:
    """Return every written file, by its path in `deploy/`."""
    files = {f"recipes/{name}": compose(recipe(*what), inline=True) for name, what in RECIPES.items()}
    three = recipe(NANO, COMPARED)
    files["compose.yaml"] = compose(three, prometheus=True, build="..")
    files["fleet/fleet.yaml"] = fleet(three, in_containers=True)
    return files


if __name__ == "__main__":
    for path, text in shipped().items():
        target = Path(sys.argv[1] if len(sys.argv) > 1 else "deploy", path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(target)
