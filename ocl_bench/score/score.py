"""Score a run: samples in, results out. Needs no model and no torch."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.ability import AbilityScore
from ocl_bench.evaluate.engines import EngineRecord
from ocl_bench.score.ability import score_changes
from ocl_bench.score.gaps import score_set
from ocl_bench.score.metrics import EM, EM_FORCED
from ocl_bench.score.result import Disagreement, Results
from ocl_bench.score.samples import Sample
from ocl_bench.score.statistics import FEW_SEEDS
from ocl_bench.tasks.schema import Task


def score(
    samples: Sequence[Sample],
    task: Task,
    *,
    model: str,
    model_revision: str | None,
    recipe: str | None,
    engine: EngineRecord,
    engine_check: Disagreement | None,
    limit: int | None,
    modified: bool,
    ability: Mapping[int, Sequence[AbilityScore]] | None = None,
) -> Results:
    """Compute every metric and gap from `samples`.

    Args:
        samples: all samples of all seeds and stages.
        task: decides which stage each subset is scored at.
        model, model_revision, recipe, engine, engine_check: copied into the result.
        ability: seed → scores on tasks of lm-eval, before and after.
        limit: questions per subset if they were limited.
        modified: whether task, recipe or model loading differ from the suite's own.

    Raises:
        OclBenchError: if there are no samples.
    """
    if not samples:
        raise OclBenchError("there are no samples to score; the run has not finished any seed.")
    seeds = tuple(sorted({sample.seed for sample in samples}))
    by_set: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_set[sample.record.set].append(sample)
    questions = score_set(by_set.pop("qa", []), task)
    differing = sum(EM.of(one.answer, one.record) != EM_FORCED.of(one.answer, one.record) for one in samples)
    return Results(
        task=task.task,
        task_version=task.version,
        model=model,
        model_revision=model_revision,
        recipe=recipe,
        engine=engine,
        seeds=seeds,
        stage2_seeds=tuple(sorted({sample.stage2_seed for sample in samples})),
        submittable=limit is None and not modified and recipe is not None,
        metrics=questions.metrics,
        gaps=questions.gaps,
        sets={name: score_set(own, task) for name, own in sorted(by_set.items())},
        disagreement=Disagreement(n=len(samples), differing=differing),
        engine_check=engine_check,
        also=score_changes(ability or {}),
        notes=tuple(_notes(len(seeds), recipe, limit, modified)),
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
        notes.append(f"limited to {limit} questions per subset: not submittable")
    if modified:
        notes.append(
            "task, recipe or model loading differ from the suite's own: not submittable to the standard division"
        )
    return notes
