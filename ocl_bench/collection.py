"""Python's search for unreachable cycles of objects, and doing without it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Do without the search for cycles while very many objects are made that have none, as records and imports do.

    It would look through all of them again and again: of 10^5 that takes a third of the time, of more a larger share.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
