"""Whether a gap of one model is another than that of a second one, over seeds."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from ocl_bench.score.statistics import CONFIDENCE, over_seeds, sign_flip_p

Test = Literal["paired", "welch"]


@dataclass(frozen=True)
class Difference:
    """One result minus another.

    Attributes:
        mean: of the difference.
        ci95: its 95 % interval over seeds; None if there are too few seeds for one, or all give the same.
        p: two-sided, that the true difference is 0; None likewise.
        test: how these were found: by the differences within seeds, or by Welch's t-test of two sets of seeds.
    """

    mean: float
    ci95: tuple[float, float] | None
    p: float | None
    test: Test | None


def difference(of: Mapping[str, float], minus: Mapping[str, float], paired: bool) -> Difference:
    """Compare two results.

    Args:
        of, minus: seed → value.
        paired: whether both were trained on the same data with the same seeds: then what a seed's data does to both
            leaves the difference. Interval and p are those of a gap: Hall's transformed t, and flipped signs.
    """
    mean = fmean(of.values()) - fmean(minus.values())
    if paired and len(of) > 1:
        within = [value - minus[seed] for seed, value in of.items()]
        return Difference(mean, over_seeds(within).ci95, sign_flip_p(within), "paired")
    values = list(of.values()), list(minus.values())
    if min(map(len, values)) > 1 and any(len(set(own)) > 1 for own in values):
        from scipy.stats import ttest_ind  # takes half a second to import

        with warnings.catch_warnings():  # of results that are the same in all seeds of one of them
            warnings.simplefilter("ignore", RuntimeWarning)
            found = ttest_ind(*values, equal_var=False)
        low, high = found.confidence_interval(CONFIDENCE)
        return Difference(mean, (float(low), float(high)), float(found.pvalue), "welch")
    return Difference(mean, None, None, None)
