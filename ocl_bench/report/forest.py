"""A comparison as a picture: a forest of intervals."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocl_bench.errors import OclBenchError

if TYPE_CHECKING:
    from ocl_bench.report.comparison import ComparedGap, Comparison

# Okabe and Ito's, which colour-blind people can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
MARKERS = "os^Dv<>"
SPREAD = 0.5  # of the height of a gap's row, over which its runs are spread


def plot_comparison(comparison: "Comparison", path: Path) -> Path:
    """Draw each gap of each run on the left, each difference from the first run on the right; see `Comparison.plot`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs, names = comparison.runs, list(dict.fromkeys(one.name for one in comparison))
    height = 1.2 + len(names) * (0.2 + 0.14 * len(runs)) + 0.2 * len(runs)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, height), sharey=True, layout="constrained")
    for one in comparison:
        order = runs.index(one.run)
        y = names.index(one.name) + SPREAD * (order / max(1, len(runs) - 1) - 0.5)
        _mark(left, one, order, y, one.gap.mean, one.gap.ci95)
        if one.difference is not None:
            _mark(right, one, order, y, one.difference.mean, one.difference.ci95)
    first = comparison.runs[0].name
    for axis, title in ((left, comparison.metric), (right, f"{comparison.metric}, minus {first}")):
        axis.axvline(0, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.tick_params(labelsize=9)
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)  # the first on top
    handles, labels = left.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    figure.legend(shown.values(), shown, fontsize=8, frameon=False, loc="outside lower left")
    about = comparison.runs[0].results
    figure.suptitle(f"{about.task} (version {about.task_version}): means and 95 % intervals", fontsize=10)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise OclBenchError(f"{path}: the picture cannot be written ({error}).") from None
    finally:
        pyplot.close(figure)
    return path


def _mark(
    axis: Any, one: "ComparedGap", order: int, y: float, mean: float, interval: tuple[float, float] | None
) -> None:
    colour = COLOURS[order % len(COLOURS)]
    if interval is not None:
        axis.plot(interval, (y, y), color=colour, linewidth=1.6, solid_capstyle="butt")
    label = f"{one.run.name}  {one.run.results.model}".replace("$", r"\$")
    axis.plot([mean], [y], MARKERS[order % len(MARKERS)], color=colour, markersize=5, label=label)
