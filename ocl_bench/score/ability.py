"""What finetuning did to general ability: after minus before, paired within a seed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean
from typing import Any

from ocl_bench.evaluate.ability import AbilityScore
from ocl_bench.evaluate.evaluator import Observed
from ocl_bench.score.result import Change
from ocl_bench.score.statistics import over_seeds
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task

NORMAL_95 = 1.96


def summarise(
    observed: Sequence[Observed], task: Task, records: Mapping[tuple[int, int], Sequence[Record]]
) -> dict[str, Any]:
    """What finetuning did to lm-eval's tasks; see `ocl_bench.evaluate.evaluator.Summary`."""
    scores: dict[int, list[AbilityScore]] = {one.seed: [] for one in observed}
    for one in observed:
        scores[one.seed] += one.rows
    return {"also": score_changes(scores)}


def score_changes(scores: Mapping[int, Sequence[AbilityScore]]) -> dict[str, dict[str, Change]]:
    """Task → metric → its change.

    Args:
        scores: seed → its scores, of all its stage-2 seeds. A seed without scores from before takes those of the first
            seed that has them: pretrained weights are the same before every seed.
    """
    shared = next((own for own in scores.values() if any(one.when == "before" for one in own)), ())
    by_metric: dict[tuple[str, str], dict[int, tuple[list[AbilityScore], list[AbilityScore]]]] = defaultdict(dict)
    for seed, own in scores.items():
        before = [one for one in own if one.when == "before"] or [one for one in shared if one.when == "before"]
        for first in before:
            after = [one for one in own if one.when == "after" and (one.task, one.metric) == (first.task, first.metric)]
            by_metric[first.task, first.metric][seed] = [first], after
    changes: dict[str, dict[str, Change]] = defaultdict(dict)
    for (task, metric), pairs in by_metric.items():
        changes[task][metric] = _change(list(pairs.values()))
    return dict(changes)


def _change(pairs: Sequence[tuple[list[AbilityScore], list[AbilityScore]]]) -> Change:
    means = [tuple(fmean(one.value for one in side) for side in pair) for pair in pairs]
    differences = [after - before for before, after in means]
    ci95: tuple[float, float] | None
    if len(pairs) > 1:
        ci95 = over_seeds(differences).ci95
    else:
        errors = [[one.stderr for one in side] for side in pairs[0]]
        ci95 = _interval(differences[0], errors)
    return Change(
        before=fmean(before for before, _ in means),
        after=fmean(after for _, after in means),
        difference=fmean(differences),
        ci95=ci95,
        interval="seeds" if len(pairs) > 1 else "questions",
        n=sum(one.n for _, after in pairs for one in after),
        seeds=len(pairs),
    )


def _interval(difference: float, errors: Sequence[Sequence[float | None]]) -> tuple[float, float] | None:
    """Of one seed: the two scores' standard errors over questions, as if these were drawn anew for each: too wide."""
    squares = [[error**2 for error in side if error is not None] for side in errors]
    if any(len(side) < len(own) for side, own in zip(squares, errors, strict=True)):
        return None
    # Stage-2 seeds answer the same questions: their mean has the error of one.
    half = NORMAL_95 * sqrt(sum(fmean(side) for side in squares))
    return difference - half, difference + half
