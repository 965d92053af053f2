"""Whether a learner shows OCL and meta-OCL in the toy world, over seeds, and beside controls.

Each world is learned twice, with triangles and squares of the middle exchanged the second time. So every question there
is asked after a triangle told its answer and after a square did, at the same places, and their gap is paired by
question. And each is learned once more with alpha = .5, where neither kind is more reliable: no gap is expected.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError, counted, did_you_mean
from ocl_bench.files import require_writable, write_atomic
from ocl_bench.runner.request import check_seeds
from ocl_bench.score.statistics import over_seeds, sign_flip_p
from ocl_bench.tasks.load import apply_override
from ocl_bench.toy.data import CIRCLE, NOTHING, SQUARE, TRIANGLE, ToySettings, World, build_world, of_asked
from ocl_bench.toy.learners import LEARNERS, Learner

EQUAL = 0.5  # the control's alpha
DEFAULT_SEEDS = 20
DIGITS = 9  # a gap that is smaller is of the order in which numbers were added up, and would get a p


class Measured(Contract):
    """A number measured once for each seed."""

    mean: float = Field(description="mean over seeds")
    ci95: tuple[float, float] | None = Field(description="95 % interval of the mean; null for a single seed")
    p: float | None = Field(description="two-sided sign-flip p that the mean is 0; null for a single seed or an error")
    per_seed: dict[str, float] = Field(description="seed → value")


class LearnerResult(Contract):
    """What one learner did. Errors are squared errors of circles that were never shown."""

    after_triangle: Measured = Field(description="error in the middle where a triangle told y")
    after_square: Measured = Field(description="error there where a square told y")
    untold: Measured = Field(description="error there where nothing told y")
    use: Measured = Field(description="untold − mean of the two others: what definitions are worth, whoever tells")
    meta_ocl_gap: Measured = Field(description="after_square − after_triangle")
    control: Measured = Field(description="the same gap with alpha = .5, where both kinds are equally reliable")
    ocl_gap: Measured = Field(
        description="in X1, of the dimension held back: squared distance from what the false definitions tell − error"
    )
    seconds: float = Field(ge=0, description="CPU time that learning and predicting took")


class ToyResults(Contract):
    """What all learners did, in the same worlds."""

    settings: ToySettings = Field(description="the world and the sizes of learners")
    seeds: tuple[int, ...] = Field(description="seeds of worlds and learners")
    questions: int = Field(description="questions of the middle clusters that were told, over all seeds")
    chance: Measured = Field(description="error of the best constant: variance of y over questions of the middle")
    learners: dict[str, LearnerResult] = Field(description="name → what it did")


def read_toy_results(path: Path) -> ToyResults:
    """Read toy.json. Raises OclBenchError if it is none of this version."""
    try:
        return ToyResults.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OclBenchError(f"{path}: not the toy world's results ({str(error).splitlines()[0]}).") from None


def read_settings(overrides: Sequence[str]) -> ToySettings:
    """Settings from `key=value` texts. Raises OclBenchError with the key and the fix."""
    data: dict[str, object] = {}
    for override in overrides:
        apply_override(data, override)
    return ToySettings.parse(data, " ".join(f"--set {one}" for one in overrides) or "settings")


def run_toy(
    learners: Sequence[str] = tuple(LEARNERS),
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    settings: ToySettings | None = None,
    output_path: Path | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> ToyResults:
    """Have each learner learn the worlds of each seed, on one thread.

    Args:
        learners: names of `LEARNERS`.
        seeds: which, or how many.
        settings: the world; the default one if None.
        output_path: folder for toy.json and toy.png; nothing is written if None.
        tell: called with a line whenever a learner is done.

    Raises:
        OclBenchError: for an unknown learner, no seeds, or a folder that cannot be written to.
    """
    from threadpoolctl import threadpool_limits

    settings = settings or ToySettings()
    seeds = check_seeds(seeds, "--seeds")
    for name in learners:
        if name not in LEARNERS:
            raise OclBenchError(f"--learners: unknown learner '{name}'; {did_you_mean(name, LEARNERS)}")
    if not learners:
        raise OclBenchError(f"--learners: name at least one of {', '.join(LEARNERS)}.")
    if output_path is not None:
        require_writable(output_path)
    worlds = {alpha: [build_world(settings.at(alpha), seed) for seed in seeds] for alpha in (settings.alpha, EQUAL)}
    found = {}
    with threadpool_limits(1):
        for name in dict.fromkeys(learners):
            found[name] = _measure(LEARNERS.load(name), settings, seeds, worlds)
            tell(f"{name}: {counted(len(seeds), 'seed')} in {found[name].seconds:.0f} s")
    middle = [world.truth[world.told_by != CIRCLE] for world in worlds[settings.alpha]]
    results = ToyResults(
        settings=settings,
        seeds=seeds,
        questions=sum(int(np.isin(world.told_by, (TRIANGLE, SQUARE)).sum()) for world in worlds[settings.alpha]),
        chance=_measured(seeds, [float(np.var(truth)) for truth in middle], error=True),
        learners=found,
    )
    if output_path is not None:
        from ocl_bench.toy.figure import draw

        write_atomic(output_path / "toy.json", results.model_dump_json(indent=2) + "\n")
        draw(results, output_path / "toy.png")
    return results


def _measure(
    learner: type[Learner], settings: ToySettings, seeds: Sequence[int], worlds: dict[float, list[World]]
) -> LearnerResult:
    begun = time.process_time()
    rows = {
        alpha: [_errors(learner, settings, seed, world) for seed, world in zip(seeds, drawn, strict=True)]
        for alpha, drawn in worlds.items()
    }

    def over(
        value: Callable[[dict[int, float]], float], alpha: float = settings.alpha, error: bool = False
    ) -> Measured:
        return _measured(seeds, [value(row) for row in rows[alpha]], error)

    return LearnerResult(
        after_triangle=over(lambda row: row[TRIANGLE], error=True),
        after_square=over(lambda row: row[SQUARE], error=True),
        untold=over(lambda row: row[NOTHING], error=True),
        use=over(lambda row: row[NOTHING] - (row[TRIANGLE] + row[SQUARE]) / 2),
        meta_ocl_gap=over(lambda row: row[SQUARE] - row[TRIANGLE]),
        control=over(lambda row: row[SQUARE] - row[TRIANGLE], EQUAL),
        ocl_gap=over(lambda row: row[CIRCLE]),
        seconds=time.process_time() - begun,
    )


def _errors(learner: type[Learner], settings: ToySettings, seed: int, world: World) -> dict[int, float]:
    """Error of the middle's questions by what told them, and, for those of X1 (CIRCLE), the OCL gap."""
    errors, differences, told_by = [], [], []
    for one in (world, world.exchanged()):
        trained = learner(settings, seed)
        trained.fit(one.shown)
        predicted = of_asked(trained.predict(one.questions), one.questions)
        errors.append((predicted - one.truth) ** 2)
        differences.append((predicted - one.other) ** 2 - errors[-1])
        told_by.append(one.told_by)
    told = np.concatenate(told_by)
    means = {kind: float(np.concatenate(errors)[told == kind].mean()) for kind in (TRIANGLE, SQUARE, NOTHING)}
    return {**means, CIRCLE: float(np.concatenate(differences)[told == CIRCLE].mean())}


def _measured(seeds: Sequence[int], values: Sequence[float], error: bool = False) -> Measured:
    values = [round(value, DIGITS) + 0.0 for value in values]  # never -0.0
    return Measured(
        mean=float(np.mean(values)),
        ci95=over_seeds(values).ci95 if len(values) > 1 else None,
        p=None if error else sign_flip_p(values),
        per_seed={str(seed): value for seed, value in zip(seeds, values, strict=True)},
    )
