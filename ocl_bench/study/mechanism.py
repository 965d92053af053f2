"""What a study of mechanisms says: does a difference inside the models come before the gap, and go along with it?

A predictor is one number per point and seed. Over seeds of one point it has an interval, and its end of the axis less
its beginning is paired by seed. That it goes along with the gap is a correlation over the seeds within points, from
which the points' own means are taken, so that what the axis does to both is left out; its interval is a bootstrap over
seeds, because a seed has the same data at every point.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ocl_bench.score.metrics import main_metric
from ocl_bench.score.result import Results
from ocl_bench.score.statistics import Estimate, over_seeds, sign_flip_p
from ocl_bench.study.run import PointResult, StudyResults

GAP = "meta_ocl_gap"
IN_QUESTION = "question/variable"  # where no tag is in sight
RESAMPLES = 9999

Seeds = Mapping[str, float]  # seed → value


@dataclass(frozen=True)
class Predictor:
    """Something inside a model that may go before its gap.

    Attributes:
        name, unit: what tables and figures call it, and its values.
        of: its value for each seed of a result; None where the result has nothing of the kind.
        nothing: its value if there is nothing to see.
    """

    name: str
    unit: str
    of: Callable[[Results], Seeds | None]
    nothing: float


@dataclass(frozen=True)
class AtPoint:
    """A predictor at one point.

    Attributes:
        estimate, p: over seeds, and of its distance from nothing by flips of signs.
        per_seed: seed → value; gap: seed → the gap of meta-OCL, empty where the task has none.
    """

    label: str
    estimate: Estimate | None
    p: float | None
    per_seed: Seeds
    gap: Seeds


@dataclass(frozen=True)
class Found:
    """What a study says of one predictor.

    Attributes:
        points: those that have it.
        change, change_p: the last point less the first, paired by seed; None for one seed, one point, or points without
            an order.
        correlation: of its values with the gap over seeds within points, and the 95 % interval; None for two seeds or
            fewer.
        n: values that the correlation is of.
    """

    predictor: Predictor
    points: tuple[AtPoint, ...]
    change: Estimate | None
    change_p: float | None
    correlation: tuple[float, tuple[float, float]] | None
    n: int


def _alignment(results: Results) -> Seeds | None:
    """Alignment of d1's definitions less that of d2's, of X2, when all but X2 is learned."""
    taught = next((one.stage for one in results.metrics.get("d1_cons", {}).values()), None)
    moments = [one for one in results.gradients if one.epoch is None and GAP in one.gaps]
    before = [one for one, after in pairwise(moments) if after.stage == taught]
    return before[0].gaps[GAP]["alignment"].per_seed if before else None


def _probe(contrast: tuple[str, str]) -> Callable[[Results], Seeds | None]:
    """Accuracy of a contrast where a question names the variable, after the last stage, mean over layers."""

    def of(results: Results) -> Seeds | None:
        at = [one for one in results.probes if tuple(one.contrast) == contrast and one.position == IN_QUESTION]
        layers = [one.per_seed for one in at if one.stage == at[-1].stage]
        return {seed: fmean(layer[seed] for layer in layers) for seed in layers[0]} if layers else None

    return of


def predictors(results: StudyResults) -> list[Predictor]:
    """What may go before the gap, as far as a study's runs were asked for it."""
    contrasts = dict.fromkeys(tuple(one.contrast) for point in results.points for one in point.results.probes)
    probes = [Predictor(f"probe, {a} / {b}", "accuracy", _probe((a, b)), 0.5) for a, b in contrasts]
    return [Predictor("alignment before X2, d1 - d2", "cosine", _alignment, 0.0), *probes]


def findings(results: StudyResults) -> list[Found]:
    """What a study says of each predictor that its runs have."""
    found = []
    for predictor in predictors(results):
        points = [(point, predictor.of(point.results)) for point in results.points]
        have = tuple(_at(point, values, predictor) for point, values in points if values is not None)
        if have:
            found.append(_found(predictor, have, results.study.ordered))
    return found


def _at(point: PointResult, values: Seeds, predictor: Predictor) -> AtPoint:
    gaps = point.results.gaps.get(GAP)
    many = len(values) > 1
    away = [value - predictor.nothing for value in values.values()]
    return AtPoint(
        label=point.run.label,
        estimate=over_seeds(list(values.values())) if many else None,
        p=sign_flip_p(away),
        per_seed=values,
        gap=gaps[main_metric(gaps).name].per_seed if gaps else {},
    )


def _found(predictor: Predictor, points: tuple[AtPoint, ...], ordered: bool) -> Found:
    first, last = points[0].per_seed, points[-1].per_seed
    changes = [last[seed] - first[seed] for seed in first if seed in last]
    paired = ordered and len(points) > 1 and len(changes) > 1
    return Found(
        predictor=predictor,
        points=points,
        change=over_seeds(changes) if paired else None,
        change_p=sign_flip_p(changes) if paired else None,
        correlation=within_points(points),
        n=sum(len(one.per_seed) for one in points),
    )


def within_points(points: Sequence[AtPoint]) -> tuple[float, tuple[float, float]] | None:
    """Correlation over the seeds within points, and its 95 % interval by a bootstrap over seeds.

    Returns:
        None for fewer than three seeds that all points have, or where nothing varies.
    """
    seeds = sorted(set.intersection(*(set(point.per_seed) & set(point.gap) for point in points)))
    if len(seeds) < 3:
        return None
    x, y = (
        np.array([[values[seed] for seed in seeds] for values in found])
        for found in ([point.per_seed for point in points], [point.gap for point in points])
    )
    whole = _correlation(x, y)
    if not np.isfinite(whole):
        return None
    rng = np.random.default_rng(0)
    draws = rng.integers(len(seeds), size=(RESAMPLES, len(seeds)))
    drawn = [_correlation(x[:, own], y[:, own]) for own in draws]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return whole, (float(low), float(high))


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Pearson's, of values less the mean of their point; shape (points, seeds)."""
    x, y = (values - values.mean(axis=1, keepdims=True) for values in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))
