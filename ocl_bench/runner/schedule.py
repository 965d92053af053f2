"""The schedule: a run's stage jobs, which of them are done, and which can be done next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ocl_bench.collection import without_collection
from ocl_bench.errors import OclBenchError, RunFailed, first_clause, first_line
from ocl_bench.evaluate.evaluator import Evaluator
from ocl_bench.finetune.epoch import epoch_pools
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.identity import BaseIdentity, base_identity
from ocl_bench.runner.jobs import StageJob, cell_evaluators
from ocl_bench.runner.manifest import StageRecord, checkout_state, versions
from ocl_bench.runner.messages import JobFailed, Where
from ocl_bench.runner.plan import Plan
from ocl_bench.runner.store import Store
from ocl_bench.tasks.release import released_stages

Place = tuple[Cell, int]
TRIES = 2  # of a job whose process dies: what the system kills for its memory may fit a second time


@dataclass
class Schedule:
    """What is to be done, in which order.

    Attributes:
        plan: the run.
        store: where stages lie.
        adopts: whether a finished stage that comes with the suite is taken.
        seeds: the stage-1 seeds whose stages are to be done, besides those that all seeds share; None: all.
        jobs: every stage of every cell that owns it, in order, as far as it is to be done.
        failed: place → why its job failed.
    """

    plan: Plan
    store: Store
    adopts: bool = True
    seeds: tuple[int, ...] | None = None
    jobs: list[Place] = field(init=False)
    failed: dict[Place, JobFailed] = field(default_factory=dict)
    # What is trained, and what is evaluated too.
    _records: dict[Place, StageRecord] = field(default_factory=dict)
    _bases: dict[Cell, BaseIdentity] = field(default_factory=dict)
    _evaluators: dict[Cell, Sequence[Evaluator]] = field(default_factory=dict)
    _jobs: dict[Place, StageJob] = field(default_factory=dict)
    _done: set[Place] = field(default_factory=set)
    _running: set[Place] = field(default_factory=set)
    _for_weights: set[Place] = field(default_factory=set)
    _deaths: dict[Place, int] = field(default_factory=dict)
    _released: set[str] = field(default_factory=set)  # keys of stages that come with the task

    def __post_init__(self) -> None:
        self.jobs = [place for place in self._places() if self._is_wanted(place)]

    def _places(self) -> Iterator[Place]:
        """Every stage of every cell that owns it, in order."""
        task = self.plan.config.task
        for cell in self.plan.config.cells:
            yield from ((cell, n) for n in range(len(task.stages)) if cell.owner(task, n) == cell)

    def _is_wanted(self, place: Place) -> bool:
        (cell, number), config = place, self.plan.config
        shared = number < config.task.shared_stages and not config.own_x0
        return self.seeds is None or cell.seed in self.seeds or shared

    def parent(self, place: Place) -> Place | None:
        """The job whose weights a job starts from; None for a first stage."""
        cell, number = place
        return (cell.owner(self.plan.config.task, number - 1), number - 1) if number else None

    def job(self, place: Place) -> StageJob:
        """A job whose parent is done."""
        before = self.parent(place)
        parent = None if before is None else self._records[before]
        kept = self._jobs.get(place)
        if kept is None or kept.parent != parent:
            kept = self._jobs[place] = self._job(place, parent)
        return kept

    def _job(self, place: Place, parent: StageRecord | None) -> StageJob:
        (cell, number), config = place, self.plan.config
        records, first = self.plan.records[cell], cell.owner(config.task, 0)
        if first not in self._bases:
            self._bases[first] = base_identity(config.model, self.plan.records[first], first.init_seed(config.task))
        base = self._bases[first]
        if cell not in self._evaluators:
            self._evaluators[cell] = cell_evaluators(config, cell, records, base)
        return StageJob(config, cell, number, records, base, self._evaluators[cell], parent)

    @without_collection()
    def look(self) -> int:
        """Find what is done already. Returns how many stages need no training."""
        for place in self.jobs:
            before = self.parent(place)
            if before is not None and before not in self._records:
                continue
            job = self.job(place)
            for released in released_stages(job.stage.name) if self.adopts else ():
                self._released |= {job.key} if self.store.adopt(job.key, released) else set()
            record, _ = job.trained(self.store)  # of damage its worker will tell
            if record is None:
                continue
            self._records[place] = record
            if job.evaluated(self.store, record):
                self._done.add(place)
        return len(self._records)

    def remove_all(self) -> None:
        """Remove all that is there of this run, so that it is made anew."""
        self.look()
        for place in self.jobs:
            before = self.parent(place)
            if before is not None and before not in self._records:
                continue
            job = self.job(place)
            with self.store.lock(job.key, lambda: None):
                if place in self._records:
                    self.store.remove_evaluations(asked.key for asked in job.asked(self._records[place]))
                self.store.remove_work(job.key)
                self.store.remove_stage(job.key)
        self._records.clear()
        self._done.clear()

    @property
    def steps_left(self) -> int:
        """Optimizer steps of the stages that are not trained."""
        plan, steps = self.plan, {}
        left = [place for place in self.jobs if place not in self._records]
        for cell, number in left:
            if number not in steps:  # about as many for every seed
                stage, recipe = plan.config.task.stages[number], plan.config.recipe.of_stage(number)
                pools = epoch_pools(stage, recipe, plan.records[cell])
                drawn = sum(pool.per_epoch for pool in pools)
                steps[number] = recipe.epochs * -(-drawn // recipe.effective_batch_size)
        return sum(steps[number] for _, number in left)

    @property
    def finished(self) -> bool:
        """Whether every job is done."""
        return len(self._done) == len(self.jobs)

    def done(self) -> Iterator[tuple[StageJob, StageRecord]]:
        """The jobs that are done."""
        for place in self.jobs:
            if place in self._done:
                yield self.job(place), self._records[place]

    def is_done(self, place: Place) -> bool:
        """Whether a job is done."""
        return place in self._done

    def children(self, place: Place) -> list[Place]:
        """The jobs that start from a job's weights, those that are not to be done here among them."""
        return [other for other in self._places() if self.parent(other) == place]

    def next(self, after: Place | None) -> Place | None:
        """A job that can be done now, best one that goes on from `after`, whose model a worker has in memory."""
        ready = [place for place in self.jobs if self._is_ready(place)]
        chosen = next((place for place in ready if self.parent(place) == after), ready[0] if ready else None)
        if chosen is not None:
            self._running.add(chosen)
        return chosen

    def _is_ready(self, place: Place) -> bool:
        if place in self._done or place in self._running or place in self.failed:
            return False
        before = self.parent(place)
        return before is None or (before in self._records and before not in self._for_weights)

    @property
    def underway(self) -> bool:
        """Whether a job is being done."""
        return bool(self._running)

    def needs_weights(self, place: Place) -> bool:
        """Whether a later job has found this job's weights missing."""
        return place in self._for_weights

    def finish(self, where: Where, key: str) -> tuple[StageJob, StageRecord]:
        """A worker has done a job."""
        place = self.place(where)
        record = self.store.stage(key)
        if record is None:
            raise RunFailed(f"{self.store.stage_path(key)} has gone while the run was at it; run it again.")
        self._running.discard(place)
        self._for_weights.discard(place)
        self._records[place] = record
        self._done.add(place)
        return self.job(place), record

    def lose(self, where: Where, reason: str) -> str:
        """A job has found its parent's weights missing or damaged: that is done again first. Returns what to say."""
        place = self.place(where)
        before = self.parent(place)
        assert before is not None
        self._running.discard(place)
        self._done.discard(before)
        self._for_weights.add(before)
        return f"{reason}: the stage before {where.name} is trained again"

    def fail(self, failure: JobFailed) -> None:
        """A job has failed: what goes on from it is not done, all else is."""
        place = self.place(failure.where)
        self._running.discard(place)
        self.failed[place] = failure
        if failure.exit_code == OclBenchError.exit_code:
            raise OclBenchError(first_line(failure.message))  # the input's fault: no other job would fare better

    def died(self, where: Where, code: int, log: Path) -> str | None:
        """The process that did a job has ended. Returns what to say if the job is tried again, else None."""
        place = self.place(where)
        self._running.discard(place)
        self._deaths[place] = self._deaths.get(place, 0) + 1
        reason = f"its process ended with code {code} (negative: killed by that signal, 9 is often a lack of memory)"
        if self._deaths[place] < TRIES:
            return f"{where.name}: {reason}; trying it once more"
        self.failed[place] = JobFailed(where, f"{reason}; see {log}", RunFailed.exit_code)
        return None

    def require_success(self) -> None:
        """Raise RunFailed if any job has failed, with the first reason and how to go on."""
        if not self.failed:
            return
        first = next(iter(self.failed.values()))
        others = f" ({len(self.failed) - 1} more failed)" if len(self.failed) > 1 else ""
        raise RunFailed(
            f"{first.where.name}: {first_clause(first.message)}{others}. {len(self._done)} of "
            f"{len(self.jobs)} stages are finished and kept; run the same command again to go on."
        )

    def place(self, where: Where) -> Place:
        """The job that a message is about."""
        cell = next(
            cell for cell in self.plan.config.cells if (cell.seed, cell.stage2_seed) == (where.seed, where.stage2_seed)
        )
        return cell, where.stage

    def made_by_others(self) -> str:
        """Where stages that are there come from, if not from this version of the code."""
        own = code_version(checkout_state()[0], versions())
        own_made = [one for one in self._records.values() if one.key not in self._released]
        made_by = [code_version(one.provenance.commit, one.provenance.versions) for one in own_made]
        others = [code for code in made_by if code != own]
        if not others:
            return ""
        return f", {len(others)} of them made by other code ({', '.join(sorted(set(others)))}); --fresh trains anew"


def code_version(commit: str | None, versions: Mapping[str, str]) -> str:
    """Which code of the suite it was: a checkout's commit, or an installed package's version."""
    return commit[:10] if commit else f"version {versions.get('ocl-bench', 'unknown')}"
