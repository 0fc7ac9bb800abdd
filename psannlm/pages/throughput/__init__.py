"""Throughput: tokens per second of every base, forward pass and training step."""
