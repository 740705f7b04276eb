"""The store: one SQLite file of all that was measured. No torch here, so that a stored result is printed at once."""
