"""The evaluator that asks whether definitions pull the weights where the questions about their variables do.

Its rows are looks at a model: of each variable, the gradient of its definitions beside the mean gradient of its
questions, and as the control beside that of another variable's, of the same subset and, as far as there are any, with
the same questions; and the gradients of a batch of what the stage trains on beside each other (the paper's explanation:
SGD prefers weights where these agree).
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.evaluate.evaluator import Found, Loaded, Moment, Wanted
from ocl_bench.evaluate.questions import within_memory
from ocl_bench.tasks.mechanisms import Gradients
from ocl_bench.tasks.records import Record, dataset_sha256

if TYPE_CHECKING:
    from ocl_bench.models.batches import Datapoint


class Alignment(Contract):
    """The gradient of a variable's definitions beside those of questions. Losses are those that training has."""

    variable: str = Field(description="the variable")
    entity: str = Field(description="the entity that its questions are about")
    cosine: float = Field(description="with the mean gradient of its own questions; 0 where one of them is 0")
    cosine_other: float = Field(description="with that of another variable's questions")
    dot: float = Field(description="product with the mean gradient of its own questions")
    dot_other: float = Field(description="product with that of another variable's questions")
    definition_norm: float = Field(ge=0, description="norm of the definitions' gradient")
    question_norm: float = Field(ge=0, description="norm of its own questions' mean gradient")


class BatchGradients(Contract):
    """Gradients of datapoints of what a stage trains on, drawn as for a batch, beside each other."""

    n: int = Field(ge=2, description="datapoints")
    pairwise_cosine: float = Field(description="mean over pairs of two")
    mean_cosine: float = Field(description="mean cosine of each with the mean gradient")
    variance: float = Field(ge=0, description="mean squared distance from the mean gradient")
    squared_norm: float = Field(ge=0, description="squared norm of the mean gradient")


class GradientLook(Contract):
    """One look at a model."""

    stage: str = Field(description="the finetuning stage")
    epoch: int | None = Field(ge=1, description="epochs of the stage that are over; null after the stage")
    subsets: dict[str, tuple[Alignment, ...]] = Field(description="subset → its variables")
    batch: BatchGradients = Field(description="a batch of what the stage trains on")


@dataclass(frozen=True)
class Variable:
    """What is known of a variable: its definitions, and its questions, trained on or not."""

    name: str
    definitions: tuple[Record, ...]
    questions: tuple[Record, ...]

    @property
    def entity(self) -> str:
        """The entity that its questions are about."""
        return self.questions[0].entity

    @property
    def asked(self) -> tuple[str, ...]:
        """Which questions of their kind there are."""
        return tuple(sorted(one.group for one in self.questions))


