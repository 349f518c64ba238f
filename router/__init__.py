"""One OpenAI-compatible URL in front of every vLLM server on one or more DGX Sparks."""

__version__ = "0.1.0"
