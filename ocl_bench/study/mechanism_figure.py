"""The figure of a study of mechanisms: each predictor along the axis, and beside the gap of every seed."""

from typing import Any

import numpy as np

from ocl_bench.report.figures import GREY, MARKERS, PALETTE
from ocl_bench.study.mechanism import Found
from ocl_bench.study.run import StudyResults


def draw_findings(figure: Any, found: list[Found], results: StudyResults) -> None:
    """A row for each predictor: its mean and 95 % interval at each point; and its values beside the gaps of seeds."""
    has_gap = any(point.gap for one in found for point in one.points)
    axes = figure.subplots(len(found), 1 + has_gap, squeeze=False)
    for row, one in zip(axes, found, strict=True):
        _along(row[0], one, results)
        if has_gap:
            _beside(row[1], one)
    if has_gap:
        axes[0][1].legend(title=results.study.axis)


def _along(axis: Any, found: Found, results: StudyResults) -> None:
    axis.axhline(found.predictor.nothing, color="black", linewidth=0.8, linestyle=":")
    for place, point in enumerate(found.points):
        values = list(point.per_seed.values())
        spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
        axis.plot(place + np.array(spread), values, ".", color=GREY, markersize=4)
        if point.estimate is not None:
            low, high = point.estimate.ci95
            mean = point.estimate.mean
            colour, marker = _style(place)
            axis.errorbar(place, mean, [[mean - low], [high - mean]], color=colour, marker=marker, capsize=3)
    axis.set_xticks(range(len(found.points)), [point.label for point in found.points])
    axis.set_xlabel(results.study.axis)
    axis.set_title(f"{found.predictor.name} ({found.predictor.unit})")


def _beside(axis: Any, found: Found) -> None:
    for place, point in enumerate(found.points):
        seeds = [seed for seed in point.per_seed if seed in point.gap]
        colour, marker = _style(place)
        x, y = [point.per_seed[seed] for seed in seeds], [point.gap[seed] for seed in seeds]
        axis.plot(x, y, marker, color=colour, markersize=4, alpha=0.8, label=point.label)
    if found.correlation is not None:
        r, (low, high) = found.correlation
        axis.set_title(f"r within points {r:+.2f} [{low:+.2f}, {high:+.2f}], n {found.n}")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.axvline(found.predictor.nothing, color="black", linewidth=0.8, linestyle=":")
    axis.locator_params(axis="x", nbins=5)
    axis.set_xlabel(found.predictor.unit)
    axis.set_ylabel("meta_ocl_gap")


def _style(place: int) -> tuple[str, str]:
    return PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
