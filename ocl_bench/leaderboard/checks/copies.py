"""Submissions whose answers or weights are another's, perhaps with some noise.

Of the thirteen submissions that the suite began with, no two agree on more than 43 % of the answers of a training, or
correlate above .54 (ranks) in their log-probabilities, and none has a log-probability to the last digit of another.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from ocl_bench.leaderboard.checks.reading import Checked, Floats, Hashes
from ocl_bench.leaderboard.untrusted import Problem

EQUAL_LOGPROBS = 0.05  # share; none in honest pairs, but for saturated models
CORRELATED, AGREEING = 0.85, 0.7
LEAST_ANSWERS = 30

Fingerprint = tuple[Floats, Hashes]


class Seen:
    """What was submitted so far, in little memory: weights, and a fingerprint of the answers of each stage."""

    def __init__(self) -> None:
        self._weights: dict[str, str] = {}
        self._answers: dict[tuple[str, str, str, int], list[tuple[str, Fingerprint]]] = {}

    def look(self, checked: Checked) -> list[Problem]:
        """What of a submission is a copy of what was seen; it is remembered after that."""
        if checked.manifest is None or checked.submission is None:
            return []
        place = checked.submission.place
        found = sorted({*self._same_weights(checked), *self._same_answers(checked)})
        for weights in _weights(checked):
            self._weights.setdefault(weights, place)
        for key, fingerprint in _keyed(checked):
            self._answers.setdefault(key, []).append((place, fingerprint))
        return [Problem("", "", f"its {what} are those of {other}: one of the two is a copy") for other, what in found]

    def _same_weights(self, checked: Checked) -> Iterator[tuple[str, str]]:
        for weights in _weights(checked):
            other = self._weights.get(weights)
            if other is not None and checked.submission and other != checked.submission.place:
                yield other, "weights"

    def _same_answers(self, checked: Checked) -> Iterator[tuple[str, str]]:
        for key, own in _keyed(checked):
            for place, other in self._answers.get(key, []):
                if checked.submission and place != checked.submission.place and is_copy(own, other):
                    yield place, "answers"


def is_copy(first: Fingerprint, second: Fingerprint) -> bool:
    """Whether two models' answers to the same questions are too much alike to be of two trainings.

    Args:
        first, second: log-probabilities, and hashes of what was generated, by question in the same order.
    """
    (logprobs, said), (others, also_said) = first, second
    if len(logprobs) != len(others) or len(logprobs) < LEAST_ANSWERS:
        return False
    # Log-probabilities of a saturated model are 0 for many questions: those say nothing.
    telling = (logprobs < -1e-3) | (others < -1e-3)
    count = np.count_nonzero(telling)
    if count < LEAST_ANSWERS:
        return False
    # Every pair of entries is compared: counting takes a fourth of the time of picking out what is telling.
    if np.count_nonzero((logprobs == others) & telling) / count > EQUAL_LOGPROBS:
        return True
    agreeing = float(np.count_nonzero((said == also_said) & telling) / count)
    return agreeing > AGREEING and _rank_correlation(logprobs[telling], others[telling]) > CORRELATED


def _rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's: what noise leaves as it is, and no single outlier makes large."""
    ranks = np.stack([np.argsort(np.argsort(values)).astype(np.float64) for values in (first, second)])
    return float(np.corrcoef(ranks)[0, 1])


def _weights(checked: Checked) -> Iterable[str]:
    assert checked.manifest is not None
    return {record.weights_after for stages in checked.manifest.stages.values() for record in stages.values()}


def _keyed(checked: Checked) -> Iterator[tuple[tuple[str, str, str, int], Fingerprint]]:
    """Fingerprints of each stage, by what decides its questions."""
    assert checked.manifest is not None
    for (cell, stage), fingerprint in checked.fingerprint.items():
        dataset = checked.manifest.datasets.get(cell, "")
        yield (dataset, cell, stage, len(fingerprint[0])), fingerprint
