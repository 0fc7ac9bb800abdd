"""The networks under test: what they compute, what they cost by construction, how they decode."""
