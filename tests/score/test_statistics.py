"""Intervals cover what they say they cover, p-values are uniform under no effect, and both agree with scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from ocl_bench.score.statistics import least_detectable, over_entities, over_seeds, sign_flip_p

SEEDS, ENTITIES, SIMULATIONS = 5, 200, 3000
EFFECT = 0.1


def simulated_gaps(between_seeds: float) -> np.ndarray:
    """Gaps of (simulation, seed): accuracies of two subsets of 0/1 answers, whose true difference varies over seeds."""
    rng = np.random.default_rng(0)
    effects = EFFECT + between_seeds * rng.standard_normal((SIMULATIONS, SEEDS))
    upper = rng.binomial(ENTITIES, np.clip(0.4 + effects, 0, 1)) / ENTITIES
    lower = rng.binomial(ENTITIES, 0.4, size=(SIMULATIONS, SEEDS)) / ENTITIES
    return upper - lower


def hierarchical_bootstrap(gaps: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Percentile interval over resampled seeds, each with the sampling noise of resampled entities."""
    resampled = gaps[rng.integers(SEEDS, size=(500, SEEDS))]
    noise = np.sqrt(2 * 0.4 * 0.6 / ENTITIES) * rng.standard_normal(resampled.shape)
    low, high = np.quantile((resampled + noise).mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("between_seeds", [0.0, 0.02, 0.15])
def test_95_percent_interval_of_5_seeds_covers_the_truth_93_to_97_percent_of_the_time(
    between_seeds: float,
) -> None:
    intervals = [over_seeds(gaps.tolist()).ci95 for gaps in simulated_gaps(between_seeds)]
    coverage = np.mean([low <= EFFECT <= high for low, high in intervals])
    assert 0.93 <= coverage <= 0.97


def test_hierarchical_bootstrap_of_5_seeds_does_not_cover_which_is_why_it_is_not_used() -> None:
    rng = np.random.default_rng(1)
    coverage = {}
    for between_seeds in (0.0, 0.15):
        intervals = [hierarchical_bootstrap(gaps, rng) for gaps in simulated_gaps(between_seeds)[:1000]]
        coverage[between_seeds] = np.mean([low <= EFFECT <= high for low, high in intervals])
    print(f"coverage of the hierarchical bootstrap: {coverage}")
    assert coverage[0.0] > 0.97
    assert coverage[0.15] < 0.93


def test_interval_of_seeds_without_skewness_is_that_of_scipys_t_test() -> None:
    values = [0.1, 0.3, 0.25, 0.15, 0.2]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert over_seeds(values).ci95 == pytest.approx((expected.low, expected.high))
    assert over_seeds(values).mean == pytest.approx(0.2)


@pytest.mark.parametrize("values", [[0.1, 0.3, 0.25, 0.18, 0.02], [0.1, 0.2] * 4 + [0.12, 0.35], [0.5, 0.1, 0.15]])
def test_the_transformed_t_of_an_interval_s_ends_is_the_quantile_of_t(values: list[float]) -> None:
    mean, sem = np.mean(values), stats.sem(values)
    skewness = stats.skew(values) / len(values) ** 0.5
    low, high = over_seeds(values).ci95
    quantile = stats.t.ppf(0.975, len(values) - 1)
    for end, expected in ((low, quantile), (high, -quantile)):
        t = (mean - end) / sem
        transformed = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6  # Hall (1992)
        assert transformed == pytest.approx(expected)
    mirrored = over_seeds([-value for value in values]).ci95
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high))


def test_one_seed_far_from_the_others_does_not_stretch_the_interval_beyond_students_of_99_9_percent() -> None:
    values = [0.142, 0.189, 0.051, 0.406, 0.014, 0.076, 0.167, 0.057, 0.044, 0.151]
    low, high = over_seeds(values).ci95
    student = stats.ttest_1samp(values, 0)
    assert high == pytest.approx(student.confidence_interval(0.999).high)
    assert student.confidence_interval(0.95).low < low < 0.13 < student.confidence_interval(0.95).high < high < 0.406


def test_an_interval_of_10_skewed_seeds_covers_the_truth_9_times_in_10_where_t_does_not() -> None:
    drawn = np.random.default_rng(0).lognormal(0, 1, size=(2000, 10))
    truth = math.exp(0.5)

    def coverage(intervals: list[tuple[float, float]]) -> float:
        return float(np.mean([low <= truth <= high for low, high in intervals]))

    assert coverage([over_seeds(values.tolist()).ci95 for values in drawn]) >= 0.89
    assert coverage([tuple(stats.ttest_1samp(values, 0).confidence_interval()) for values in drawn]) < 0.86


