"""What a submission says of its model's inside, checked for form.

Nobody can compute probes or gradients from answers, nor does `verify` make them again: a number of each seed is
believed. Beside that they are what the task asks for, all of it and nothing else, within the bounds that each quantity
has, and means, intervals, differences and p are what the seeds' numbers give.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ocl_bench.leaderboard.checks.answers import LAST_DIGITS
from ocl_bench.leaderboard.checks.reading import Checked, few
from ocl_bench.leaderboard.submission import RESULTS
from ocl_bench.leaderboard.untrusted import Problem, printable
from ocl_bench.runner.manifest import Manifest, RunConfig
from ocl_bench.score.gaps import GAPS
from ocl_bench.score.gradients import ALIGNMENT, COMPARED, OF_BATCH, OF_VARIABLE
from ocl_bench.score.probes import CHANCE, ProbeScore
from ocl_bench.score.result import Gap, GradientsAt, Measured
from ocl_bench.score.statistics import over_seeds, sign_flip_p
from ocl_bench.tasks.mechanisms import PICTURE_POSITIONS, TEXT_POSITIONS, Gradients

# Each is a panel of a picture on the entry's page; `six_stages` has thirty.
MAX_PANELS = 36
MAX_MOMENTS = 64  # of gradients: each has an exact test of every gap
ROUNDING = 1e-6  # by how much a cosine may be beyond 1
RATE, COSINE, NORM, ANY = (0.0, 1.0), (-1.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)
DIFFERENCE = (-2.0, 2.0)  # of two cosines
BOUNDS = {
    ALIGNMENT: DIFFERENCE,
    "cosine": COSINE,
    "cosine_other": COSINE,
    "dot": ANY,
    "dot_other": ANY,
    "definition_norm": NORM,
    "question_norm": NORM,
    "pairwise_cosine": COSINE,
    "mean_cosine": COSINE,
    "variance": NORM,
    "squared_norm": NORM,
}

# Dotted key within results.json, and what is wrong there.
Wrong = Iterator[tuple[str, str]]


def check_mechanisms(checked: Checked, manifest: Manifest) -> None:
    """What probes and gradients say has the form that task, recipe and seeds give it."""
    if checked.results is None:
        return
    layers = _layers(checked.config)
    for found in (
        _probes(checked.results.probes, manifest.config, layers),
        _gradients(checked.results.gradients, manifest.config),
    ):
        checked.problems += few(RESULTS, (Problem(RESULTS, where, message) for where, message in found))


def _layers(config: Mapping[str, Any]) -> int | None:
    """How many layers a model has behind layer 0, where its configuration says it in the usual words."""
    layers = config.get("num_hidden_layers")
    return layers if type(layers) is int and not config.get("is_encoder_decoder") else None


def _stages(config: RunConfig) -> list[str]:
    """The stages after which a model is looked at: those that seeds do not share."""
    return [stage.name for stage in config.task.stages[config.task.shared_stages :]]


def _probes(scores: Sequence[ProbeScore], config: RunConfig, layers: int | None) -> Wrong:
    asked, stages = config.task.evaluate.probes, _stages(config)
    if asked is None:
        yield from _not_asked("probes", scores)
        return
    if len(asked.contrasts) * len(stages) > MAX_PANELS:
        yield "probes", f"are of more than {MAX_PANELS} contrasts and stages"
        return
    positions = asked.positions or (TEXT_POSITIONS if config.task.design.picture is None else PICTURE_POSITIONS)
    seen: set[tuple[object, ...]] = set()
    positions_of: dict[object, set[str]] = defaultdict(set)
    for number, one in enumerate(scores):
        where, place = f"probes.{number}", (one.contrast, one.stage, one.position, one.layer)
        if layers is not None and one.layer > layers:
            yield f"{where}.layer", f"is {one.layer}, and the model has layers 0 to {layers}"
        for key, value, among in (
            ("contrast", one.contrast, asked.contrasts),
            ("stage", one.stage, stages),
            ("position", one.position, positions),
            ("layer", one.layer, asked.layers),
        ):
            if among is not None and value not in among:
                yield f"{where}.{key}", f"is {_shown(value)}, which the task does not ask for"
        if place in seen:
            yield where, f"is there twice: {_shown(one.contrast)} after {one.stage}, {one.position}, layer {one.layer}"
        seen.add(place)
        positions_of[one.contrast].add(one.position)
        yield from _of_probe(one, config.seeds, where)
    wanted_layers = len(asked.layers) if asked.layers else 1 + max((one.layer for one in scores), default=0)
    # A contrast has the positions that both of its subsets have, which is some at least.
    per_stage = sum(len(asked.positions or positions_of[one] or "?") for one in asked.contrasts)
    if len(seen) != (wanted := per_stage * len(stages) * wanted_layers):
        yield "probes", f"has {len(seen)} entries; contrasts, stages, positions and layers give {wanted}"


def _of_probe(one: ProbeScore, seeds: Sequence[int], where: str) -> Wrong:
    yield from _statistics(one, seeds, where, RATE, alone="entities")
    yield from _within(one.control, RATE, f"{where}.control")
    low, high = one.chance_band
    if one.chance != CHANCE or not (low <= CHANCE <= high and _equal(high - CHANCE, CHANCE - low)):
        yield f"{where}.chance_band", f"is not as far above as below a chance of {CHANCE}"
    yield from _equals(one.selectivity.mean, one.mean - one.control, f"{where}.selectivity.mean")
    yield from _holds(one.selectivity.ci95, one.selectivity.mean, f"{where}.selectivity.ci95")


def _gradients(moments: Sequence[GradientsAt], config: RunConfig) -> Wrong:
    asked, stages = config.task.evaluate.gradients, _stages(config)
    if asked is None:
        yield from _not_asked("gradients", moments)
        return
    if len(config.recipe.epochs) != len(config.task.stages):
        return  # said already
    if len(stages) > MAX_PANELS or len(moments) > MAX_MOMENTS:
        yield "gradients", f"are of more than {MAX_PANELS} stages, or of {MAX_MOMENTS} moments"
        return
    first = config.task.shared_stages
    epochs = {stage: config.recipe.epochs[first + number] for number, stage in enumerate(stages)}
    wanted = [
        (stage, epoch)
        for stage in stages
        for epoch in (*(one for one in sorted(asked.epochs) if one <= epochs[stage]), None)
    ]
    given = [(one.stage, one.epoch) for one in moments]
    for number, one in enumerate(given):
        if one not in wanted:
            yield f"gradients.{number}", f"is {_moment(*one)}, which the task does not ask for"
        elif one in given[:number]:
            yield f"gradients.{number}", f"is there twice: {_moment(*one)}"
    for one in wanted:
        if one not in given:
            yield "gradients", f"lacks the one {_moment(*one)}"
    if sorted(given, key=str) == sorted(wanted, key=str) and given != wanted:
        yield "gradients", "are not in the order of stages and epochs"
    gaps = [gap for gap, pair in GAPS.items() if set(pair) <= set(asked.subsets)]
    for number, at in enumerate(moments):
        where = f"gradients.{number}"
        wrong = [
            *_names(at.subsets, asked.subsets, f"{where}.subsets"),
            *_names(at.gaps, gaps, f"{where}.gaps"),
            *_names(at.batch, OF_BATCH, f"{where}.batch"),
            *(one for name in at.subsets for one in _names(at.subsets[name], OF_VARIABLE, f"{where}.subsets.{name}")),
            *(one for name in at.gaps for one in _names(at.gaps[name], COMPARED, f"{where}.gaps.{name}")),
        ]
        trainings = sum(at.stage in [stage.name for stage in cell.owned(config.task)] for cell in config.cells)
        yield from wrong or _of_moment(at, asked, config.seeds, trainings, where)


def _of_moment(at: GradientsAt, asked: Gradients, seeds: Sequence[int], trainings: int, where: str) -> Wrong:
    """What is wrong with numbers that all are there."""
    wrong = [
        one
        for subset, found in at.subsets.items()
        for name, measured in found.items()
        for one in _statistics(measured, seeds, f"{where}.subsets.{subset}.{name}", BOUNDS[name], alone="entities")
    ]
    wrong += [
        one
        for name, measured in at.batch.items()
        for one in _statistics(measured, seeds, f"{where}.batch.{name}", BOUNDS[name], alone=None)
    ]
    for subset, found in at.subsets.items():
        counts = {one.n for one in found.values()}
        if len(counts) > 1 or not 2 * trainings <= max(counts) <= asked.variables * trainings:
            wrong.append(
                (f"{where}.subsets.{subset}", f"has other n than 2 to {asked.variables} of {trainings} models")
            )
    if {one.n for one in at.batch.values()} != {asked.batch * trainings}:
        wrong.append((f"{where}.batch", f"has other n than {asked.batch} of {trainings} models"))
    yield from wrong
    if wrong:
        return  # what is compared below would be wrong for the same reason
    for subset, found in at.subsets.items():
        own = f"{where}.subsets.{subset}.{ALIGNMENT}"
        yield from _difference(found[ALIGNMENT], found["cosine"].per_seed, found["cosine_other"].per_seed, own)
    for gap, compared in at.gaps.items():
        for name, one in compared.items():
            own = f"{where}.gaps.{gap}.{name}"
            first, second = (at.subsets[subset][name] for subset in GAPS[gap])
            wide = 2 * BOUNDS[name][1]
            wrong = list(_statistics(one, seeds, own, (-wide, wide), alone="entities"))
            yield from wrong or _difference(one, first.per_seed, second.per_seed, own)
            if one.n != first.n + second.n:
                yield f"{own}.n", f"is {one.n}; its subsets have {first.n + second.n}"
            if not wrong and not _equal(one.p, sign_flip_p(list(one.per_seed.values()))):
                yield f"{own}.p", "is not what the seeds give"


def _not_asked(key: str, given: Sequence[object]) -> Wrong:
    if given:
        yield key, f"are there, and the task asks for none in evaluate.{key}"


def _names(given: Mapping[str, object], wanted: Iterable[str], where: str) -> Wrong:
    if set(given) != set(wanted):
        yield printable(where), f"has not exactly {', '.join(wanted) or 'nothing'}"


def _statistics(
    one: ProbeScore | Measured | Gap,
    seeds: Sequence[int],
    where: str,
    bounds: tuple[float, float],
    alone: str | None,
) -> Wrong:
    """Mean and interval follow from the seeds' numbers; of one seed the interval is over `alone`, or there is none."""
    if set(one.per_seed) != set(map(str, seeds)) or one.seeds != len(one.per_seed):
        yield f"{where}.per_seed", f"has not exactly the seeds {', '.join(map(str, seeds))}"
        return
    wrong = [
        found for seed, value in one.per_seed.items() for found in _within(value, bounds, f"{where}.per_seed.{seed}")
    ]
    yield from wrong
    if wrong:
        return
    values = [one.per_seed[str(seed)] for seed in sorted(seeds)]
    several = len(values) > 1
    if one.interval != ("seeds" if several or alone is None else alone):
        yield f"{where}.interval", "is not what as many seeds give"
    try:
        with np.errstate(over="raise", invalid="raise"):
            estimate = over_seeds(values) if several else None
    except ArithmeticError:  # of numbers that are too large or too small to be squared
        yield f"{where}.per_seed", "holds numbers that no gradient has"
        return
    yield from _equals(one.mean, values[0] if estimate is None else estimate.mean, f"{where}.mean")
    if (one.ci95 is None) != (alone is None and not several):
        yield f"{where}.ci95", "is missing, or is there for one number of one seed"
    elif one.ci95 is not None and estimate is None:
        yield from _holds(one.ci95, one.mean, f"{where}.ci95")
    elif one.ci95 is not None and estimate is not None:
        for end, (given, derived) in enumerate(zip(one.ci95, estimate.ci95, strict=True)):
            yield from _equals(given, derived, f"{where}.ci95.{end}")


