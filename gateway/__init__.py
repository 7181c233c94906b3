"""An LLM gateway: one OpenAI-compatible door to every provider, decided by one gateway.yaml."""

__version__ = "0.1.0"
