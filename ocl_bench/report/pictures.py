"""Every picture of a run, in its folder."""

from pathlib import Path

from ocl_bench.report.gradients import plot_gradients
from ocl_bench.report.plots import plot_run
from ocl_bench.report.probes import plot_probes
from ocl_bench.runner.manifest import read_manifest


def draw(folder: Path) -> dict[str, Path]:
    """Draw what a finished run has to show: what a picture shows → where it is."""
    config = read_manifest(folder).config
    drawn = {}
    if config.curves:
        drawn["learning curves"] = plot_run(folder)
    if config.task.evaluate.probes is not None:
        drawn["probes"] = plot_probes(folder)
    if config.task.evaluate.gradients is not None:
        drawn["gradients"] = plot_gradients(folder)
    return drawn
