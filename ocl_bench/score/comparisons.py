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
    clear = _holm(_from_zero(means, spreads, seeds)) <= 1 - CONFIDENCE
    pairs = np.triu_indices(len(names), 1)
    above = np.zeros((len(names), len(names)), bool)  # a thousand results have half a million pairs
    above[pairs] = _holm(_welch(means, spreads, seeds, pairs)) <= 1 - CONFIDENCE
    found = {
        name: Standing(
            clear=bool(clear[number]),
            above=tuple(names[other] for other in np.flatnonzero(above[number])),
            below=tuple(names[other] for other in np.flatnonzero(above[:, number])),
            rank=(1 + int(above[:, number].sum()), len(names) - int(above[number].sum())),
        )
        for number, name in enumerate(names)
    }
    return {name: found[name] for name in results}


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's step-down (1979), in the order given: those of at most .05 are rejected together."""
    found: list[float] = _holm(np.asarray(p_values, float)).tolist()
    return found


def _holm(p_values: np.ndarray) -> np.ndarray:
    order = np.argsort(p_values, kind="stable")
    remaining = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(remaining * p_values[order]))
    return adjusted


def _welch(means: np.ndarray, spreads: np.ndarray, seeds: np.ndarray, pairs: tuple[np.ndarray, ...]) -> np.ndarray:
    """p of each pair by Welch's two-sided t-test; 1 for two equal constants."""
    from scipy.stats import ttest_ind_from_stats  # takes half a second to import

    first, second = pairs
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
