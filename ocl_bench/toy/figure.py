"""The toy study as a table and a figure."""

from pathlib import Path
from typing import Any

from tabulate import tabulate

from ocl_bench.report.figures import BLUE, GREY, PAGE, VERMILION, figure
from ocl_bench.report.tables import number
from ocl_bench.toy.run import Measured, ToyResults

BARS = {"after_triangle": BLUE, "after_square": VERMILION, "untold": GREY}
ERRORS = {"after_triangle": "triangle told", "after_square": "square told", "untold": "untold"}
GAPS = {"meta_ocl_gap": (VERMILION, "s"), "control": (GREY, "o")}


def toy_table(results: ToyResults, format: str = "simple") -> str:
    """A row for each learner: errors, gaps, intervals, p and seeds; below it what a reader has to know."""
    rows = [
        [
            name,
            *(number(getattr(one, error).mean) for error in ERRORS),
            *(_with_interval(gap) for gap in (one.use, one.meta_ocl_gap)),
            _p(one.meta_ocl_gap),
            _with_interval(one.control),
            _p(one.control),
            _with_interval(one.ocl_gap),
            _p(one.ocl_gap),
            len(results.seeds),
        ]
        for name, one in results.learners.items()
    ]
    headers = [
        "learner", *ERRORS.values(), "use [95 %]", "meta_ocl_gap [95 %]", "p", "control [95 %]", "p", "ocl_gap [95 %]",
        "p", "seeds",
    ]  # fmt: skip
    table = tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)
    return (
        f"{table}\n\n"
        f"note: squared errors of {results.questions} questions of the middle, each asked after a triangle and after a "
        f"square\nnote: the best constant has an error of {number(results.chance.mean)}\n"
        "note: use is untold − the mean of the two told; where it is not above 0, a gap of 0 says nothing\n"
        "note: control is the meta_ocl_gap with alpha .5, where neither kind is more reliable\n"
        "note: ocl_gap is of the dimension held back in X1: squared distance from what false definitions tell − from y"
    )


def draw(results: ToyResults, path: Path) -> None:
    """Draw errors after a triangle, a square and nothing, and the gaps, of each learner, with 95 % intervals.

    Args:
        results: the study's results.
        path: the picture; its ending decides the format.
    """
    names = list(results.learners)
    with figure(path, PAGE, 2.6) as drawn:
        axes = drawn.subplots(1, 2)
        for shift, (error, colour) in enumerate(BARS.items()):
            found: list[Measured] = [getattr(one, error) for one in results.learners.values()]
            places = [place + (shift - 1) * 0.27 for place in range(len(names))]
            axes[0].bar(
                places, [one.mean for one in found], 0.25, yerr=_whiskers(found), color=colour, capsize=2,
                label=ERRORS[error],
            )  # fmt: skip
        axes[0].axhline(results.chance.mean, color="black", linestyle=":", linewidth=1, label="best constant")
        axes[0].set_ylabel("squared error of circles in X2")
        for shift, (gap, (colour, marker)) in enumerate(GAPS.items()):
            found = [getattr(one, gap) for one in results.learners.values()]
            label = "control: alpha .5" if gap == "control" else f"{gap}: alpha {results.settings.alpha:g}"
            axes[1].errorbar(
                [place + (shift - 0.5) * 0.15 for place in range(len(names))], [one.mean for one in found],
                _whiskers(found), color=colour, marker=marker, linestyle="none", capsize=3, label=label,
            )  # fmt: skip
        axes[1].axhline(0, color="black", linewidth=0.8)
        axes[1].set_ylabel("square told − triangle told")
        for axis in axes:
            axis.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
            axis.legend()
        seeds = len(results.seeds)
        band = ", mean and 95 % interval" if seeds > 1 else ""
        drawn.suptitle(f"toy · {seeds} seed{'s' if seeds > 1 else ''}{band}")


def _whiskers(found: list[Measured]) -> Any:
    """Lengths of the intervals below and above each mean, None without intervals."""
    ends = [(one.mean, one.ci95) for one in found]
    lengths = [(mean - ci95[0], ci95[1] - mean) for mean, ci95 in ends if ci95 is not None]
    return [list(side) for side in zip(*lengths, strict=True)] if lengths else None


def _with_interval(value: Measured) -> str:
    ends = "" if value.ci95 is None else f" [{', '.join(number(end, sign=True) for end in value.ci95)}]"
    return f"{number(value.mean, sign=True)}{ends}"


def _p(value: Measured) -> str:
    return "–" if value.p is None else f"{value.p:.3g}"
