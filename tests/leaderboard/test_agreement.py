"""Honest verifications agree, and made-up gaps do not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocl_bench.leaderboard.agreement import pairs, replayed_gaps, seeds_compared
from ocl_bench.leaderboard.validate import check
from ocl_bench.score.result import Gap, Results
from ocl_bench.score.statistics import over_seeds

SEEDS, CHALLENGED, TIMES, QUESTIONS = 5, (0, 2, 3), 4, 100
GAPS = ("meta_ocl_gap", "ocl_gap")
METRICS = ("em", "logprob")


@pytest.fixture(scope="module")
def base(small_submission: Path) -> Results:
    found = check(small_submission).results
    assert found is not None
    return found


def results(base: Results, values: dict[str, dict[str, Any]]) -> Results:
    def gap(per_seed: Any) -> Gap:
        estimate = over_seeds(list(per_seed.values()))
        return Gap(
            mean=estimate.mean, ci95=estimate.ci95, interval="seeds", p=None, n=2 * QUESTIONS * len(per_seed),
            seeds=len(per_seed), per_seed=per_seed,
        )  # fmt: skip

    gaps = {name: {metric: gap(of) for metric, of in metrics.items()} for name, metrics in values.items()}
    return base.model_copy(update={"gaps": gaps, "seeds": tuple(range(SEEDS)), "stage2_seeds": (0,)})


def rounded(value: float, metric: str) -> float:
    """Accuracies are shares of questions."""
    return round(value * QUESTIONS) / QUESTIONS if metric == "em" else value


def verification(
    base: Results, rng: np.random.Generator, between: float, within: float, effect: float, forged: float = 0.0
) -> bool:
    """Whether a verification agrees, of seeds that differ by `between` and whose stage-2 seeds differ by `within`."""
    own = {gap: {metric: rng.normal(effect, between, SEEDS + 1) for metric in METRICS} for gap in GAPS}

    def training(gap: str, metric: str, seed: int) -> float:
        return rounded(own[gap][metric][seed] + rng.normal(0, within), metric)

    submitted = results(base, {
        gap: {metric: {str(seed): training(gap, metric, seed) + forged for seed in range(SEEDS)} for metric in METRICS}
        for gap in GAPS
    })  # fmt: skip
    again = {
        gap: {
            metric: {seed: {time: training(gap, metric, seed) for time in range(TIMES)} for seed in CHALLENGED}
            for metric in METRICS
        }
        for gap in GAPS
    }
    new = {
        gap: {metric: {"9": float(np.mean([training(gap, metric, SEEDS) for _ in range(TIMES)]))} for metric in METRICS}
        for gap in GAPS
    }
    gaps = {
        gap: {metric: one.model_copy(update={"per_seed": new[gap][metric]}) for metric, one in metrics.items()}
        for gap, metrics in submitted.gaps.items()
    }
    anew = submitted.model_copy(update={"gaps": gaps})
    count = len(pairs(submitted.gaps, anew.gaps)) + len(GAPS) * len(METRICS)
    found = [
        *replayed_gaps(submitted, again, CHALLENGED, count),
        *seeds_compared(submitted, anew, (9,), count),
    ]
    assert len(found) == count
    return all(one.agrees for one in found)


@pytest.mark.parametrize(
    ("between", "within", "effect"),
    [(0.05, 0.03, 0.3), (0.0, 0.03, 0.0), (0.05, 0.004, 0.1), (0.001, 0.002, 0.0)],  # the last: em is 0 but for a few
)
def test_of_honest_verifications_few_disagree(base: Results, between: float, within: float, effect: float) -> None:
    rng, times = np.random.default_rng(0), 400
    disagree = np.mean([not verification(base, rng, between, within, effect) for _ in range(times)])
    assert disagree <= 0.05 + 3 * (0.05 * 0.95 / times) ** 0.5


def test_a_gap_that_was_made_up_is_found(base: Results) -> None:
    rng = np.random.default_rng(1)
    found = np.mean([not verification(base, rng, 0.05, 0.03, 0.05, forged=0.3) for _ in range(100)])
    assert found > 0.9


def test_where_nothing_varies_one_question_more_or_less_agrees_and_many_do_not(base: Results) -> None:
    same = {gap: {metric: dict.fromkeys(map(str, range(SEEDS)), 0.0) for metric in METRICS} for gap in GAPS}
    submitted = results(base, same)

    def agrees(metric: str, gap: float) -> bool:
        again = {"ocl_gap": {metric: {seed: dict.fromkeys(range(TIMES), gap) for seed in CHALLENGED}}}
        (one,) = replayed_gaps(submitted, again, CHALLENGED, 8)
        return one.agrees

    assert [agrees("em", gap) for gap in (0.0, 1 / QUESTIONS, 0.1)] == [True, True, False]
    assert [agrees("logprob", gap) for gap in (0.0, 1e-7, 0.01)] == [True, True, False]
