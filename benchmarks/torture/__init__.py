"""Faults injected into real runs: `python -m torture` from this folder's parent."""