def _difference(one: Measured | Gap, first: Mapping[str, float], second: Mapping[str, float], where: str) -> Wrong:
    for seed, value in one.per_seed.items():
        yield from _equals(value, first[seed] - second[seed], f"{where}.per_seed.{seed}")


def _within(value: float, bounds: tuple[float, float], where: str) -> Wrong:
    low, high = bounds
    if not low - ROUNDING <= value <= high + ROUNDING:
        yield where, f"is {value:g}; it is from {low:g} to {high:g}"


def _holds(ends: tuple[float, float], mean: float, where: str) -> Wrong:
    if not ends[0] - LAST_DIGITS <= mean <= ends[1] + LAST_DIGITS:
        yield where, "does not hold the mean"


def _equals(given: float, derived: float, where: str) -> Wrong:
    if not _equal(given, derived):
        yield where, f"is {given!r}; the seeds give {derived!r}"


def _equal(given: float | None, derived: float | None) -> bool:
    if given is None or derived is None:
        return given is derived
    return math.isclose(given, derived, rel_tol=LAST_DIGITS, abs_tol=LAST_DIGITS)


def _moment(stage: str, epoch: int | None) -> str:
    return f"after {stage}" if epoch is None else f"after epoch {epoch} of {stage}"


def _shown(value: object) -> str:
    return printable(" | ".join(value) if isinstance(value, tuple) else str(value))
