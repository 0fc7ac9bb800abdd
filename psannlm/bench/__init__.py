"""Measuring: the machine, the clock, the cells of a measurement and what their samples mean."""
