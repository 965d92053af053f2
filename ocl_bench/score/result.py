"""The result file: what a run found, under a versioned schema."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from ocl_bench.contract import Contract
from ocl_bench.evaluate.engines import EngineRecord
from ocl_bench.score.metrics import EM, FORM, METRICS
from ocl_bench.score.probes import ProbeScore
from ocl_bench.text import Identifier, Line, Revision

Interval = Literal["seeds", "entities"]


class _OfMetrics:
    """Makes the JSON Schema say which metrics there are, and what each is."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        names = [{"const": one.name, "description": one.description} for one in METRICS.values()]
        return {"type": "string", "oneOf": names}


MetricName = Annotated[str, _OfMetrics]


class Value(Contract):
    """One metric of one subset."""

    mean: float = Field(description="mean over seeds")
    ci95: tuple[float, float] = Field(description="95 % interval of the mean")
    interval: Interval = Field(description="what the interval is about: new seeds, or new entities for the only seed")
    n: int = Field(ge=0, description="questions answered, over all seeds")
    chance: float | None = Field(description="accuracy of the best guess that does not look at the entity")
    seeds: int = Field(ge=1, description="stage-1 seeds")
    stage: Identifier = Field(description="the stage at whose end it was measured")
    per_seed: dict[str, float] = Field(description="seed → mean over its stage-2 seeds and questions")


class Gap(Contract):
    """The difference of two subsets in one metric, paired within a seed."""

    mean: float = Field(description="mean difference over seeds")
    ci95: tuple[float, float] = Field(description="95 % interval of the mean difference")
    interval: Interval = Field(description="what the interval is about: new seeds, or new entities for the only seed")
    p: float | None = Field(description="two-sided sign-flip permutation p over seeds; null for a single seed")
    n: int = Field(ge=0, description="questions answered in both subsets, over all seeds")
    seeds: int = Field(ge=1, description="stage-1 seeds")
    per_seed: dict[str, float] = Field(description="seed → difference")


class Disagreement(Contract):
    """Questions on which teacher forcing and generation disagree: the same answer spelled with other tokens, say."""

    n: int = Field(ge=0, description="questions answered both ways")
    differing: int = Field(ge=0, description="questions on which the two differ")


class Change(Contract):
    """What finetuning did to one metric of one task of lm-eval."""

    before: float = Field(description="mean over seeds before the first stage")
    after: float = Field(description="mean over seeds after the last stage")
    difference: float = Field(description="mean of after - before, paired within a seed")
    ci95: tuple[float, float] | None = Field(
        description="95 % interval of the difference; null for one seed of a metric without a standard error"
    )
    interval: Literal["seeds", "questions"] = Field(
        description="what the interval is about: new seeds, or new questions for the only seed"
    )
    n: int = Field(ge=0, description="questions asked after, over all seeds")
    seeds: int = Field(ge=1, description="stage-1 seeds")


class SetScores(Contract):
    """What one evaluation set found."""

    metrics: dict[str, dict[MetricName, Value]] = Field(description="subset → metric → value")
    gaps: dict[str, dict[MetricName, Gap]] = Field(description="gap → metric → value")


class Measured(Contract):
    """A quantity that is no score."""

    mean: float = Field(description="mean over seeds")
    ci95: tuple[float, float] | None = Field(description="95 % interval of the mean; null for one number of one seed")
    interval: Interval = Field(description="what the interval is about: new seeds, or new entities for the only seed")
    n: int = Field(ge=0, description="what was measured, over all seeds: variables, or datapoints of a batch")
    seeds: int = Field(ge=1, description="stage-1 seeds")
    per_seed: dict[str, float] = Field(description="seed → mean over its stage-2 seeds")


class GradientsAt(Contract):
    """Gradients of definitions beside those of questions, at one moment of all seeds."""

    stage: Identifier = Field(description="the stage")
    epoch: int | None = Field(ge=1, description="epochs of it that are over; null after the stage")
    subsets: dict[str, dict[str, Measured]] = Field(
        description="subset → quantity → its mean over variables; alignment is cosine - cosine_other"
    )
    gaps: dict[str, dict[str, Gap]] = Field(description="gap → cosine and alignment")
    batch: dict[str, Measured] = Field(description="quantity → that of a batch of what the stage trains on")


