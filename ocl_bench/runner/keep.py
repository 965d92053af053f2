"""Which weights a run keeps: those that a later stage or `eval` needs, within a bound, or as it is told."""

from collections.abc import Iterator
from pathlib import Path

from ocl_bench.runner.cells import stage_folder
from ocl_bench.runner.jobs import StageJob
from ocl_bench.runner.request import AUTO_BYTES, Keep
from ocl_bench.runner.schedule import Place, Schedule
from ocl_bench.runner.store import Store, is_weights


class Keeper:
    """Removes weights that nothing needs any more, as soon as that is so.

    Args:
        schedule: the run's jobs.
        store: where stages lie.
        folder: the run folder, which holds links to the same files.
        keep: `all`; `last`: those of each cell's last stage; `none`; `auto`: all as long as 2 GB hold them, then the
            newest last stages.
    """

    def __init__(self, schedule: Schedule, store: Store, folder: Path, keep: Keep) -> None:
        self.schedule, self.store, self.folder, self.keep = schedule, store, folder, keep
        # Seeds that are done each on its own have their share of the bound.
        self.bytes = AUTO_BYTES if schedule.seeds is None else AUTO_BYTES // len(schedule.plan.config.seeds)
        self.held: dict[Place, int] = {}

    def after(self, job: StageJob) -> Iterator[str]:
        """A job is done: remove what has to go. Yields what to tell the user."""
        place = (job.cell, job.number)
        record = self.store.stage(job.key)
        if self.keep == "all" or record is None:
            return
        self.held[place] = sum(size for name, (size, _) in record.files.items() if is_weights(name))
        for gone in list(self._to_remove()):
            size = self._remove(gone)
            cell, number = gone
            name = f"{cell.name} {self.schedule.plan.config.task.stages[number].name}"
            yield f"removed the weights of {name} ({size / 1e9:.2g} GB; --keep all keeps them)"

    def _to_remove(self) -> Iterator[Place]:
        free = [
            place for place in self.held if all(self.schedule.is_done(child) for child in self.schedule.children(place))
        ]
        last = len(self.schedule.plan.config.task.stages) - 1
        earlier = [place for place in free if place[1] != last]
        if self.keep == "none":
            yield from free
        elif self.keep == "last":
            yield from earlier
        else:
            excess = sum(self.held.values()) - self.bytes
            for place in [*earlier, *(place for place in free if place[1] == last)][: len(free)]:
                if excess <= 0:
                    return
                excess -= self.held[place]
                yield place

    def _remove(self, place: Place) -> int:
        job = self.schedule.job(place)
        record = self.store.stage(job.key)
        folder = stage_folder(self.folder, job.cell, job.stage.name)
        for path in folder.iterdir():
            if is_weights(path.name):
                path.unlink()
        return self.held.pop(place) if record is None else max(self.held.pop(place), self.store.remove_weights(record))