def test_seeds_that_do_not_differ_have_an_interval_of_their_mean_alone() -> None:
    assert over_seeds([0.3, 0.3, 0.3]).ci95 == pytest.approx((0.3, 0.3))


def test_interval_of_two_seeds_by_hand() -> None:
    # mean .2, standard error .1, t of one degree of freedom 12.706
    assert over_seeds([0.1, 0.3]).ci95 == pytest.approx((0.2 - 1.2706, 0.2 + 1.2706), abs=1e-4)


@pytest.mark.parametrize("seeds", [5, 8])
def test_p_is_uniform_under_no_effect(seeds: int) -> None:
    rng = np.random.default_rng(0)
    p_values = np.array([sign_flip_p(rng.standard_normal(seeds).tolist()) for _ in range(1000)])
    for level in (2 / 2**5, 0.25, 0.5, 0.75):  # the levels that enumerated sign flips can reach exactly
        assert np.mean(p_values <= level + 1e-12) == pytest.approx(level, abs=0.04)


@pytest.mark.parametrize(("values", "p"), [([0.1] * 5, 2 / 32), ([0.3, 0.2], 2 / 4), ([0.2, -0.2], 1.0), ([0.1], None)])
def test_p_of_small_cases_by_hand(values: list[float], p: float | None) -> None:
    assert sign_flip_p(values) == (None if p is None else pytest.approx(p))


def seeds_with_spread(spread: float, seeds: int) -> list[float]:
    """Values of just this standard deviation."""
    values = np.arange(seeds, dtype=float)
    return list(0.7 + spread * (values - values.mean()) / values.std(ddof=1))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 20])
def test_the_least_detectable_effect_is_detected_in_80_percent_of_runs(seeds: int) -> None:
    least = least_detectable(seeds_with_spread(0.1, seeds))
    assert least is not None
    drawn = np.random.default_rng(0).normal(least, 0.1, size=(4000, seeds))
    assert np.mean(stats.ttest_1samp(drawn, 0, axis=1).pvalue <= 0.05) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 50])
def test_the_least_detectable_effect_has_the_power_that_scipys_noncentral_t_gives(seeds: int) -> None:
    least = least_detectable(seeds_with_spread(0.1, seeds))
    assert least is not None
    critical = stats.t.ppf(0.975, seeds - 1)
    assert stats.nct(seeds - 1, least / (0.1 / seeds**0.5)).sf(critical) == pytest.approx(0.8, abs=1e-6)


def test_seeds_without_spread_have_no_least_detectable_effect() -> None:
    assert least_detectable([0.3]) is None
    assert least_detectable([0.3, 0.3, 0.3]) is None
    assert least_detectable([0.05, 0.04999999999999999]) is None  # as means of as many right answers may be


def test_interval_of_a_single_seed_is_over_entities_and_says_so() -> None:
    groups = [{f"e{n}": float(n % 2) for n in range(400)}, {f"e{n}": float(n % 4 == 0) for n in range(400)}]
    estimate = over_entities(lambda means: means[0] - means[1], groups)
    assert estimate.interval == "entities"
    assert estimate.mean == pytest.approx(0.25)
    # two independent proportions, .5 and .25 of 400
    half = 1.96 * np.sqrt(0.25 / 400 + 0.1875 / 400)
    assert estimate.ci95 == pytest.approx((0.25 - half, 0.25 + half), abs=0.01)


def test_p_values_have_the_digits_that_scipy_gives() -> None:
    """With ties too, as gaps of counts have them: there the order of additions decides."""
    rng = np.random.default_rng(0)
    for number in range(300):
        values = rng.normal(0.1, 0.3, size=2 + number % 9)
        values = values if number % 2 else values.round(1)
        p = stats.permutation_test((values,), np.mean, permutation_type="samples", rng=0).pvalue
        assert sign_flip_p(values.tolist()) == float(p)


def test_p_values_of_many_seeds_are_those_of_scipy_but_for_the_draws_of_signs() -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        values = rng.normal(0.1, 0.3, size=14 + number)
        p = stats.permutation_test((values,), np.mean, permutation_type="samples", rng=number).pvalue
        assert sign_flip_p(values.tolist()) == pytest.approx(float(p), abs=0.02)
