"""ocl-bench: does a model, while it is trained, learn which sources to believe?

`ocl_bench.run(model=…, task=…, seeds=…)` does what `ocl-bench run` does. Importing this package imports no torch.
"""

from ocl_bench.api import RunResult, load_results, load_task, run
from ocl_bench.errors import OclBenchError

__all__ = ["OclBenchError", "RunResult", "load_results", "load_task", "run"]
