"""The difference of two results over seeds: within seeds where they are paired, Welch's where they are not."""

import numpy as np
import pytest
from scipy.stats import ttest_ind_from_stats

from ocl_bench.score.differences import difference


def results(seed: int, count: int, shift: float = 0.0) -> dict[str, float]:
    return {str(n): float(value) for n, value in enumerate(np.random.default_rng(seed).normal(shift, 0.1, count))}


def test_what_a_seed_does_to_both_leaves_a_paired_difference() -> None:
    shared, first, second = results(0, 10, 0.5), results(1, 10), results(2, 10)
    lower = {seed: 5 * shared[seed] + 0.1 * first[seed] for seed in shared}
    upper = {seed: 5 * shared[seed] + 0.1 * second[seed] + 0.05 for seed in shared}
    paired, apart = difference(upper, lower, paired=True), difference(upper, lower, paired=False)
    assert paired.mean == pytest.approx(apart.mean)
    assert (paired.test, apart.test) == ("paired", "welch")
    assert paired.ci95 is not None and paired.ci95[0] > 0 and paired.p == pytest.approx(2 / 2**10)
    assert apart.ci95 is not None and apart.ci95[0] < 0 < apart.ci95[1] and (apart.p or 0) > 0.05


def test_seeds_that_are_not_the_same_are_compared_by_welchs_t() -> None:
    first, second = results(3, 5, 0.3), results(4, 8)
    found = difference(first, second, paired=False)
    of, minus = np.array(list(first.values())), np.array(list(second.values()))
    described = of.mean(), of.std(ddof=1), 5, minus.mean(), minus.std(ddof=1), 8
    assert found.p == pytest.approx(ttest_ind_from_stats(*described, equal_var=False).pvalue)
    assert found.ci95 is not None and sum(found.ci95) / 2 == pytest.approx(found.mean)


def test_without_seeds_or_spread_nothing_is_told() -> None:
    one, same = {"0": 0.5}, {"0": 0.2, "1": 0.2}
    for first, second, paired in ((one, {"0": 0.1}, True), (one, same, False), (same, {"5": 0.1, "6": 0.1}, False)):
        found = difference(first, second, paired)
        assert (found.ci95, found.p, found.test) == (None, None, None)
