"""Validation: whether the networks do what they say, check by check."""
