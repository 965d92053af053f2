"""What looks at gradients say of a run: means over variables, and their differences between subsets."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from ocl_bench.evaluate.evaluator import Observed
from ocl_bench.evaluate.gradients import Alignment, BatchGradients, GradientLook
from ocl_bench.score.gaps import GAPS
from ocl_bench.score.result import Gap, GradientsAt, Measured
from ocl_bench.score.statistics import Estimate, over_entities, over_seeds, sign_flip_p
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task

ALIGNMENT = "alignment"
OF_VARIABLE: dict[str, Callable[[Alignment], float]] = {
    ALIGNMENT: lambda one: one.cosine - one.cosine_other,
    "cosine": lambda one: one.cosine,
    "cosine_other": lambda one: one.cosine_other,
    "dot": lambda one: one.dot,
    "dot_other": lambda one: one.dot_other,
    "definition_norm": lambda one: one.definition_norm,
    "question_norm": lambda one: one.question_norm,
}
OF_BATCH = tuple(name for name in BatchGradients.model_fields if name != "n")
COMPARED = (ALIGNMENT, "cosine")  # between subsets

# seed → looks at its models, one for each stage-2 seed
Looks = Mapping[int, Sequence[GradientLook]]


def summarise(
    observed: Sequence[Observed], task: Task, records: Mapping[tuple[int, int], Sequence[Record]]
) -> dict[str, Any]:
    """What gradients were; see `ocl_bench.evaluate.evaluator.Summary`."""
    settings = task.evaluate.gradients
    assert settings is not None, "rows are of a task that asks for gradients"
    moments: dict[tuple[int, float], dict[int, list[GradientLook]]] = defaultdict(lambda: defaultdict(list))
    names = [stage.name for stage in task.stages]
    for one in observed:
        for look in one.rows:
            # A stage may have been trained by a run that looked at other epochs.
            if look.epoch is None or look.epoch in settings.epochs:
                epoch = float("inf") if look.epoch is None else look.epoch
                moments[names.index(look.stage), epoch][one.seed].append(look)
    return {"gradients": tuple(_at(moments[moment]) for moment in sorted(moments))}


def _at(looks: Looks) -> GradientsAt:
    first = next(iter(looks.values()))[0]
    gaps = {gap: pair for gap, pair in GAPS.items() if set(pair) <= set(first.subsets)}
    return GradientsAt(
        stage=first.stage,
        epoch=first.epoch,
        subsets={
            subset: {name: _measured(looks, subset, of) for name, of in OF_VARIABLE.items()} for subset in first.subsets
        },
        gaps={gap: {name: _gap(looks, pair, OF_VARIABLE[name]) for name in COMPARED} for gap, pair in gaps.items()},
        batch={name: _of_batch(looks, name) for name in OF_BATCH},
    )


def _measured(looks: Looks, subset: str, of: Callable[[Alignment], float]) -> Measured:
    per_seed = _per_seed(looks, subset, of)
    estimate = _estimate(looks, (subset,), of, per_seed)
    return Measured(
        mean=estimate.mean,
        ci95=estimate.ci95,
        interval=estimate.interval,
        n=sum(len(look.subsets[subset]) for own in looks.values() for look in own),
        seeds=len(per_seed),
        per_seed=_named(per_seed),
    )


def _gap(looks: Looks, pair: tuple[str, str], of: Callable[[Alignment], float]) -> Gap:
    upper, lower = (_per_seed(looks, subset, of) for subset in pair)
    differences = {seed: upper[seed] - lower[seed] for seed in upper}
    estimate = _estimate(looks, pair, of, differences)
    return Gap(
        mean=estimate.mean,
        ci95=estimate.ci95,
        interval=estimate.interval,
        p=sign_flip_p(list(differences.values())),
        n=sum(len(look.subsets[subset]) for own in looks.values() for look in own for subset in pair),
        seeds=len(differences),
        per_seed=_named(differences),
    )


def _of_batch(looks: Looks, name: str) -> Measured:
    per_seed = {seed: fmean(getattr(look.batch, name) for look in own) for seed, own in sorted(looks.items())}
    return Measured(
        mean=fmean(per_seed.values()),
        ci95=over_seeds(list(per_seed.values())).ci95 if len(per_seed) > 1 else None,
        interval="seeds",
        n=sum(look.batch.n for own in looks.values() for look in own),
        seeds=len(per_seed),
        per_seed=_named(per_seed),
    )


def _per_seed(looks: Looks, subset: str, of: Callable[[Alignment], float]) -> dict[int, float]:
    return {seed: fmean(fmean(map(of, look.subsets[subset])) for look in own) for seed, own in sorted(looks.items())}


def _estimate(
    looks: Looks, subsets: Iterable[str], of: Callable[[Alignment], float], per_seed: Mapping[int, float]
) -> Estimate:
    if len(per_seed) > 1:
        return over_seeds(list(per_seed.values()))
    ((seed, value),) = per_seed.items()
    groups = [_per_entity(looks[seed], subset, of) for subset in subsets]
    estimate = over_entities(lambda means: means[0] - means[1] if len(means) == 2 else means[0], groups)
    return Estimate(value, estimate.ci95, estimate.interval)


def _per_entity(own: Sequence[GradientLook], subset: str, of: Callable[[Alignment], float]) -> dict[str, float]:
    """Entity → mean over its variables and stage-2 seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    for look in own:
        for one in look.subsets[subset]:
            found[one.entity].append(of(one))
    return {entity: fmean(values) for entity, values in found.items()}


def _named(per_seed: Mapping[int, float]) -> dict[str, float]:
    return {str(seed): value for seed, value in per_seed.items()}
