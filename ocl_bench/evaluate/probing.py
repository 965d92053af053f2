"""Linear probes: L2 logistic regressions from activations, fitted to folds of the entities and tried on the others."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from ocl_bench.errors import Diverged
from ocl_bench.evaluate.activations import Activations, Look
from ocl_bench.evaluate.evaluator import Loaded
from ocl_bench.evaluate.probes import Reading, Shown, Text, kind_of, marked, positions_of
from ocl_bench.models.encoding import Encoded
from ocl_bench.tasks.mechanisms import Pair, Position, Probes
from ocl_bench.tasks.schema import Task

# Of the activations' size: what varies by less is rounding. Where texts begin alike there is nothing else, and scaled
# up it could tell which of them were computed together.
ROUNDING = 1e-5


def read_all(
    loaded: Loaded, task: Task, probes: Probes, shown: Mapping[Pair, Mapping[Text, Sequence[Shown]]], seed: int
) -> list[Reading]:
    """What probes read of each contrast at each position and layer.

    Args:
        loaded: the model.
        task, probes: what is asked of it.
        shown: the texts (`shown_texts`).
        seed: decides folds and shuffled labels.

    Raises:
        Diverged: if activations are not numbers.
    """
    records = {one.record.id: one.record for kinds in shown.values() for own in kinds.values() for one in own}
    texts = dict(zip(records, range(len(records)), strict=True))
    encoded = loaded.encoder(
        [(one.given, one.completion) for one in records.values()], [marked(task, one) for one in records.values()]
    )
    looks: dict[Look, int] = {}
    places: list[tuple[Pair, Position, list[int], Labelled]] = []
    for pair, kinds in shown.items():
        labelled = {kind: Labelled.of(own, probes, seed) for kind, own in kinds.items() if own}
        for position in positions_of(task, pair, kinds, probes.positions):
            numbers = [texts[one.record.id] for one in kinds[kind_of(position)]]
            own = [Look(number, token_of(encoded[number], position)) for number in numbers]
            where = [looks.setdefault(look, len(looks)) for look in own]
            places.append((pair, position, where, labelled[kind_of(position)]))
    with tempfile.TemporaryDirectory() as folder:
        found = Activations(loaded, encoded, list(looks), probes.layers, Path(folder))
        return [
            read(found.of(layer)[own], labelled, probes.c, pair, position, layer)
            for pair, position, own, labelled in places
            for layer in found.layers
            if found.has(own[0], layer)
        ]


def token_of(encoded: Encoded, position: Position) -> int:
    """Where a position is in prompt + completion; 0 for a picture."""
    if encoded.media:
        return 0
    return len(encoded.prompt) - 1 if position == "question/end" else encoded.spans[position][1] - 1


@dataclass(frozen=True)
class Labelled:
    """What probes of the same texts share.

    Attributes:
        first: whether each text is of the first subset, shape (texts,).
        entities: number of the entity that each is about, shape (texts,).
        folds: of each, shape (texts,); an entity is in one.
        shuffles: how often labels are shuffled.
        seed: decides folds and shuffles.
    """

    first: NDArray[np.bool_]
    entities: NDArray[np.int64]
    folds: NDArray[np.int64]
    shuffles: int
    seed: int

    @classmethod
    def of(cls, shown: Sequence[Shown], probes: Probes, seed: int) -> "Labelled":
        """Deal texts to folds, with about as many of either subset in each."""
        first = np.array([one.first for one in shown])
        _, entities = np.unique([one.about for one in shown], return_inverse=True)
        folds = np.empty(len(shown), np.int64)
        dealer = StratifiedGroupKFold(probes.folds, shuffle=True, random_state=seed)
        for number, (_, tried) in enumerate(dealer.split(first, first, entities)):
            folds[tried] = number
        return cls(first, entities, folds, probes.shuffles, seed)

    def labels(self, layer: int) -> NDArray[np.bool_]:
        """The labels, then the same shuffled, shape (1 + shuffles, texts); each layer has shuffles of its own.

        They are shuffled within folds, so that a fold has as many of either as it has in truth.
        """
        found, rng = np.tile(self.first, (1 + self.shuffles, 1)), np.random.default_rng([self.seed, layer])
        for shuffled in found[1:]:
            for number in np.unique(self.folds):
                own = np.flatnonzero(self.folds == number)
                shuffled[own] = rng.permutation(shuffled[own])
        return found


def read(
    vectors: NDArray[np.float32], labelled: Labelled, c: float, contrast: Pair, position: Position, layer: int
) -> Reading:
    """Fit and try the probes of one layer and position.

    Args:
        vectors: activations, shape (texts, width).
        labelled: of the texts.
        c: inverse strength of the L2 penalty, of features that are scaled to a variance of 1 in the folds fitted to.
        contrast, position, layer: what the reading is of.
    """
    if not np.isfinite(vectors).all():
        raise Diverged("the model's activations are no longer numbers: training diverged; lower recipe.learning_rate.")
    given = vectors.astype(np.float64)
    given[:, given.std(axis=0) <= ROUNDING * np.sqrt(np.mean(given**2))] = 0
    labels = labelled.labels(layer)
    right = np.full(labels.shape, 0.5)  # what a guess has, where there is nothing to read
    if given.any():
        for number in np.unique(labelled.folds):
            tried = labelled.folds == number
            scaler = StandardScaler().fit(given[~tried])
            fitted_to, tried_on = scaler.transform(given[~tried]), scaler.transform(given[tried])
            for own, found in zip(labels, right, strict=True):
                found[tried] = _says(fitted_to, own[~tried], tried_on, c) == own[tried]
    accuracies = [_balanced(found, own) for found, own in zip(right, labels, strict=True)]
    return Reading(
        contrast=contrast,
        position=position,
        layer=layer,
        accuracy=accuracies[0],
        stderr=_stderr(right[0], labelled),
        controls=tuple(accuracies[1:]),
        n=len(labelled.first),
        entities=len(np.unique(labelled.entities)),
    )


def _says(
    fitted_to: NDArray[np.float64], labels: NDArray[np.bool_], tried_on: NDArray[np.float64], c: float
) -> NDArray[np.bool_]:
    """Of which texts a probe, to which both labels have the same weight, says that they are of the first subset."""
    weights = 0.5 / np.where(labels, labels.mean(), 1 - labels.mean())
    with config_context(assume_finite=True, skip_parameter_validation=True):  # which would take as long as the fit
        probe = LogisticRegression(C=c, max_iter=1000).fit(fitted_to, labels, sample_weight=weights)
    said: NDArray[np.bool_] = tried_on @ probe.coef_[0] + probe.intercept_[0] > 0
    return said


def _balanced(right: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Mean of the two labels' accuracies: .5 by chance, however many have either."""
    return float(right[labels].mean() + right[~labels].mean()) / 2


def _stderr(right: NDArray[np.float64], labelled: Labelled) -> float:
    """Standard error of the balanced accuracy, if entities with all their texts were drawn anew."""
    off = np.empty(len(right))
    for own in (labelled.first, ~labelled.first):
        off[own] = (right[own] - right[own].mean()) / (2 * own.sum())
    return float(np.sqrt(np.sum(np.bincount(labelled.entities, off) ** 2)))
