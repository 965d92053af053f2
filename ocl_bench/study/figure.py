"""The figure of a study, after the paper's."""

from pathlib import Path
from typing import Any

from ocl_bench.errors import counted
from ocl_bench.report.figures import COLUMN, GAPS, PAGE, SUBSETS, figure
from ocl_bench.score.metrics import main_metric
from ocl_bench.score.result import Gap, Value
from ocl_bench.study.mechanism import findings
from ocl_bench.study.mechanism_figure import draw_findings
from ocl_bench.study.run import PointResult, StudyResults

ACROSS, HEIGHT = 3, 2.4  # most panels side by side, and inches of each
SHIFT = 0.08  # so that the intervals of two gaps at one point do not hide each other


def draw(results: StudyResults, path: Path) -> None:
    """Draw a study: the main metric with 95 % intervals, a row for the questions and one for each evaluation set drawn.

    Args:
        results: the study's results.
        path: the picture; its ending decides the format.
    """
    study = results.study
    if study.figure == "mechanism":
        found = findings(results)
        with figure(path, PAGE, 2.4 * len(found)) as whole:
            draw_findings(whole, found, results)
            _entitle(whole, results)
        return
    sets = _sets(results)
    across = min(len(results.points), ACROSS) if study.figure == "subsets" else 1
    down = -(-len(results.points) // across) if study.figure == "subsets" else 1
    with figure(path, (COLUMN if study.figure == "gaps" else PAGE), HEIGHT * len(sets) * down) as drawn:
        axes = drawn.subplots(len(sets) * down, across, squeeze=False, sharey="row")
        for number, name in enumerate(sets):
            own = axes[number * down : (number + 1) * down].flat
            if study.figure == "gaps":
                _draw_gaps(own[0], results, name)
            else:
                for axis, point in zip(own, results.points, strict=False):
                    _draw_subsets(axis, point, name, _metric(results, name))
            asked = "questions" if name == "qa" else name
            own[0].set_ylabel(f"{asked}\n{'gap in ' * (study.figure == 'gaps')}{_metric(results, name)}")
            for axis in own[len(results.points) :] if study.figure == "subsets" else ():
                axis.remove()
        _entitle(drawn, results)


def _entitle(drawn: Any, results: StudyResults) -> None:
    study, seeds = results.study, len(results.points[0].seeds)
    tasks = " and ".join(dict.fromkeys(point.run.task for point in results.points))
    models = _models(results)
    model = models[0] if len(set(models)) == 1 else f"{len(set(models))} models"
    between = "\n" if drawn.get_figwidth() < PAGE else " · "
    drawn.suptitle(f"{study.study} · {tasks} · {model}{between}{counted(seeds, 'seed')}, mean and 95 % interval")


def _sets(results: StudyResults) -> list[str]:
    """The questions, and the paper's attribution `What is the name of X?` where it was asked."""
    first = results.points[0].results
    return [*(["qa"] if first.metrics else []), *(name for name in ("attribution/name",) if name in first.sets)]


def _models(results: StudyResults) -> list[str]:
    """The model of each point, without the folders that lead to it."""
    return [Path(point.results.model).name for point in results.points]


def _metric(results: StudyResults, name: str) -> str:
    """What a row is drawn of, the same at every point: what all of its subsets were measured by."""
    measured = [set(values) for point in results.points for values in _metrics(point, name).values()]
    return main_metric(set.intersection(*measured)).name


def _gaps(point: PointResult, name: str) -> dict[str, dict[str, Gap]]:
    return point.results.gaps if name == "qa" else point.results.sets[name].gaps


def _metrics(point: PointResult, name: str) -> dict[str, dict[str, Value]]:
    return point.results.metrics if name == "qa" else point.results.sets[name].metrics


def _draw_gaps(axis: Any, results: StudyResults, name: str) -> None:
    axis.axhline(0, color="black", linewidth=0.8)
    metric = _metric(results, name)
    for number, (gap, (colour, marker)) in enumerate(GAPS.items()):
        found = [
            (x, _gaps(point, name)[gap][metric]) for x, point in enumerate(results.points) if gap in _gaps(point, name)
        ]
        places = [x + (number - 0.5) * SHIFT for x, _ in found]
        means = [value.mean for _, value in found]
        errors = [
            [value.mean - value.ci95[0] for _, value in found],
            [value.ci95[1] - value.mean for _, value in found],
        ]
        line = "-" if results.study.ordered else "none"
        axis.errorbar(places, means, errors, color=colour, marker=marker, linestyle=line, capsize=3, label=gap)
    labels, models = [point.run.label for point in results.points], _models(results)
    if len(set(models)) > 1:
        labels = [f"{label}\n{model}" for label, model in zip(labels, models, strict=True)]
    axis.set_xticks(range(len(labels)), labels)
    axis.set_xlabel(results.study.axis)
    axis.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))


def _draw_subsets(axis: Any, point: PointResult, name: str, metric: str) -> None:
    metrics = {subset: values[metric] for subset, values in _metrics(point, name).items()}
    for place, (subset, value) in enumerate(metrics.items()):
        errors = [[value.mean - value.ci95[0]], [value.ci95[1] - value.mean]]
        axis.bar(place, value.mean, yerr=errors, color=SUBSETS[subset], capsize=3)
        if value.chance is not None:
            axis.plot([place - 0.45, place + 0.45], [value.chance] * 2, color="black", linestyle=":", linewidth=1)
    axis.set_xticks(range(len(metrics)), metrics, rotation=40, ha="right")
    axis.set(title=point.run.label, ylim=(0, 1))
