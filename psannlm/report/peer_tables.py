"""The tables of the comparison with the published package, from records to rows."""

PEER = (
    "timestamp", "side", "base", "setting", "work", "precision", "batch_tokens", "context_length",
    "value", "value_low", "value_high", "unit", "ratio", "ratio_low", "ratio_high", "verdict",
    "noise_floor", "n_ok", "n_failed", "status", "reason", "choices", "n_parameters", "device",
)  # fmt: skip
"""Of peer.csv: one row a side, base, setting, work and precision. `value` is tokens/s, or MiB of
work `saved`; `ratio` is ours to the published package's, paired by block, on rows of ours."""

PROTOCOL = (
    "timestamp", "check", "side", "base", "batch_tokens", "context_length", "measure", "value",
    "unit", "status", "reason", "device",
)  # fmt: skip
"""Of protocol.csv: what the original's own protocol gives here, one row a measure."""
