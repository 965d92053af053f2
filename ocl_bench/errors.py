"""The errors a user can cause. Each is one sentence: what is wrong, where, what to do."""

import difflib
from collections.abc import Iterable


class OclBenchError(Exception):
    """A mistake in the input that one sentence explains; the command line prints it and exits with code 2."""

    exit_code = 2


class RunFailed(OclBenchError):
    """Training or evaluation failed although the input was right, and can be continued; exit code 3."""

    exit_code = 3


class Diverged(RunFailed):
    """A model's outputs are no longer numbers."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say which known names are nearest to `name`, or list them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(match) for match in near)}?"
    return f"known: {', '.join(known)}" if known else "none is known"


def first_line(said: Exception | str) -> str:
    """The first line of an error or of its text; an error that says nothing is told by its type."""
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    return (lines or ["no reason given" if isinstance(said, str) else type(said).__name__])[0]


def first_clause(said: Exception | str) -> str:
    """The same without a full stop, to go on from or to put into brackets."""
    return first_line(said).rstrip(".")
