"""A comparison as a picture: a forest of intervals."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocl_bench.report.figures import MARKERS, PAGE, PALETTE, figure

if TYPE_CHECKING:
    from ocl_bench.report.comparison import ComparedGap, Comparison

SPREAD = 0.5  # of the height of a gap's row, over which its runs are spread


def plot_comparison(comparison: "Comparison", path: Path) -> Path:
    """Draw each gap of each run on the left, each difference from the first run on the right; see `Comparison.plot`."""
    runs, names = comparison.runs, list(dict.fromkeys(one.name for one in comparison))
    height = 1.0 + len(names) * (0.2 + 0.12 * len(runs)) + 0.15 * len(runs)
    with figure(path, PAGE, height) as drawn:
        left, right = drawn.subplots(1, 2, sharey=True)
        for one in comparison:
            order = runs.index(one.run)
            y = names.index(one.name) + SPREAD * (order / max(1, len(runs) - 1) - 0.5)
            _mark(left, one, order, y, one.gap.mean, one.gap.ci95)
            if one.difference is not None:
                _mark(right, one, order, y, one.difference.mean, one.difference.ci95)
        first = comparison.runs[0].name
        for axis, title in ((left, comparison.metric), (right, f"{comparison.metric}, minus {first}")):
            axis.axvline(0, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
            axis.set_title(title)
            axis.spines["left"].set_visible(False)
            axis.tick_params(axis="y", length=0)
        left.set_yticks(range(len(names)), names)
        left.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        handles, labels = left.get_legend_handles_labels()
        shown = dict(zip(labels, handles, strict=True))
        drawn.legend(shown.values(), shown, loc="outside lower left")
        about = comparison.runs[0].results
        drawn.suptitle(f"{about.task} (version {about.task_version}): means and 95 % intervals")
    return path


def _mark(
    axis: Any, one: "ComparedGap", order: int, y: float, mean: float, interval: tuple[float, float] | None
) -> None:
    colour = PALETTE[order % len(PALETTE)]
    if interval is not None:
        axis.plot(interval, (y, y), color=colour, solid_capstyle="butt")
    label = f"{one.run.name}  {one.run.results.model}".replace("$", r"\$")
    axis.plot([mean], [y], MARKERS[order % len(MARKERS)], color=colour, label=label)
