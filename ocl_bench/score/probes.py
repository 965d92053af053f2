"""What probes read, over seeds: accuracy beside chance and beside that of probes for shuffled labels."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, pvariance
from typing import Any, Literal

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.evaluate.evaluator import Observed
from ocl_bench.evaluate.probes import Reading
from ocl_bench.score.statistics import Estimate, over_seeds
from ocl_bench.tasks.mechanisms import PICTURE_POSITIONS, TEXT_POSITIONS, Pair, Position
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task
from ocl_bench.text import Identifier

NORMAL_95 = 1.96
CHANCE = 0.5  # of a balanced accuracy
ORDER = (*TEXT_POSITIONS, *PICTURE_POSITIONS)


class Selectivity(Contract):
    """Accuracy less that of probes for shuffled labels, paired within a seed (Hewitt and Liang 2019)."""

    mean: float = Field(description="mean over seeds")
    ci95: tuple[float, float] = Field(description="95 % interval of the mean")


class ProbeScore(Contract):
    """What a linear probe read at one layer and position after a stage."""

    contrast: Pair = Field(description="the subsets that it told apart")
    stage: Identifier = Field(description="the stage at whose end it was fitted")
    position: Position = Field(description="where in a text")
    layer: int = Field(
        ge=0, description="0: what the first layer is given; the last is, with most models, behind the final norm"
    )
    mean: float = Field(description="balanced accuracy on the folds that it was not fitted to, mean over seeds")
    ci95: tuple[float, float] = Field(description="95 % interval of the mean")
    interval: Literal["seeds", "entities"] = Field(
        description="what the intervals are about: new seeds, or new entities for the only seed"
    )
    chance: float = Field(description="accuracy of a guess")
    chance_band: tuple[float, float] = Field(
        description="where 95 % of means would be if there were nothing to read, as far apart as the controls are at "
        "this position, over its layers"
    )
    control: float = Field(description="accuracy of probes for shuffled labels, mean over seeds and shuffles")
    selectivity: Selectivity = Field(description="accuracy less that of the controls")
    n: int = Field(ge=1, description="variables, over all seeds")
    seeds: int = Field(ge=1, description="stage-1 seeds")
    per_seed: dict[str, float] = Field(description="seed → accuracy, mean over its stage-2 seeds")

    @property
    def apart(self) -> bool:
        """Whether the interval lies outside the chance band."""
        return self.ci95[0] > self.chance_band[1] or self.ci95[1] < self.chance_band[0]


def summarise(
    observed: Sequence[Observed], task: Task, records: Mapping[tuple[int, int], Sequence[Record]]
) -> dict[str, Any]:
    """What probes read, by contrast, stage, position and layer; see `ocl_bench.evaluate.evaluator.Summary`."""
    assert task.evaluate.probes is not None
    contrasts, stages = task.evaluate.probes.contrasts, [stage.name for stage in task.stages]
    by_place: dict[tuple[int, int, int], dict[int, dict[int, list[Reading]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for one in observed:
        for row in one.rows:
            place = contrasts.index(row.contrast), stages.index(one.stage), ORDER.index(row.position)
            by_place[place][row.layer][one.seed].append(row)
    return {
        "probes": tuple(
            score
            for (_, stage, _), layers in sorted(by_place.items())
            for score in _of_place(stages[stage], dict(sorted(layers.items())))
        )
    }


def _of_place(stage: str, layers: Mapping[int, Mapping[int, Sequence[Reading]]]) -> list[ProbeScore]:
    """The scores of one contrast and position after one stage: layer → seed → readings of its stage-2 seeds."""
    controls = [one for seeds in layers.values() for own in seeds.values() for row in own for one in row.controls]
    spread = sqrt(fmean((one - CHANCE) ** 2 for one in controls))
    return [_score(stage, seeds, NORMAL_95 * spread / sqrt(len(seeds))) for seeds in layers.values()]


def _score(stage: str, seeds: Mapping[int, Sequence[Reading]], half_band: float) -> ProbeScore:
    rows = [row for own in seeds.values() for row in own]
    per_seed = {str(seed): fmean(row.accuracy for row in own) for seed, own in sorted(seeds.items())}
    control = {str(seed): fmean(one for row in own for one in row.controls) for seed, own in sorted(seeds.items())}
    # Stage-2 seeds try the same texts: their mean has the error of one.
    error = fmean(row.stderr for row in rows)
    of_controls = sqrt(fmean(pvariance(row.controls) / len(row.controls) for row in rows))
    accuracy = _estimate(list(per_seed.values()), error)
    selectivity = _estimate([per_seed[seed] - control[seed] for seed in per_seed], sqrt(error**2 + of_controls**2))
    return ProbeScore(
        contrast=rows[0].contrast,
        stage=stage,
        position=rows[0].position,
        layer=rows[0].layer,
        mean=accuracy.mean,
        ci95=accuracy.ci95,
        interval=accuracy.interval,
        chance=CHANCE,
        chance_band=(CHANCE - half_band, CHANCE + half_band),
        control=fmean(control.values()),
        selectivity=Selectivity(mean=selectivity.mean, ci95=selectivity.ci95),
        n=sum(row.n for row in rows),
        seeds=len(seeds),
        per_seed=per_seed,
    )


def _estimate(values: Sequence[float], stderr: float) -> Estimate:
    """Over seeds; of a single one, by its standard error over entities."""
    if len(values) > 1:
        return over_seeds(values)
    return Estimate(values[0], (values[0] - NORMAL_95 * stderr, values[0] + NORMAL_95 * stderr), "entities")
