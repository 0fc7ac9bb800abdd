"""Tiny corpus: a training on real text from end to end."""
