"""Whether a number can be believed: checks before, after and beside a run, and the word that follows from them."""
