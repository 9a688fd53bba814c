"""Autoregressive decoding: models that write, how they choose, and when they stop. Knows nothing of sparse encoding."""
