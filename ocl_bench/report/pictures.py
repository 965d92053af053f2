"""Every picture of a run, in its folder; and the figure of results that a study or the toy world left."""

import json
from pathlib import Path

from ocl_bench.errors import OclBenchError
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


def draw_results(results: Path, path: Path | None = None) -> Path:
    """Draw the figure of a study's, or the toy world's, results again.

    Args:
        results: the JSON file.
        path: the picture, beside the results if None; its ending decides the format.

    Raises:
        OclBenchError: if they are not such results, or the picture cannot be written.
    """
    from ocl_bench.study import figure as study
    from ocl_bench.study.run import read_study_results
    from ocl_bench.toy import figure as toy
    from ocl_bench.toy.run import read_toy_results

    path = path or results.with_suffix(".png")
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OclBenchError(f"{results}: not results of a study or of the toy world ({error}).") from None
    if isinstance(found, dict) and "learners" in found:
        toy.draw(read_toy_results(results), path)
    else:
        study.draw(read_study_results(results), path)
    return path
