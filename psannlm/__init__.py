"""The compact core of the PSANN-LM benchmark report: networks, measurements, evidence, pages.

config  what a run is asked to do
model   the networks under test, what they cost by construction, how they decode
bench   the machine, the clock, the cells of a measurement, what the samples mean
report  run folders, tables, figures, the runner, the book
"""

__version__ = "0.1.0"
