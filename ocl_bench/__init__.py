"""ocl-bench: does a model, while it is trained, learn which sources to believe?

`ocl_bench.run(model=…, task=…, seeds=…)` does what `ocl-bench run` does. Importing this package imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ocl_bench.errors import OclBenchError

if TYPE_CHECKING:
    from ocl_bench.api import (
        RunResult,
        compare,
        evaluate_checkpoint,
        load,
        load_leaderboard,
        load_task,
        plan,
        run,
        run_tasks,
        samples,
    )

__all__ = [
    "OclBenchError", "RunResult", "compare", "evaluate_checkpoint", "load", "load_leaderboard", "load_task", "plan",
    "run", "run_tasks", "samples", "score",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Imported on first use, so that the command line answers `--help` at once.
    if name == "score":  # a package of this name, which can be called
        return import_module("ocl_bench.score")
    if name in __all__:
        return getattr(import_module("ocl_bench.api"), name)
    raise AttributeError(f"module 'ocl_bench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
