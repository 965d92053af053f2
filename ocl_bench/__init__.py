"""ocl-bench: does a model, while it is trained, learn which sources to believe?

`ocl_bench.run(model=…, task=…, seeds=…)` does what `ocl-bench run` does. Importing this package imports no torch.
"""

from typing import TYPE_CHECKING, Any

from ocl_bench.errors import OclBenchError

if TYPE_CHECKING:
    from ocl_bench.api import RunResult, evaluate_checkpoint, load_results, load_task, plan, run, run_tasks

__all__ = ["OclBenchError", "RunResult", "evaluate_checkpoint", "load_results", "load_task", "plan", "run", "run_tasks"]


def __getattr__(name: str) -> Any:
    # Imported on first use, so that the command line answers `--help` at once.
    if name in __all__:
        from ocl_bench import api

        return getattr(api, name)
    raise AttributeError(f"module 'ocl_bench' has no attribute '{name}'")
