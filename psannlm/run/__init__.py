"""Whole runs: a preset through papermill, the check of all evidence, one row measured again."""
