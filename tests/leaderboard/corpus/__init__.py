"""Hostile inputs of the board, each with what must come of it. `test_corpus.py` runs them all."""
