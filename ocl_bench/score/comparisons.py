"""Which of several results differ, and which are clear of zero, when all of them are looked at together.

Of 45 pairs of equal models two or three differ at the 5 % level by chance. So every pair is tested by Welch's t-test
over seeds, and Holm's step-down adjusts the p-values: the chance that any pair is called different wrongly is at most
5 %, however the tests depend on each other. A result can then be at any place from 1 + those clearly above it to all −
those clearly below it; these are joint confidence sets for ranks as Mogstad, Romano, Shaikh and Wilhelm (2024,
"Inference for ranks") make them, but for their critical values. Those come from a normal limit or a bootstrap, and with
five seeds call ten equal models different several times as often as they should (`benchmarks/coverage.py` measures it).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ocl_bench.score.statistics import CONFIDENCE


@dataclass(frozen=True)
class Standing:
    """Where one result stands among those that it was compared with.

    Attributes:
        clear: whether it is told from 0, corrected for all that were tested.
        above: names of those that it is clearly above, the largest mean first.
        below: names of those that it is clearly below, likewise.
        rank: best and worst place that this leaves it.
    """

    clear: bool
    above: tuple[str, ...]
    below: tuple[str, ...]
    rank: tuple[int, int]

    @property
    def place(self) -> str:
        """Such as 1, or 2–4."""
        best, worst = self.rank
        return str(best) if best == worst else f"{best}–{worst}"


def standings(results: Mapping[str, Sequence[float]]) -> dict[str, Standing]:
    """Compare all results with zero and with each other, each family of tests at a familywise level of 5 %.

    Args:
        results: name → one number per seed (at least two).
    """
    names = sorted(results, key=lambda name: -float(np.mean(results[name])))
    means = np.array([np.mean(results[name]) for name in names])
    spreads = np.array([np.std(results[name], ddof=1) for name in names])
    seeds = np.array([len(results[name]) for name in names])
    clear = dict(zip(names, holm(_from_zero(means, spreads, seeds)), strict=True))
    above: dict[str, list[str]] = {name: [] for name in names}
    below: dict[str, list[str]] = {name: [] for name in names}
    for (upper, lower), p in zip(combinations(names, 2), holm(_welch(means, spreads, seeds)), strict=True):
        if p <= 1 - CONFIDENCE:
            above[upper].append(lower)
            below[lower].append(upper)
    return {
        name: Standing(
            clear=clear[name] <= 1 - CONFIDENCE,
            above=tuple(above[name]),
            below=tuple(below[name]),
            rank=(1 + len(below[name]), len(results) - len(above[name])),
        )
        for name in results
    }


def holm(p_values: Sequence[float] | np.ndarray) -> list[float]:
    """p-values adjusted by Holm's step-down (1979), in the order given: those of at most .05 are rejected together."""
    order = np.argsort(p_values, kind="stable")
    remaining = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(remaining * np.asarray(p_values, float)[order]))
    return [float(p) for p in adjusted]


def _welch(means: np.ndarray, spreads: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """p of each pair, in the order of `combinations`, by Welch's two-sided t-test; 1 for two equal constants."""
    from scipy.stats import ttest_ind_from_stats  # takes half a second to import

    first, second = np.triu_indices(len(means), 1)
    described = means[first], spreads[first], seeds[first], means[second], spreads[second], seeds[second]
    p_values: np.ndarray = ttest_ind_from_stats(*described, equal_var=False).pvalue
    return np.where(np.isnan(p_values), 1.0, p_values)


def _from_zero(means: np.ndarray, spreads: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """p of each result by the two-sided t-test of its mean against 0; 1 for one that is 0 throughout."""
    from scipy.special import stdtr

    with np.errstate(divide="ignore", invalid="ignore"):
        t = means / (spreads / np.sqrt(seeds))
    p_values: np.ndarray = 2 * stdtr(seeds - 1, -np.abs(t))
    return np.where(np.isnan(p_values), 1.0, p_values)
