"""The pages of the report: what each measures, its tables, its sentences, its figures."""
