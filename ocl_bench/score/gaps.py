"""The gaps, and how samples become them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from statistics import fmean
from typing import Any

from ocl_bench.evaluate.questions import asked_after
from ocl_bench.score.metrics import METRICS, Metric
from ocl_bench.score.result import Gap, SetScores, Value
from ocl_bench.score.samples import Sample
from ocl_bench.score.statistics import Estimate, over_entities, over_seeds, sign_flip_p
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task, split_of
from ocl_bench.tasks.subsets import ASKED

# gap → (subset, subset): the first minus the second, paired within a seed.
GAPS = {
    "ocl_gap": ("d1_cons_qa", "d2_incons_qa"),
    "ocl_gain": ("d1_cons_qa", "qa_only"),
    "meta_ocl_gap": ("d1_cons", "d2_cons"),
    "fresh_tag_gap": ("d3_cons", "d2_cons"),
    "internalisation": ("d1_cons", "unseen"),
    # How much of an answer depends on which variable is asked about: 0 for a model that answers alike for all.
    "d1_binding_gap": ("d1_cons", "d1_swapped"),
    "d2_binding_gap": ("d2_cons", "d2_swapped"),
}


def final_stages(task: Task) -> dict[str, str]:
    """Subset → the stage at whose end it is scored: the last that trains on it, or the last of all."""
    last = {"test": task.stages[-1].name}
    for stage in task.stages:
        for selector in stage.train:
            last[split_of(selector)] = stage.name
    # Every subset has an entry, whether or not the task uses it; what no stage trains on is scored at the end.
    return {name: last.get(subset.split, last["test"]) for name, subset in ASKED.items()}


def scored_questions(
    task: Task, records: Sequence[Record], limit: int | None, seed: int, stage: str | None = None
) -> list[Record]:
    """The questions of a dataset whose answers are scored, in the dataset's order.

    Args:
        task: the task.
        records: the dataset.
        limit: questions per subset and kind; None takes all. They are those that a run with this limit asks.
        seed: stage-1 seed, which decides which they are.
        stage: only those that are scored at the end of this one; None takes all.
    """
    scored_at = final_stages(task)
    asked = {
        record.id
        for one in task.stages
        if stage in (None, one.name)
        for record in asked_after(task, one.name, records, limit, seed)
        if scored_at[record.subset] == one.name
    }
    return [record for record in records if record.id in asked]


class Scores:
    """Samples of the stage at which their subset is scored, and their means."""

    def __init__(self, samples: Iterable[Sample], stages: dict[str, str]) -> None:
        # subset → seed → stage-2 seed → samples
        self.samples: dict[str, dict[int, dict[int, list[Sample]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for sample in samples:
            subset = sample.record.subset
            if stages.get(subset) == sample.stage:
                self.samples[subset][sample.seed][sample.stage2_seed].append(sample)
        # Each is asked for by every metric, or by several gaps.
        self._per_seed: dict[tuple[str, str], dict[int, float]] = {}
        self._of: dict[tuple[str, int, int], tuple[Sequence[Any], ...]] = {}
        self._questions: dict[str, int] = {}
        self._chance: dict[tuple[str, str], float] = {}

    @cached_property
    def subsets(self) -> list[str]:
        """Subsets that have samples, in the order of the design."""
        return [name for name in ASKED if name in self.samples]

    def need(self, metric: Metric) -> bool:
        """Whether any question gives reason to report a metric."""
        by_stage2 = (own for by_seed in self.samples.values() for by in by_seed.values() for own in by.values())
        return any(metric.needs(one.record) for own in by_stage2 for one in own)

    def seeds(self, *subsets: str) -> list[int]:
        """Seeds that have samples of all the given subsets."""
        return sorted(set.intersection(*(set(self.samples[name]) for name in subsets)))

    def questions(self, subset: str) -> int:
        """Questions answered, over all seeds and stage-2 seeds."""
        if subset not in self._questions:
            self._questions[subset] = sum(
                len({one.record.id for one in own}) for by in self.samples[subset].values() for own in by.values()
            )
        return self._questions[subset]

    def chance(self, metric: Metric, subset: str) -> float:
        """Mean chance level of its questions."""
        which = metric.name, subset
        if which not in self._chance:
            every = [one for by in self.samples[subset].values() for own in by.values() for one in own]
            self._chance[which] = fmean([metric.chance(one.chance, one.record) for one in every])
        return self._chance[which]

    def per_seed(self, metric: Metric, subset: str) -> dict[int, float]:
        """Seed → mean over its stage-2 seeds of the mean over questions."""
        which = metric.name, subset
        if which not in self._per_seed:
            found = self._per_seed[which] = {}
            for seed, by_stage2 in self.samples[subset].items():
                measured = [
                    [
                        value
                        for value in map(metric.measure, *self._columns(subset, seed, stage2_seed))
                        if value is not None
                    ]
                    for stage2_seed in by_stage2
                ]
                if all(measured):
                    found[seed] = fmean(map(fmean, measured))
        return self._per_seed[which]

    def _columns(self, subset: str, seed: int, stage2_seed: int) -> tuple[Sequence[Any], ...]:
        """What metrics are computed from, a column each: every metric goes over them."""
        which = subset, seed, stage2_seed
        if which not in self._of:
            own = self.samples[subset][seed][stage2_seed]
            self._of[which] = tuple(zip(*((one.answer, one.record, one.values) for one in own), strict=True))
        return self._of[which]

    def per_entity(self, metric: Metric, subset: str, seed: int) -> dict[str, float]:
        """Entity → mean over questions and stage-2 seeds, for one seed."""
        merged: dict[str, list[float]] = defaultdict(list)
        for own in self.samples[subset][seed].values():
            for one in own:
                value = metric.measure(one.answer, one.record, one.values)
                if value is not None:
                    merged[one.record.entity].append(value)
        return {entity: fmean(values) for entity, values in merged.items()}


def score_set(samples: Iterable[Sample], task: Task) -> SetScores:
    """Every metric of every subset, and of every gap whose two subsets exist, of one set of questions."""
    stages = final_stages(task)
    scores = Scores(samples, stages)
    metrics: dict[str, dict[str, Value]] = defaultdict(dict)
    gaps: dict[str, dict[str, Gap]] = defaultdict(dict)
    for metric in METRICS.values():
        if not scores.need(metric):
            continue
        measured = [subset for subset in scores.subsets if scores.per_seed(metric, subset)]
        for subset in measured:
            metrics[subset][metric.name] = _value(scores, metric, subset, stages[subset])
        for name, pair in GAPS.items():
            if set(pair) <= set(measured) and set.intersection(*(set(scores.per_seed(metric, one)) for one in pair)):
                gaps[name][metric.name] = _gap(scores, metric, pair)
    return SetScores(metrics=dict(metrics), gaps=dict(gaps))


def _value(scores: Scores, metric: Metric, subset: str, stage: str) -> Value:
    per_seed = scores.per_seed(metric, subset)
    estimate = _estimate(scores, metric, (subset,), per_seed)
    return Value(
        mean=estimate.mean,
        ci95=metric.within(estimate.ci95),
        interval=estimate.interval,
        n=scores.questions(subset),
        chance=scores.chance(metric, subset) if metric.accuracy else None,
        seeds=len(per_seed),
        stage=stage,
        per_seed={str(seed): value for seed, value in sorted(per_seed.items())},
    )


def _gap(scores: Scores, metric: Metric, pair: tuple[str, str]) -> Gap:
    upper, lower = (scores.per_seed(metric, subset) for subset in pair)
    differences = {seed: upper[seed] - lower[seed] for seed in sorted(set(upper) & set(lower))}
    estimate = _estimate(scores, metric, pair, differences)
    return Gap(
        mean=estimate.mean,
        ci95=estimate.ci95,
        interval=estimate.interval,
        p=sign_flip_p(list(differences.values())),
        n=sum(map(scores.questions, pair)),
        seeds=len(differences),
        per_seed={str(seed): value for seed, value in differences.items()},
    )


def _estimate(scores: Scores, metric: Metric, subsets: tuple[str, ...], per_seed: dict[int, float]) -> Estimate:
    if len(per_seed) >= 2:
        return over_seeds(list(per_seed.values()))
    ((seed, value),) = per_seed.items()
    groups = [scores.per_entity(metric, subset, seed) for subset in subsets]
    estimate = over_entities(lambda means: means[0] - means[1] if len(means) == 2 else means[0], groups)
    return Estimate(value, estimate.ci95, estimate.interval)
