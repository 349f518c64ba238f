"""What vLLM says about itself, as values."""
