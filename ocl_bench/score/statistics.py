"""Intervals and p-values for numbers measured over a few training runs.

The stage-1 seed is the unit of inference: one number per seed, in which stage-2 seeds and questions are averaged. The
interval is of Student's t over those numbers, transformed so that their skewness leaves it (Hall 1992, "On the removal
of skewness by transformation"). Everything that varies below the seed (stage-2 seed, entity, question) is inside the
spread of the seed means, so nothing is left out and nothing counted twice. Rejected were a hierarchical bootstrap,
which with 5 seeds covers the truth too seldom when seeds differ and too often when they do not
(`tests/score/test_statistics.py` shows both), and the plain t, which with 10 skewed seeds covers 84 % where this covers
90 % (`benchmarks/coverage.py`).

A single seed says nothing about other seeds. Its interval is a bootstrap over entities and is marked as such.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FEW_SEEDS = 5
CONFIDENCE = 0.95
POWER = 0.80
# An end of an interval is no further out than Student's of this confidence: near the pole of Hall's transform it would
# be beyond every seed, and it then covers hardly more.
FURTHEST = 0.999
EQUAL = 1e-9  # apart, and what differs is rounding
LEAST_SHIFT = 1e-6  # a smaller one moves an interval by less than rounding does
RESAMPLES = 9999  # flips of signs that are drawn where there are too many to try all


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        mean: over seeds.
        ci95: lower and upper end.
        interval: what the interval is about: new `seeds`, or (with a single one) new `entities` for that same seed.
    """

    mean: float
    ci95: tuple[float, float]
    interval: Literal["seeds", "entities"]


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean and interval of one number per seed (at least two), by Hall's transformed t.

    With no skewness, as of two seeds, it is Student's t; else the side of the longer tail is the longer one, up to
    where Student's interval of 99.9 % ends.
    """
    from scipy.special import stdtrit  # scipy.stats.t is made of it, and takes half a second to import

    assert len(values) >= 2, "an interval over seeds needs two seeds"
    mean = math.fsum(values) / len(values)
    own = np.asarray(values, float) - mean
    sem = float(np.std(own, ddof=1)) / len(values) ** 0.5
    quantile, furthest = (float(stdtrit(len(values) - 1, (1 + part) / 2)) for part in (CONFIDENCE, FURTHEST))
    variance = float(np.mean(own**2))
    skewness = float(np.mean(own**3)) / variance**1.5 if variance > 0 else 0.0
    shift = skewness / len(values) ** 0.5

    def without(t: float) -> float:
        """The t whose transform, t + t² shift / 3 + t³ shift² / 27 + shift / 6, is this quantile."""
        if abs(shift) < LEAST_SHIFT:
            return t
        found = float(3 / shift * (np.cbrt(1 + shift * (t - shift / 6)) - 1))
        return min(furthest, max(-furthest, found))

    return Estimate(mean, (mean - sem * without(quantile), mean - sem * without(-quantile)), "seeds")


def least_detectable(values: Sequence[float]) -> float | None:
    """The true mean that as many new seeds, spread like these, would tell from 0 with 80 % power.

    None where no spread was seen: of one seed, or of a few that agree exactly.

    Told from 0: by the two-sided t-test of level .05, the paired one where each value is a difference within a seed.
    The spread is the one seen, so it is as uncertain as that: over five seeds, the true one may be .6 to 2.9 times it.
    """
    from scipy.special import nctdtrinc, stdtrit

    if np.ptp(values) < EQUAL:
        return None
    freedom = len(values) - 1
    sem = np.std(np.asarray(values, float), ddof=1) / len(values) ** 0.5
    # In units of sem: the noncentrality at which t falls below its critical value in the remaining 20 %. The other
    # tail adds less than a millionth to the power.
    critical = stdtrit(freedom, (1 + CONFIDENCE) / 2)
    return float(sem * nctdtrinc(freedom, 1 - POWER, critical))


def over_entities(
    statistic: Callable[[Sequence[float]], float],
    groups: Sequence[Mapping[str, float]],
    resamples: int = 2000,
) -> Estimate:
    """Percentile bootstrap over entities, for a single seed.

    Args:
        statistic: takes the mean of each group and returns the number of interest, such as a difference.
        groups: for each group (such as the subsets of a gap), entity → its mean over questions.
        resamples: bootstrap resamples.
    """
    rng = np.random.default_rng(0)
    resampled = []
    for group in groups:
        values = np.array(list(group.values()))
        resampled.append(values[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1))
    draws = [statistic(means) for means in zip(*resampled, strict=True)]
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    mean = statistic([math.fsum(group.values()) / len(group) for group in groups])
    return Estimate(mean, (float(low), float(high)), "entities")


def sign_flip_p(values: Sequence[float]) -> float | None:
    """Two-sided p-value of the sign-flip permutation test that the mean over seeds is 0; None for a single seed.

    Under no effect each seed's gap is as likely as its negative. All 2^n flips are enumerated for up to 13 seeds; the
    smallest p that n seeds can give is then 2 / 2^n: .0625 for 5 seeds, .002 for 10.
    """
    if len(values) < 2:
        return None
    signs = _signs(len(values))
    extra = int(2 ** len(values) > RESAMPLES)  # the flips that were seen are one more
    own = np.asarray(values, float)
    observed, means = own.mean(), (signs * own[:, None]).mean(axis=0)
    slack = abs(observed) * 100 * np.finfo(float).eps
    extreme = min(np.count_nonzero(means <= observed + slack), np.count_nonzero(means >= observed - slack))
    return min(1.0, float((extreme + extra) / (len(means) + extra) * 2))


@lru_cache(maxsize=8)
def _signs(seeds: int) -> NDArray[np.float64]:
    """Flips of a sign for each seed, of shape (seeds, flips): all there are, or RESAMPLES of very many."""
    if 2**seeds > RESAMPLES:
        return _drawn_signs(seeds)
    return np.array(list(itertools.product((1.0, -1.0), repeat=seeds))).T.copy()


def _drawn_signs(seeds: int) -> NDArray[np.float64]:
    """RESAMPLES draws of a sign for each seed, of shape (seeds, draws): the same with every version of numpy."""
    numbers = seeds * RESAMPLES
    stream = hashlib.shake_256(b"sign flips").digest(-(-numbers // 8))
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=numbers)
    return np.where(bits.reshape(seeds, RESAMPLES) > 0, 1.0, -1.0)
