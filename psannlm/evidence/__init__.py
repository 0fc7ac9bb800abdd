"""Reporting: run folders, tables, figures, what notebooks show, and the runner of notebooks."""
