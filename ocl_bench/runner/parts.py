"""What other packages bring to a run."""

from ocl_bench.evaluate.evaluator import EVALUATORS
from ocl_bench.finetune import recipe
from ocl_bench.plugins import Plugin
from ocl_bench.registry import Registry
from ocl_bench.score import metrics
from ocl_bench.tasks.sources import SOURCES

# Each makes an executor of a `ocl_bench.runner.executors.Setting`.
EXECUTORS = Registry(
    "executor",
    {name: f"ocl_bench.runner.executors:_{name}" for name in ("local", "ray", "slurm")},
    needs=("__call__",),
)


def listed() -> list[tuple[Plugin, str]]:
    """Every part that is installed, and what is wrong with it: one sentence, empty if nothing is."""
    kinds = (SOURCES.plugins, metrics.PLUGINS, EVALUATORS.plugins, EXECUTORS.plugins, recipe.PLUGINS)
    return [one for plugins in kinds for one in plugins.listed()]
