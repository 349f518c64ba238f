"""One OpenAI-compatible URL in front of every vLLM server on one or more DGX Sparks."""

from importlib.util import find_spec

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Whether a call's way runs compiled (`deploy/compile.py`) or as the Python that it is written in."""
    spec = find_spec("router.exchange")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
