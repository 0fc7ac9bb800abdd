"""Publishing: run folders, tables, figures, the runner of notebooks and the pages of the book."""
