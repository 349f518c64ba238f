"""A simulated vLLM: a batching engine and its HTTP surface."""
