"""Score a run: samples in, results out. Needs no model and no torch."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import ne
from typing import Any

from ocl_bench.errors import OclBenchError, counted
from ocl_bench.evaluate.engines import EngineRecord
from ocl_bench.evaluate.evaluator import Observed
from ocl_bench.score.gaps import Scores, final_stages, score_set
from ocl_bench.score.metrics import EM, EM_FORCED, group_values, main_metric
from ocl_bench.score.result import Disagreement, Results, SetScores, Unlearned, Value
from ocl_bench.score.samples import Sample, columns, samples_of
from ocl_bench.score.statistics import FEW_SEEDS
from ocl_bench.tasks.build import chance_levels
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task


def score(
    found: Mapping[str, Any],
    task: Task,
    *,
    seeds: Sequence[int],
    stage2_seeds: Sequence[int],
    model: str,
    model_revision: str | None,
    recipe: str | None,
    engine: EngineRecord,
    engine_check: Disagreement | None,
    unlearned: Sequence[Unlearned],
    limit: int | None,
    modified: bool,
) -> Results:
    """A run's results.

    Args:
        found: fields of `Results` that evaluators' summaries give, those of `score_seeds` at least.
        task: what was run.
        seeds, stage2_seeds, model, model_revision, recipe, engine, engine_check, unlearned: copied into the result.
        limit: questions per subset if they were limited.
        modified: whether task, recipe or model loading differ from the suite's own.
    """
    return Results(
        task=task.task,
        task_version=task.version,
        model=model,
        model_revision=model_revision,
        recipe=recipe,
        engine=engine,
        seeds=tuple(sorted(seeds)),
        stage2_seeds=tuple(sorted(stage2_seeds)),
        submittable=limit is None and not modified and recipe is not None,
        engine_check=engine_check,
        unlearned=tuple(unlearned),
        notes=(*_notes(len(seeds), recipe, limit, modified), *_bar_notes(found, task)),
        **found,
    )


def score_samples(samples: Iterable[Sample], task: Task) -> dict[str, Any]:
    """As `score_seeds`, of samples that are in memory already."""
    by_seed: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_seed[sample.seed].append(sample)
    return score_seeds(by_seed, task)


def score_seeds(samples: Mapping[int, Iterable[Sample]], task: Task) -> dict[str, Any]:
    """Every metric and gap of answered questions, as fields of `Results`.

    Args:
        samples: seed → all its samples, of all stages. They are asked for a seed at a time, and let go of before the
            next; those of a single seed are asked for again.
        task: decides which stage each subset is scored at.

    Raises:
        OclBenchError: if there are no samples.
    """
    stages = final_stages(task)
    sets: dict[str, Scores] = {}
    count = differing = 0
    for seed in samples:
        by_set: dict[str, list[Sample]] = defaultdict(list)
        for one in samples[seed]:
            by_set[one.record.set].append(one)
        for name, own in by_set.items():
            asked = columns(own)
            count += len(own)
            differing += sum(map(ne, asked.measured(EM), asked.measured(EM_FORCED)))
            if name not in sets:
                sets[name] = Scores(stages, partial(_of_set, samples, name))
            sets[name].add(seed, own)
    if not count:
        raise OclBenchError("there are no samples to score; the run has not finished any seed.")
    found = {name: score_set(own, stages) for name, own in sorted(sets.items())}
    questions = found.pop("qa", SetScores(metrics={}, gaps={}))
    return {
        "metrics": questions.metrics,
        "gaps": questions.gaps,
        "sets": found,
        "disagreement": Disagreement(n=count, differing=differing),
    }


def _of_set(samples: Mapping[int, Iterable[Sample]], name: str, seed: int) -> Iterator[Sample]:
    return (one for one in samples[seed] if one.record.set == name)


def summarise_answers(
    observed: Sequence[Observed], task: Task, records: Mapping[tuple[int, int], Sequence[Record]]
) -> dict[str, Any]:
    """What the answers of a run give; see `ocl_bench.evaluate.evaluator.Summary`."""
    return score_seeds(_SeedSamples(observed, task, records), task)


class _SeedSamples(Mapping[int, Iterator[Sample]]):
    """Seed → its samples, which are made as they are asked for; arguments as of `summarise_answers`."""

    def __init__(
        self, observed: Sequence[Observed], task: Task, records: Mapping[tuple[int, int], Sequence[Record]]
    ) -> None:
        self._records, self._chance = records, chance_levels(task)
        # seed → stage-2 seed → what was found after its stages
        self._observed: dict[int, dict[int, list[Observed]]] = defaultdict(lambda: defaultdict(list))
        for one in observed:
            self._observed[one.seed][one.stage2_seed].append(one)

    def __iter__(self) -> Iterator[int]:
        return iter(self._observed)

    def __len__(self) -> int:
        return len(self._observed)

    def __getitem__(self, seed: int) -> Iterator[Sample]:
        for stage2_seed, stages in self._observed[seed].items():
            records = self._records[seed, stage2_seed]
            asked, values = {record.id: record for record in records}, group_values(records)
            for one in stages:
                yield from samples_of(
                    one.rows, asked, self._chance, values, stage=one.stage, seed=seed, stage2_seed=stage2_seed
                )


def below_bars(
    metrics: Mapping[str, Mapping[str, Value]], sets: Mapping[str, SetScores], task: Task
) -> dict[str, dict[str, float]]:
    """What models do not know after X0 that the task expects them to: subset → seed → its value; empty if nothing.

    Args:
        metrics, sets: of a result.
        task: what was run, with the bars.
    """
    x0, recall = task.design.x0, sets.get("recall")
    if x0 is None:
        return {}
    facts = recall.metrics if recall else {}
    found = {}
    for subset, bar, of in (
        ("x0_facts", x0.facts_bar, facts.get("x0_facts")),
        ("x0_aliases", x0.aliases_bar, metrics.get("x0_aliases")),
    ):
        own = of[main_metric(of).name].per_seed if of else {}
        found[subset] = {seed: value for seed, value in own.items() if value < bar}
    return {subset: own for subset, own in found.items() if own}


def _bar_notes(found: Mapping[str, Any], task: Task) -> Iterator[str]:
    for subset, below in below_bars(found["metrics"], found["sets"], task).items():
        yield (
            f"after X0 {subset} is below its bar (down to {min(below.values()):.3f}, seeds {', '.join(below)}): "
            "definitions that only name can teach such a model little"
        )


def _notes(seeds: int, recipe: str | None, limit: int | None, modified: bool) -> list[str]:
    notes = []
    if seeds == 1:
        notes.append("one seed: intervals are over entities and say nothing about another training run")
    elif seeds < FEW_SEEDS:
        notes.append(f"{seeds} seeds: power is low, and p cannot be below {2 / 2**seeds:g}")
    elif seeds < 10:
        notes.append(f"{seeds} seeds: p cannot be below {2 / 2**seeds:g}; look at the intervals")
    if recipe is None:
        notes.append("a checkpoint, evaluated as it is: what it was trained on is not known here; not submittable")
    if limit is not None:
        notes.append(f"limited to {counted(limit, 'question')} per subset: not submittable")
    if modified:
        notes.append(
            "task, recipe or model loading differ from the suite's own: not submittable to the standard division"
        )
    return notes
