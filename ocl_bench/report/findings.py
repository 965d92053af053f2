"""The table of a study of mechanisms."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate

from ocl_bench.report.tables import number
from ocl_bench.score.statistics import Estimate

if TYPE_CHECKING:
    from ocl_bench.study.mechanism import Found


def findings_table(found: "Sequence[Found]", format: str = "simple") -> str:
    """What goes before a study's gap: at each point, from the first to the last, and beside the gap over seeds."""
    rows = []
    for one in found:
        for point in one.points:
            cell = "" if point.estimate is None else f"{_interval(point.estimate)} p {point.p:.3g}"
            rows.append([one.predictor.name, point.label, cell, len(point.per_seed)])
        if one.change is not None:
            change = f"{_interval(one.change, sign=True)} p {one.change_p:.3g}"
            rows.append([one.predictor.name, "last - first", change, len(one.points[0].per_seed)])
        if one.correlation is not None:
            r, (low, high) = one.correlation
            rows.append([one.predictor.name, "r with the gap", f"{r:+.2f} [{low:+.2f}, {high:+.2f}]", one.n])
    headers = ["what goes before", "point", "mean [95 %]", "n"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)


def _interval(value: Estimate, sign: bool = False) -> str:
    low, high = value.ci95
    return f"{number(value.mean, sign)} [{number(low, sign)}, {number(high, sign)}]"
