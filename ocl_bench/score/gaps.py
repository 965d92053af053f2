"""The gaps, and how samples become them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from ocl_bench.evaluate.questions import asked_after
from ocl_bench.score.metrics import METRICS, Metric
from ocl_bench.score.result import Gap, SetScores, Value
from ocl_bench.score.samples import Columns, Sample, columns, told
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
    """Means of samples of the stage at which their subset is scored.

    Samples are added a seed at a time, and those of no more than the last are kept: of a hundred seeds they would not
    fit into memory.

    Args:
        stages: subset → the stage at whose end it is scored.
        again: gives a seed's samples once more; an interval over entities, of a single seed, may take them.
    """

    def __init__(self, stages: Mapping[str, str], again: Callable[[int], Iterable[Sample]]) -> None:
        self._stages, self._again = stages, again
        self.subsets: list[str] = []  # that have samples, in the order of the design
        # subset → seed → questions answered, over its stage-2 seeds
        self._questions: dict[str, dict[int, int]] = defaultdict(dict)
        # metric, subset → seed → mean over its stage-2 seeds of the mean over questions
        self._per_seed: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        # metric, subset → chance level → questions that have it: few are different
        self._chance: dict[tuple[str, str], Counter[float]] = defaultdict(Counter)
        self._needed: set[str] = set()
        self._kept: tuple[int, list[Sample]] | None = None

    def add(self, seed: int, samples: Iterable[Sample]) -> None:
        """Take in all samples of one seed."""
        by_subset: dict[str, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
        for one in self._keep(seed, samples):
            by_subset[one.record.subset][one.stage2_seed].append(one)
        for subset, by_stage2 in by_subset.items():
            self._add(subset, seed, list(map(columns, by_stage2.values())))
        self.subsets = [name for name in ASKED if name in self._questions]

    def _add(self, subset: str, seed: int, by_stage2: Sequence[Columns]) -> None:
        self._questions[subset][seed] = sum(len({one.id for one in own.records}) for own in by_stage2)
        records = [one for own in by_stage2 for one in own.records]
        guesses = [one for own in by_stage2 for one in own.chance]
        counted = Counter(guesses)
        for metric in METRICS.values():
            which = metric.name, subset
            measured = [told(own.measured(metric)) for own in by_stage2]
            if all(measured):
                self._per_seed[which][seed] = fmean(map(fmean, measured))
            if metric.accuracy:
                self._chance[which].update(map(metric.chance, guesses, records) if metric.chance else counted)
            if metric.name not in self._needed and any(map(metric.needs, records)):
                self._needed.add(metric.name)

    def _keep(self, seed: int, samples: Iterable[Sample]) -> list[Sample]:
        """Those that are scored, in place of those that were kept before."""
        scored = [one for one in samples if self._stages.get(one.record.subset) == one.stage]
        self._kept = seed, scored
        return scored

    def need(self, metric: Metric) -> bool:
        """Whether any question gives reason to report a metric."""
        return metric.name in self._needed

    def questions(self, subset: str) -> int:
        """Questions answered, over all seeds and stage-2 seeds."""
        return sum(self._questions[subset].values())

    def chance(self, metric: Metric, subset: str) -> float:
        """Mean chance level of its questions."""
        return fmean(list(self._chance[metric.name, subset].elements()))

    def per_seed(self, metric: Metric, subset: str) -> dict[int, float]:
        """Seed → mean over its stage-2 seeds of the mean over questions."""
        return self._per_seed[metric.name, subset]

    def per_entity(self, metric: Metric, subset: str, seed: int) -> dict[str, float]:
        """Entity → mean over questions and stage-2 seeds, for one seed."""
        merged: dict[str, list[float]] = {}
        kept, samples = self._kept or (None, [])
        samples = samples if kept == seed else self._keep(seed, self._again(seed))
        own = columns([one for one in samples if one.record.subset == subset])
        for record, value in zip(own.records, own.measured(metric), strict=True):
            values = merged.setdefault(record.entity, [])
            if value is not None:
                values.append(value)
        return {entity: fmean(values) for entity, values in merged.items() if values}


def score_set(scores: Scores, stages: Mapping[str, str]) -> SetScores:
    """Every metric of every subset, and of every gap whose two subsets exist, of one set of questions.

    Args:
        scores: of the set's samples.
        stages: subset → the stage at whose end it is scored.
    """
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
