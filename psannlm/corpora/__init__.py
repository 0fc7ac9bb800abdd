"""Corpora: text fetched, read, cleaned, and split by documents."""
