"""Whether the networks do what they say: checks with bounds, run on the device at hand."""
