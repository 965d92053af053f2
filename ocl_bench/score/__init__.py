"""From answers to samples, accuracies and gaps, with intervals.

`ocl_bench.score` is this package, and a function to call: no two things can have that one name.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocl_bench.api import RunResult


class _Scores(ModuleType):
    def __call__(self, folder: "Path | str") -> "RunResult":
        """Score a run again from its answers; see `ocl_bench.api.score`."""
        from ocl_bench import api

        return api.score(folder)


sys.modules[__name__].__class__ = _Scores
