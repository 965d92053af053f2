"""Comparing many results at once keeps its level, finds what is there, and tests as scipy does."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from ocl_bench.score.comparisons import Standing, holm, standings

BOARDS, MODELS, SEEDS = 500, 8, 5
LEVEL = 0.05
ALLOWED = LEVEL + 3 * (LEVEL * (1 - LEVEL) / BOARDS) ** 0.5  # what simulations of an exact level stay below

MEANS = {
    "all are equal": np.zeros(MODELS),
    "half are far above": np.array([0.0, 0.6] * (MODELS // 2)),
    "each is a little above the last": 0.05 * np.arange(MODELS),
}
SPREADS = {"alike": np.full(MODELS, 0.1), "from 1 to 10": np.geomspace(0.02, 0.2, MODELS)}


def boards(means: np.ndarray, spreads: np.ndarray) -> list[dict[str, Standing]]:
    """Standings of simulated boards, with models named by their place in `means`."""
    rng = np.random.default_rng(0)
    drawn = means[:, None] + spreads[:, None] * rng.standard_normal((BOARDS, MODELS, SEEDS))
    return [standings({str(name): seeds for name, seeds in enumerate(board.tolist())}) for board in drawn]


def share(board: list[dict[str, Standing]], wrong: Callable[[int, Standing], bool]) -> float:
    """Share of boards on which anything is wrong."""
    return float(np.mean([any(wrong(int(name), one) for name, one in found.items()) for found in board]))


@pytest.mark.parametrize("spreads", SPREADS)
@pytest.mark.parametrize("means", MEANS)
def test_a_board_has_a_wrong_difference_a_wrong_rank_or_a_wrong_zero_at_most_5_percent_of_the_time(
    means: str, spreads: str
) -> None:
    truth = MEANS[means]
    found = boards(truth, SPREADS[spreads])
    # Above one that is as good or better is wrong, whichever way the test was two-sided.
    assert share(found, lambda name, one: any(truth[int(other)] >= truth[name] for other in one.above)) <= ALLOWED
    assert share(found, lambda name, one: one.clear and truth[name] == 0) <= ALLOWED

    def rank_is_missed(name: int, one: Standing) -> bool:
        best, worst = 1 + int((truth > truth[name]).sum()), int((truth >= truth[name]).sum())
        return not (one.rank[0] <= best and worst <= one.rank[1])

    assert share(found, rank_is_missed) <= ALLOWED


def test_without_correction_equal_models_would_differ_on_most_boards() -> None:
    """The level above is kept by the correction, and not because the tests find nothing."""
    drawn = np.random.default_rng(0).standard_normal((BOARDS, MODELS, SEEDS))
    first, second = np.triu_indices(MODELS, 1)
    p_values = stats.ttest_ind(drawn[:, first], drawn[:, second], axis=-1, equal_var=False).pvalue
    assert np.mean(p_values.min(axis=-1) <= LEVEL) > 0.4


def test_models_that_are_far_apart_have_ranks_of_their_own() -> None:
    found = standings({"c": [0.1, 0.11, 0.12], "a": [0.5, 0.51, 0.52], "b": [0.3, 0.31, 0.32, 0.3]})
    assert {name: one.place for name, one in found.items()} == {"a": "1", "b": "2", "c": "3"}
    assert found["b"] == Standing(clear=True, above=("c",), below=("a",), rank=(2, 2))


def test_one_that_differs_from_neither_neighbour_shares_the_places_of_both() -> None:
    spread = np.array([-0.05, -0.02, 0.0, 0.02, 0.05])
    found = standings({name: (mean + spread).tolist() for name, mean in (("a", 0.3), ("b", 0.24), ("c", 0.18))})
    assert [one.place for one in found.values()] == ["1–2", "1–3", "2–3"]


def test_overlap_of_intervals_is_no_test() -> None:
    """Both intervals reach the other, and yet two models differ, as Welch's test of two says."""
    first, second = [0.0, 0.1, 0.05, 0.08, 0.02], [0.11, 0.2, 0.16, 0.07, 0.13]
    ends = [stats.ttest_1samp(own, 0).confidence_interval(0.95) for own in (first, second)]
    assert ends[0].high > ends[1].low
    assert standings({"first": first, "second": second})["second"].rank == (1, 1)


def test_two_results_are_compared_as_scipy_compares_them() -> None:
    """A family of one test has nothing to correct."""
    rng, differed = np.random.default_rng(1), 0
    for number in range(300):
        first = rng.normal(0, 1, 2 + number % 7).tolist()
        second = rng.normal(1.5, 0.1 + number % 4, 2 + number % 5).tolist()
        expected = stats.ttest_ind(first, second, equal_var=False).pvalue <= LEVEL
        found = standings({"first": first, "second": second})
        assert bool(found["first"].above or found["first"].below) == expected
        assert standings({"first": first})["first"].clear == (stats.ttest_1samp(first, 0).pvalue <= LEVEL)
        differed += expected
    assert 30 < differed < 270


def test_holm_is_the_closure_of_bonferroni() -> None:
    """A hypothesis is rejected if every set of hypotheses with it is, by Bonferroni: all sets are tried."""
    rng = np.random.default_rng(2)
    for size in range(1, 8):
        p_values = rng.uniform(0, 0.2, size).round(2)  # with ties
        sets = [chosen for k in range(1, size + 1) for chosen in combinations(range(size), k)]
        expected = [
            max(min(1.0, len(chosen) * min(p_values[list(chosen)])) for chosen in sets if own in chosen)
            for own in range(size)
        ]
        assert holm(p_values.tolist()) == pytest.approx(expected)
    assert holm([]) == []


def test_results_without_spread_are_compared_by_their_values() -> None:
    found = standings({"zero": [0.0, 0.0], "also zero": [0.0, 0.0, 0.0], "half": [0.5, 0.5]})
    assert [one.place for one in found.values()] == ["2–3", "2–3", "1"]
    assert [one.clear for one in found.values()] == [False, False, True]
    assert standings({}) == {}