class GradientsEvaluator:
    """Looks at gradients after each stage that is not shared by all seeds, and at the end of some of its epochs.

    Args:
        wanted: what the run asks.
        settings: what of gradients.
    """

    name = "gradients"
    row = GradientLook
    summary = "ocl_bench.score.gradients:summarise"

    def __init__(self, wanted: Wanted, settings: Gradients) -> None:
        self.wanted, self.of_task = wanted, settings
        self.variables = {
            subset: drawn_variables(wanted.records, subset, settings.variables, wanted.seed)
            for subset in settings.subsets
        }
        self._batches: dict[str, list[Record]] = {}
        self._settings: dict[tuple[str, bool], dict[str, Any]] = {}

    @classmethod
    def of(cls, wanted: Wanted) -> "GradientsEvaluator | None":
        """Nothing if the task does not ask for gradients."""
        settings = wanted.task.evaluate.gradients
        return None if settings is None else cls(wanted, settings)

    def asks(self, moment: Moment) -> bool:
        """After stages, and in the epochs that are chosen."""
        if moment.when == "before" or self._number(moment.stage) < self.wanted.task.shared_stages:
            return False
        return moment.when == "after" or moment.epoch in self.of_task.epochs

    def _number(self, stage: str) -> int:
        return [one.name for one in self.wanted.task.stages].index(stage)

    def batch(self, stage: str) -> list[Record]:
        """Datapoints as a batch of a stage may have them."""
        if stage not in self._batches:
            pools, counts = zip(*self.wanted.epoch(stage), strict=True)
            rng = random.Random(f"gradients batch {self.wanted.seed} {stage}")
            drawn = rng.choices(pools, counts, k=self.of_task.batch)
            self._batches[stage] = [rng.choice(pool) for pool in drawn]
        return self._batches[stage]

    def settings(self, moment: Moment) -> dict[str, Any]:
        """The records, what of them is trained on, and in training the epochs."""
        key = moment.stage, moment.when == "epoch"
        if key not in self._settings:
            variables = [one for own in self.variables.values() for one in own]
            records = [record for one in variables for record in (*one.definitions, *one.questions)]
            found = {
                "subsets": {subset: len(own) for subset, own in self.variables.items()},
                "records": dataset_sha256(records),
                "batch": dataset_sha256(self.batch(moment.stage)),
                "loss": self.wanted.loss,
            }
            self._settings[key] = found | ({"epochs": list(self.of_task.epochs)} if moment.when == "epoch" else {})
        return self._settings[key]

    def run(self, loaded: Loaded, moment: Moment) -> Found:
        """One look."""
        from ocl_bench.evaluate.per_example import PerExample, alignments, all_products
        from ocl_bench.models.group import rank

        if rank() > 0:  # the first has all of the model, and writes
            return Found([])
        subsets = {subset: [self._points(loaded, one) for one in own] for subset, own in self.variables.items()}
        ((definition, *_), (question, *_)), *_ = next(iter(subsets.values()))
        gradients = PerExample(loaded.model, loaded.encoder.pad_id, [definition, question])
        found = {}
        for subset, own in self.variables.items():
            products = within_memory(gradients, partial(alignments, gradients, subsets[subset], controls(own)))
            found[subset] = tuple(_alignment(one, *products[number]) for number, one in enumerate(own))
        batch = self._encoded(loaded, self.batch(moment.stage))
        look = GradientLook(
            stage=moment.stage,
            epoch=moment.epoch if moment.when == "epoch" else None,
            subsets=found,
            batch=batch_gradients(within_memory(gradients, partial(all_products, gradients, batch))),
        )
        return Found([look], {"by_vmap": len(gradients.slow), "looped": int(gradients.looped)})

    def _points(self, loaded: Loaded, one: Variable) -> "tuple[list[Datapoint], list[Datapoint]]":
        points = self._encoded(loaded, (*one.definitions, *one.questions))
        return points[: len(one.definitions)], points[len(one.definitions) :]

    def _encoded(self, loaded: Loaded, records: Sequence[Record]) -> "list[Datapoint]":
        """As training has them; of pictures, each with scans of its own."""
        from ocl_bench.models.batches import datapoints

        encoded = loaded.encoder([(one.given, one.completion) for one in records])
        points = datapoints(encoded, loaded.encoder.seq2seq, self.wanted.loss)
        return [
            one if one.shown is None else replace(one, shown=replace(one.shown, draw=number))
            for number, one in enumerate(points)
        ]


def drawn_variables(records: Sequence[Record], subset: str, most: int, seed: int) -> list[Variable]:
    """Variables of a subset that have a definition and questions, as many as asked for, by seed.

    Those of which the same is asked follow each other.
    """
    found: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for one in records:
        if one.subset == subset and one.kind in ("definition", "qa"):
            found[one.variable][one.kind].append(one)
    whole = [Variable(name, tuple(own["definition"]), tuple(own["qa"])) for name, own in found.items() if len(own) == 2]
    drawn = random.Random(f"gradients {seed} {subset}").sample(whole, min(most, len(whole)))
    return sorted(drawn, key=lambda one: one.asked)


def controls(variables: Sequence[Variable]) -> list[int]:
    """For each variable, the number of the one whose questions are its control: the next of another entity."""
    count = len(variables)
    return [
        next(n % count for n in range(own + 1, own + count) if variables[n % count].entity != variables[own].entity)
        for own in range(count)
    ]


def _alignment(
    one: Variable, definition: float, question: float, other: float, dot: float, dot_other: float
) -> Alignment:
    """Of squared norms, of the definitions' gradient and of both questions' gradients, and products."""
    return Alignment(
        variable=one.name,
        entity=one.entity,
        cosine=_cosine(dot, definition, question),
        cosine_other=_cosine(dot_other, definition, other),
        dot=dot,
        dot_other=dot_other,
        definition_norm=sqrt(definition),
        question_norm=sqrt(question),
    )


def _cosine(dot: float, *squares: float) -> float:
    return dot / sqrt(prod(squares)) if all(squares) else 0.0


def batch_gradients(products: NDArray[np.float64]) -> BatchGradients:
    """What the products of all pairs of datapoints' gradients, shape (datapoints, datapoints), say of a batch."""
    count, squares, with_mean = len(products), products.diagonal(), products.mean(axis=1)
    norms = np.sqrt(squares)
    units = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    of_mean = max(0.0, float(with_mean.mean()))
    cosines = units[:, None] * products * units
    return BatchGradients(
        n=count,
        pairwise_cosine=float((cosines.sum() - cosines.trace()) / (count * (count - 1))),
        mean_cosine=float((with_mean * units).mean() / sqrt(of_mean)) if of_mean else 0.0,
        variance=max(0.0, float(squares.mean()) - of_mean),
        squared_norm=of_mean,
    )