class Unlearned(Contract):
    """A stage that did not learn the data that it was trained on, so that a gap of 0 after it says nothing."""

    seed: int = Field(ge=0, description="stage-1 seed")
    stage2_seed: int = Field(ge=0, description="stage-2 seed")
    stage: Identifier = Field(description="the stage")
    train_loss: float = Field(ge=0, description="its training loss in the last epoch, in nats per labelled token")
    learned_below: float = Field(ge=0, description="what the recipe expects it to fall below")


class Results(Contract):
    """results.json."""

    schema_version: Literal[4] = Field(4, description="version of this format")
    task: Identifier = Field(description="task name")
    task_version: int = Field(ge=1, description="task version; results of different versions are not compared")
    model: str = Field(description="the model, as given")
    model_revision: Revision | None = Field(description="commit of a hub model")
    recipe: Identifier | None = Field(description="recipe name; null for a checkpoint that was evaluated as it is")
    engine: EngineRecord = Field(description="what generated the answers")
    seeds: tuple[int, ...] = Field(description="stage-1 seeds")
    stage2_seeds: tuple[int, ...] = Field(description="stage-2 seeds of each stage-1 seed")
    submittable: bool = Field(
        description="whether the standard division could take it: nothing limited, nothing modified"
    )
    metrics: dict[str, dict[MetricName, Value]] = Field(
        description="subset → metric → value, on the source's questions"
    )
    gaps: dict[str, dict[MetricName, Gap]] = Field(description="gap → metric → value, on the source's questions")
    sets: dict[str, SetScores] = Field(
        default_factory=dict, description="evaluation set, such as attribution/name → the same, asked in that way"
    )
    also: dict[str, dict[str, Change]] = Field(
        default_factory=dict, description="task of lm-eval → metric → what finetuning did to it"
    )
    probes: tuple[ProbeScore, ...] = Field(
        (), exclude_if=lambda probes: not probes, description="what linear probes read, if the task asks for them"
    )
    gradients: tuple[GradientsAt, ...] = Field(
        (), exclude_if=lambda found: not found, description="gradients of definitions and questions, by moment"
    )
    disagreement: Disagreement = Field(description="teacher forcing against generation, in their outcome")
    engine_check: Disagreement | None = Field(
        description="generated tokens against those that teacher forcing showed; null where there is nothing to compare"
    )
    unlearned: tuple[Unlearned, ...] = Field((), description="stages that did not learn their own training data")
    notes: tuple[Line, ...] = Field(description="what a reader has to know to use the numbers")

    def rows(self, per_seed: bool = False) -> list[dict[str, Any]]:
        """Every metric of every subset and gap, as rows of a table: column → value.

        Args:
            per_seed: whether there is a row for each seed, with its value, instead of one with mean and interval.
        """
        found: list[dict[str, Any]] = []
        for asked, scores in {"qa": SetScores(metrics=self.metrics, gaps=self.gaps), **self.sets}.items():
            scored: tuple[tuple[str, Mapping[str, Mapping[str, Value | Gap]]], ...] = (
                ("subset", scores.metrics), ("gap", scores.gaps),
            )  # fmt: skip
            for of, values in scored:
                for name, metrics in values.items():
                    for metric, one in metrics.items():
                        what = {"set": asked, "of": of, "name": name, "metric": metric}
                        if per_seed:
                            found += (what | {"seed": int(seed), "value": own} for seed, own in one.per_seed.items())
                        else:
                            found.append(what | _row(one))
        return found

    @property
    def below_chance(self) -> Value | None:
        """em of `unseen` if its interval is below chance, else None; None where `form` says more.

        Nothing was taught of these entities: to fall below a guess, a model has to guess badly, or to answer in a form
        that was not asked for, because the last stage took that form from it. Either hides what it knows of the others.
        """
        found = self.metrics.get("unseen", {})
        control = None if FORM.name in found else found.get(EM.name)
        return control if control and control.chance is not None and control.ci95[1] < control.chance else None


def _row(one: Value | Gap) -> dict[str, Any]:
    low, high = one.ci95
    row = {"mean": one.mean, "low": low, "high": high, "interval": one.interval, "seeds": one.seeds, "n": one.n}
    if isinstance(one, Gap):
        return row | {"p": one.p, "chance": None, "stage": None}
    return row | {"p": None, "chance": one.chance, "stage": one.stage}


def results_json_schema() -> dict[str, Any]:
    """JSON Schema of results.json."""
    return Results.model_json_schema()
