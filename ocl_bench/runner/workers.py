"""The processes that train: started for a run, given one job after another, replaced if they die.

A worker is one process, or several that train one model together: they get the same jobs, and end together.
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from ocl_bench.errors import OclBenchError, RunFailed, first_line
from ocl_bench.forking import forked, warm
from ocl_bench.processes import Child, Events, Exited, Failed, Message
from ocl_bench.runner.compute import Compute, device_environment
from ocl_bench.runner.messages import (
    Beat,
    FromRun,
    FromWorker,
    Generate,
    Job,
    JobFailed,
    JobLost,
    Note,
    Ready,
    StageDone,
    Where,
)
from ocl_bench.runner.schedule import Place, Schedule
from ocl_bench.runner.serving import Serving

# What a worker imports in the end, in the order in which it would.
PRELOAD = ("ocl_bench.lean", "ocl_bench.runner.worker", "ocl_bench.runner.perform")

BEAT_SECONDS = 10.0  # after which a run says that it is there


def prepare() -> None:
    """Have libraries imported from now on, so that workers start at once when they are needed."""
    warm(PRELOAD, device_environment("cpu"))


class Workers:
    """The processes that train, kept for the next run that needs the same, and ended with the block."""

    def __init__(self) -> None:
        self._compute: tuple[tuple[str, ...], int, int] | None = None
        self._workers: list[list[Child] | None] = []
        # By the worker's number: what it does, how messages call that, and what it did last.
        self._busy: dict[int, Place] = {}
        self._wheres: dict[int, Where] = {}
        self._last: dict[int, Place] = {}
        self._events: Events = Queue()
        self.hardware: dict[str, str] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: Any) -> None:
        self._end()

    def perform(self, schedule: Schedule, folder: Path, serving: Serving | None) -> Iterator[FromRun]:
        """Do every job of a schedule that is not done; yields messages as they come.

        Args:
            schedule: the jobs; this calls its `next`, `lose`, `fail` and `died`, the caller `finish` before it takes
                the next message.
            folder: the run folder.
            serving: the run's vLLM engine, which answers what workers ask it; None if it has none.

        Raises:
            OclBenchError: if the input is at fault, or the engine fails. A job that fails otherwise is the schedule's.
        """
        compute = schedule.plan.config.compute
        self._start(compute, folder)
        try:
            if serving is not None:
                serving.start(self._events)
            self._hand_out(schedule, folder)
            while schedule.underway:
                try:
                    worker, message = self._events.get(timeout=BEAT_SECONDS)
                except Empty:
                    yield Beat()
                    continue
                shown = self._handle(worker, message, schedule, folder, serving)
                if shown is not None:
                    yield shown
                self._hand_out(schedule, folder)
        except BaseException:
            self._end()
            raise

    def _handle(
        self, worker: Child | None, message: Message, schedule: Schedule, folder: Path, serving: Serving | None
    ) -> Any:
        """Take a message; returns what to show of it."""
        if worker is None:  # the engine's thread
            if isinstance(message, Failed):
                raise _failure(message, serving.log if serving else folder)
            return message
        number = next((n for n, processes in enumerate(self._workers) if processes and worker in processes), None)
        if number is None:
            return None  # of a worker that was ended
        match message:
            case Ready(hardware):
                self.hardware = hardware
                return None
            case Generate():
                assert serving is not None
                serving.ask(worker, message)
                return None
            case StageDone():
                self._last[number] = self._busy.pop(number)
            case JobLost(where, reason):
                self._busy.pop(number)
                return Note(schedule.lose(where, reason), where)
            case JobFailed():
                self._busy.pop(number)
                schedule.fail(message)
                if schedule.plan.config.compute.processes > 1:  # those that have not failed wait for the one that has
                    self._end_one(number)
                    self._workers[number] = self._processes(number, schedule.plan.config.compute, folder)
                return Note(f"{message.where.name} failed: {first_line(message.message)}", message.where)
            case Failed() | Exited():
                return self._replace(number, message, schedule, folder)
        return message

    def _replace(self, number: int, message: Failed | Exited, schedule: Schedule, folder: Path) -> Note | None:
        """A worker has ended: its job is tried once more, if it had one.

        That is done by the others, where there are others: their devices are whole, and a machine whose memory was too
        small for so many processes has one less. The last one is replaced.
        """
        place = self._busy.pop(number, None)
        self._end_one(number)
        log, others = log_path(folder, number), any(self._workers)
        if place is None and not others:
            raise _failure(message, log)
        compute = schedule.plan.config.compute
        without = f"; the run goes on without this process ({compute.slots[number]})" if others else ""
        if place is None:
            return Note(f"{str(_failure(message, log)).rstrip('.')}{without}")
        where = self._wheres.pop(number)
        code = message.code if isinstance(message, Exited) else 1
        again = schedule.died(where, code, log)
        if not others:
            self._workers[number] = self._processes(number, compute, folder)
        return Note((again or f"{where.name} failed: its process ended with code {code}") + without, where)

    def _hand_out(self, schedule: Schedule, folder: Path) -> None:
        for number, processes in enumerate(self._workers):
            if processes is None or number in self._busy:
                continue
            place = schedule.next(self._last.get(number))
            if place is None:
                return
            job = schedule.job(place)
            where = Where(job.cell.seed, job.cell.stage2_seed, job.number, job.name)
            self._busy[number], self._wheres[number] = place, where
            message = Job(
                where,
                folder=str(folder),
                store=str(schedule.store.root),
                base=job.base.model_dump_json(),
                parent=None if job.parent is None else job.parent.key,
                weights=schedule.needs_weights(place),
                log=str(log_path(folder, number)),
                device=schedule.plan.config.compute.slots[number],
            )
            for process in processes:
                process.send(message)

    def _start(self, compute: Compute, folder: Path) -> None:
        """Start as many workers as the run wants, unless those of the last run are just as many of the same kind."""
        self._busy, self._last, self._wheres = {}, {}, {}
        shape = (compute.slots, compute.processes, compute.threads)
        if self._compute != shape or None in self._workers:
            self._end()
            self._compute, self._events = shape, Queue()
            self._workers = [self._processes(number, compute, folder) for number in range(len(compute.slots))]

    def _processes(self, number: int, compute: Compute, folder: Path) -> list[Child]:
        """A worker's processes; of several, the first alone tells of its jobs."""
        if compute.processes == 1:
            return [self._child(number, compute, folder, {})]
        group = {"WORLD_SIZE": str(compute.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(compute.processes)]
        return [self._child(number, compute, folder, group | rank) for rank in ranks]

    def _child(self, number: int, compute: Compute, folder: Path, group: dict[str, str]) -> Child:
        device = compute.slots[number]
        environment = device_environment(device, several=bool(group)) | {
            "OMP_NUM_THREADS": str(compute.threads),
            "MKL_NUM_THREADS": str(compute.threads),
        }
        return Child(
            "ocl_bench.runner.worker",
            [str(compute.threads), *([device] if group else [])],
            environment | group,
            log_path(folder, number),
            self._events,
            sends=FromWorker,
            start=forked(PRELOAD),
        )

    def _end(self) -> None:
        for number in range(len(self._workers)):
            self._end_one(number)
        self._compute, self._workers = None, []

    def _end_one(self, number: int) -> None:
        for process in self._workers[number] or ():
            process.end()
        self._workers[number] = None


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def log_path(folder: Path, number: int) -> Path:
    """Where a worker writes what libraries print while it works for a run."""
    return folder / f"worker-{number}.log"


def _failure(ended: Failed | Exited, log: Path) -> OclBenchError:
    if isinstance(ended, Exited):
        return RunFailed(f"a training process ended with code {ended.code} before it had a job; see {log}.")
    message = first_line(ended.message)
    if ended.exit_code is not None:
        return OclBenchError(message) if ended.exit_code == OclBenchError.exit_code else RunFailed(message)
    return RunFailed(f"{message} (see {log})")
