"""Whether gaps that were submitted and gaps that were measured again are of the same training.

A verification compares several gaps in several metrics. Its intervals are widened (Bonferroni) so that all of them hold
0 in 95 of 100 honest cases.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean, variance
from typing import Literal

from ocl_bench.leaderboard.records import Comparison
from ocl_bench.score.metrics import METRICS, main_metric
from ocl_bench.score.result import Gap, Results
from ocl_bench.score.statistics import CONFIDENCE

ROUNDING = 1e-6  # of scores that are computed again from the same answers

Gaps = Mapping[str, Mapping[str, Gap]]
# gap → metric → seed → stage-2 seed → gap
Replayed = Mapping[str, Mapping[str, Mapping[int, Mapping[int, float]]]]


def compared(reported: Collection[str]) -> tuple[str, ...]:
    """Of the metrics that a gap has, those that are compared: what ranks go by, and the finest.

    The others follow these, and would only widen their intervals.
    """
    return main_metric(reported).name, "logprob"


def pairs(submitted: Gaps, again: Gaps) -> list[tuple[str, str]]:
    """Gaps and metrics that both have."""
    return [
        (gap, metric)
        for gap, metrics in submitted.items()
        for metric in compared(metrics)
        if metric in metrics and metric in again.get(gap, {})
    ]


def seeds_compared(
    submitted: Results, again: Results, only: Sequence[int], comparisons: int | None = None
) -> list[Comparison]:
    """Compare the gaps of a submission with those of seeds that were trained again, or anew.

    Args:
        submitted, again: the two results.
        only: which seeds of `again`.
        comparisons: how many there are in the verification; None if these are all.
    """
    both = pairs(submitted.gaps, again.gaps)
    count = comparisons or len(both)
    wanted = {str(seed) for seed in only}
    return [
        _seeds(
            gap,
            metric,
            submitted.gaps[gap][metric],
            {seed: value for seed, value in again.gaps[gap][metric].per_seed.items() if seed in wanted},
            count,
        )
        for gap, metric in both
    ]


def _seeds(gap: str, metric: str, old: Gap, new: Mapping[str, float], count: int) -> Comparison:
    shared = sorted(set(old.per_seed) & set(new))
    what: Literal["same seeds", "new seeds"] = "same seeds" if shared else "new seeds"
    before = [old.per_seed[seed] for seed in shared or old.per_seed]
    after = [new[seed] for seed in shared or new]
    error, freedom = (
        _paired(before, after) if shared else _of_two(before, after, _least(old, metric, len(old.per_seed)))
    )
    difference = fmean(after) - fmean(before)
    return _compared(what, gap, metric, fmean(before), fmean(after), difference, error, freedom, count, old.ci95)


def _paired(old: Sequence[float], new: Sequence[float]) -> tuple[float | None, float]:
    """Standard error of the mean difference, and its degrees of freedom."""
    differences = [after - before for before, after in zip(old, new, strict=True)]
    if len(differences) < 2:
        return None, 0
    return _error(variance(differences) / len(differences), len(differences) - 1)


def _error(squared: float, freedom: float) -> tuple[float, float]:
    return math.sqrt(squared), freedom


def _least(gap: Gap, metric: str, trainings: int) -> float:
    """Least variance of a gap between trainings: where all that were seen gave the same, the next may differ by one
    question."""
    questions = gap.n / (2 * trainings)
    return 1 / questions**2 if METRICS[metric].accuracy and questions else 0.0


def _of_two(old: Sequence[float], new: Sequence[float], least: float) -> tuple[float | None, float]:
    """Standard error of the difference of two means, and its degrees of freedom (Welch).

    One new seed has no spread of its own, and takes that of the others.
    """
    if len(old) < 2:
        return None, 0
    spread = max(variance(old), least)
    if len(new) < 2:
        return _error(spread * (1 / len(old) + 1 / len(new)), len(old) - 1)
    first, second = spread / len(old), max(variance(new), least) / len(new)
    if first + second == 0:
        return 0.0, 1
    freedom = (first + second) ** 2 / (first**2 / (len(old) - 1) + second**2 / (len(new) - 1))
    return _error(first + second, freedom)


def replayed_gaps(submitted: Results, replayed: Replayed, seeds: Sequence[int], count: int) -> list[Comparison]:
    """Compare the gaps of seeds with those after X2 was trained again with other stage-2 seeds.

    The spread over stage-2 seeds is pooled over the seeds.

    Args:
        submitted: the submission's results.
        replayed: every gap after each X2.
        seeds: the seeds whose X2 was replayed.
        count: how many comparisons there are in the verification.
    """
    found = []
    for gap, metric in [(gap, metric) for gap, metrics in replayed.items() for metric in metrics]:
        by_seed = {seed: list(replayed[gap][metric][seed].values()) for seed in seeds}
        old = [submitted.gaps[gap][metric].per_seed[str(seed)] for seed in seeds]
        new = [fmean(by_seed[seed]) for seed in seeds]
        times = len(by_seed[seeds[0]])
        trainings = len(submitted.seeds) * len(submitted.stage2_seeds)
        least = _least(submitted.gaps[gap][metric], metric, trainings)
        spread = max(least, fmean(variance(values) for values in by_seed.values()) if times > 1 else 0.0)
        error = math.sqrt(spread * (1 / len(submitted.stage2_seeds) + 1 / times) / len(seeds))
        freedom = len(seeds) * (times - 1)
        difference = fmean(new) - fmean(old)
        ci95 = submitted.gaps[gap][metric].ci95
        found.append(
            _compared("x2 replayed", gap, metric, fmean(old), fmean(new), difference, error, freedom, count, ci95)
        )
    return found


def _compared(
    what: Literal["x2 replayed", "new seeds", "same seeds"],
    gap: str,
    metric: str,
    old: float,
    new: float,
    difference: float,
    error: float | None,
    freedom: float,
    count: int,
    submitted: tuple[float, float],
) -> Comparison:
    from scipy.special import stdtrit

    if error is None or freedom <= 0:
        interval, agrees = None, submitted[0] - ROUNDING <= new <= submitted[1] + ROUNDING
    else:
        half = error * float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / (2 * max(1, count))))
        interval = difference - half, difference + half
        agrees = interval[0] <= ROUNDING and interval[1] >= -ROUNDING
    return Comparison(
        what=what, gap=gap, metric=metric, submitted=old, again=new, difference=difference,
        interval=interval, agrees=agrees,
    )  # fmt: skip


def comparison_table(comparisons: Sequence[Comparison], format: str = "simple") -> str:
    """What was compared, as a table."""
    from tabulate import tabulate

    rows = [
        [
            one.what, one.gap, one.metric, f"{one.submitted:+.3f}", f"{one.again:+.3f}", f"{one.difference:+.3f}",
            "–" if one.interval is None else f"[{one.interval[0]:+.3f}, {one.interval[1]:+.3f}]",
            "yes" if one.agrees else "NO",
        ]
        for one in comparisons
    ]  # fmt: skip
    headers = ["what", "gap", "metric", "submitted", "again", "difference", "its interval", "agrees"]
    return tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True)
