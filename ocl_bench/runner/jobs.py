"""The stage job: one stage of one cell, what it is identified by, and whether it is done already. Needs no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from ocl_bench.evaluate.evaluator import Evaluator, Moment, Wanted, evaluators
from ocl_bench.finetune.epoch import epoch_pools, trained_on
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.identity import (
    BaseIdentity,
    EvaluationIdentity,
    StageIdentity,
    content_key,
)
from ocl_bench.runner.manifest import RunConfig, StageRecord
from ocl_bench.runner.store import Store
from ocl_bench.tasks.records import Record, dataset_sha256
from ocl_bench.tasks.schema import Stage, Task

BEFORE = "before"  # the name of what was asked before the first stage, beside the stages' own


def epochs_beside(name: str) -> str:
    """The file for rows of epochs beside `<name>.jsonl`, which has those from after the stage."""
    return f"{name}-epochs.jsonl"


def stage_identity(
    config: RunConfig, cell: Cell, number: int, dataset: str, parent: BaseIdentity | str
) -> StageIdentity:
    """What the weights of a stage depend on.

    Args:
        config: the run.
        cell, number: which stage.
        dataset: sha256 of the records that it trains on, as JSON lines.
        parent: the model that it starts from, or the sha256 of the weights that the stage before left.
    """
    return StageIdentity(
        dataset=dataset,
        parent=parent,
        recipe=config.recipe.of_stage(number),
        seed=cell.training_seed(config.task, number),
        precision=config.compute.training,
        world_size=config.compute.processes,
        replay=config.task.stages[number].replay,
    )


@dataclass(frozen=True)
class Asked:
    """One evaluator, asked at one moment of one model."""

    moment: Moment
    evaluator: Evaluator
    identity: EvaluationIdentity

    @property
    def key(self) -> str:
        """What it is found by."""
        return content_key(self.identity)

    @property
    def place(self) -> str:
        """The folder of a cell that shows it."""
        return BEFORE if self.moment.when == "before" else self.moment.stage


@dataclass(frozen=True)
class StageJob:
    """Weights of a parent, a dataset and a recipe in; a complete stage folder and evaluations out.

    Attributes:
        config: the run.
        cell, number: which stage of it.
        records: the cell's dataset.
        base: the model that the cell's first stage starts from.
        evaluators: what looks at the cell's models.
        parent: what the stage before did; None for the first.
    """

    config: RunConfig
    cell: Cell
    number: int
    records: Sequence[Record]
    base: BaseIdentity
    evaluators: Sequence[Evaluator]
    parent: StageRecord | None

    @property
    def task(self) -> Task:
        """The run's task."""
        return self.config.task

    @property
    def stage(self) -> Stage:
        """The stage to train."""
        return self.task.stages[self.number]

    @property
    def name(self) -> str:
        """What messages call it."""
        stage2 = f" stage-2 seed {self.cell.stage2_seed}" if self.cell.stage2_seed else ""
        return f"seed {self.cell.seed}{stage2} {self.stage.name}"

    @cached_property
    def identity(self) -> StageIdentity:
        """What the stage's weights depend on."""
        parent = self.base if self.parent is None else self.parent.weights_after
        dataset = dataset_sha256(trained_on(self.stage, self.records))
        return stage_identity(self.config, self.cell, self.number, dataset, parent)

    @cached_property
    def key(self) -> str:
        """What the stage is found by."""
        return content_key(self.identity)

    def moment(self, when: str, **of_epoch: float) -> Moment:
        """A moment of this stage."""
        last = self.number == len(self.task.stages) - 1
        return Moment(when=when, stage=self.stage.name, last=last, **of_epoch)  # type: ignore[arg-type]

    @cached_property
    def epoch_rows(self) -> dict[str, str]:
        """Evaluators asked in some epochs → the key of their rows, which are made in training."""
        epochs = self.identity.recipe.epochs
        moments = [self.moment("epoch", epoch=epoch, epochs=epochs) for epoch in range(1, epochs + 1)]
        return {
            one.name: content_key(
                EvaluationIdentity(evaluator=one.name, weights=self.key, settings=one.settings(moments[0]))
            )
            for one in self.evaluators
            if any(one.asks(moment) for moment in moments)
        }

    def epoch_file(self, one: Evaluator) -> str:
        """The file of the stage's folder for rows that an evaluator made in training; after it others may come."""
        return epochs_beside(one.name) if one.asks(self.moment("after")) else f"{one.name}.jsonl"

    def asked(self, record: StageRecord) -> Iterator[Asked]:
        """What is asked of the model as the stage found it, if it is the first, and as the stage left it."""
        yield from self.asked_before(record.weights_before)
        yield from self._asked({"after": record.weights_after})

    def asked_before(self, weights: str) -> Iterator[Asked]:
        """What is asked of the model as the stage finds it, if it is the first."""
        yield from self._asked({"before": weights} if self.number == 0 else {})

    def _asked(self, weights: dict[str, str]) -> Iterator[Asked]:
        for when, sha256 in weights.items():
            moment = self.moment(when)
            for one in self.evaluators:
                if one.asks(moment):
                    identity = EvaluationIdentity(evaluator=one.name, weights=sha256, settings=one.settings(moment))
                    yield Asked(moment, one, identity)

    def trained(self, store: Store) -> tuple[StageRecord | None, str | None]:
        """What the stage did, if it is there with all its rows, and what of it is damaged, if anything is."""
        record = store.stage(self.key)
        if record is None:
            return None, store.spoiled_stage(self.key)
        if any(record.rows.get(name) != key for name, key in self.epoch_rows.items()):
            return None, None
        damage = store.damage(record, weights=False)
        return (None, damage) if damage else (record, None)

    def evaluated(self, store: Store, record: StageRecord) -> bool:
        """Whether all that is asked of its models is there."""
        return all(store.evaluation(asked.key) is not None for asked in self.asked(record))


def cell_evaluators(
    config: RunConfig, cell: Cell, records: Sequence[Record], base: BaseIdentity
) -> Sequence[Evaluator]:
    """What looks at the models of a cell, whose dataset and base are given."""
    compute = config.compute
    return evaluators(
        Wanted(
            task=config.task,
            records=records,
            seed=cell.seed,
            limit=config.limit,
            curves=config.curves,
            lm_eval_tasks=config.also_tasks,
            lm_eval_path=tuple(Path(folder) for folder in config.also_path),
            tokenizer=base.tokenizer,
            engine=compute.engine,
            engine_args=compute.engine_args,
            precision=str(compute.evaluation),
            loss=config.recipe.loss,
            epoch=partial(epoch_of, config, records),
        )
    )


def epoch_of(config: RunConfig, records: Sequence[Record], stage: str) -> list[tuple[list[Record], int]]:
    """What an epoch of a stage is drawn from: records of a cell's dataset, and how many of them it has."""
    number = [one.name for one in config.task.stages].index(stage)
    trained = trained_on(config.task.stages[number], records)
    pools = epoch_pools(config.task.stages[number], config.recipe.of_stage(number), records)
    return [([trained[place] for place in pool.numbers], pool.per_epoch) for pool in pools]
