"""What other packages bring to a run."""

from ocl_bench.evaluate.evaluator import EVALUATORS
from ocl_bench.finetune import recipe
from ocl_bench.plugins import Plugin
from ocl_bench.runner.executors import EXECUTORS
from ocl_bench.score import metrics
from ocl_bench.tasks.sources import SOURCES


def listed() -> list[tuple[Plugin, str]]:
    """Every part that is installed, and what is wrong with it: one sentence, empty if nothing is."""
    kinds = (SOURCES.plugins, metrics.PLUGINS, EVALUATORS.plugins, EXECUTORS.plugins, recipe.PLUGINS)
    return [one for plugins in kinds for one in plugins.listed()]
