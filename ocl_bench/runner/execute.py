"""Execute a plan: what is there is taken, what is not is handed to workers as stage jobs, and the run is scored."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from ocl_bench.errors import RunFailed
from ocl_bench.runner.compute import advice
from ocl_bench.runner.devices import is_large_for
from ocl_bench.runner.folder import (
    clean_folder,
    link_stage,
    read_records,
    run_folder,
    score_run,
    write_data,
    write_results,
)
from ocl_bench.runner.keep import Keeper
from ocl_bench.runner.live import Live
from ocl_bench.runner.manifest import Manifest, StageRecord, checkout_state, read_manifest, torch_record, versions
from ocl_bench.runner.messages import EngineChosen, FromRun, Generate, Note, StageDone, TrainingBegins
from ocl_bench.runner.plan import Plan, too_large_batch
from ocl_bench.runner.request import RunRequest
from ocl_bench.runner.schedule import Schedule
from ocl_bench.runner.serving import Serving
from ocl_bench.runner.store import Store
from ocl_bench.runner.workers import Workers
from ocl_bench.score.result import Results
from ocl_bench.tasks.records import dataset_sha256

WATCH_SECONDS = 0.5

OnMessage = Callable[[FromRun], None]


def execute(plan: Plan, request: RunRequest, workers: Workers, on_message: OnMessage) -> tuple[Path, Results]:
    """Run a plan to the end, from wherever the same run was left.

    Args:
        plan: from `make_plan`.
        request: what it was made of.
        workers: the processes that train; those that the last run started are used again where they fit.
        on_message: called with each message of the run, in this thread.

    Returns:
        The run folder and the results in it.

    Raises:
        RunFailed: if a stage fails, or files cannot be written; what is finished is kept, and the same run goes on.
    """
    folder = run_folder(request.output_path, plan)
    with _alone(folder, request, on_message):
        _Execution(plan, request, folder, workers, on_message).run()
        results = score_run(folder)
        write_results(folder, results)
    return folder, results


def execute_part(
    plan: Plan, request: RunRequest, seeds: tuple[int, ...], folder: Path, workers: Workers, on_message: OnMessage
) -> None:
    """Do the stages of some of a plan's seeds: `execute` then finds them, here or on another machine.

    Args:
        plan, request, workers, on_message: as of `execute`.
        seeds: stage-1 seeds. What all seeds share is done too, and nothing else where `seeds` is empty.
        folder: takes the place of a run folder. Whatever is made lies beside the run's, so this can be removed.

    Raises:
        RunFailed: as `execute`.
    """
    with _alone(folder, request, on_message):
        _Execution(plan, request, folder, workers, on_message, seeds).run()


class _Execution:
    """One start of a run, or of the part of it that some seeds are."""

    def __init__(
        self,
        plan: Plan,
        request: RunRequest,
        folder: Path,
        workers: Workers,
        on_message: OnMessage,
        seeds: tuple[int, ...] | None = None,
    ) -> None:
        self.plan, self.request, self.folder = plan, request, folder
        self.workers, self.on_message = workers, on_message
        self.store = Store(request.output_path.absolute())
        self.schedule = Schedule(plan, self.store, adopts=not request.fresh, seeds=seeds)
        self.keeper = Keeper(self.schedule, self.store, folder, request.keep)
        self.hardware: dict[str, str] = {}
        self.live = Live(len(self.schedule.jobs))

    def run(self) -> None:
        """Do what is not done, and say in the manifest what became of it."""
        clean_folder(self.folder)
        cells = {cell for cell, _ in self.schedule.jobs}
        write_data(self.folder, {cell: records for cell, records in self.plan.records.items() if cell in cells})
        self._do()
        self.store.sweep()

    def _do(self) -> None:
        plan, earlier = self.plan, self._earlier()
        if self.request.fresh:
            self.schedule.remove_all()
        reused = self.schedule.look()
        for job, record in self.schedule.done():
            link_stage(self.folder, self.store, job, record)
        self._say_what_is_there(reused)
        if not self.schedule.finished and is_large_for(plan.config.compute.device, plan.parameters):
            from ocl_bench.runner.estimate import estimate, require_fit  # imports peft

            require_fit(estimate(plan))
        if self.schedule.finished and earlier is not None and earlier.status == "complete":
            return
        start = time.monotonic()
        manifest = self._first_manifest(earlier, reused)
        manifest.write(self.folder)
        serves = plan.config.compute.engine == "vllm" and not self.schedule.finished
        status = "failed"
        with _watched_memory() as memory, Serving(plan, self.folder) if serves else nullcontext() as serving:
            try:
                if not self.schedule.finished:
                    self._train(serving)
                status = "complete"
            except (KeyboardInterrupt, SystemExit):
                status = "interrupted"
                raise
            finally:
                self.live.remove(self.folder)
                stages, evaluations = read_records(self.folder, plan.config)
                self._finish(manifest, {
                    "status": status,
                    "hardware": self.hardware or manifest.hardware or _hardware(stages),
                    **(serving.facts if serving else {}),
                    "stages": stages,
                    "evaluations": evaluations,
                    "wall_seconds": (manifest.wall_seconds or 0.0) + time.monotonic() - start,
                    "peak_memory_bytes": max(memory[0], manifest.peak_memory_bytes or 0),
                })  # fmt: skip

    def _finish(self, manifest: Manifest, found: dict[str, Any]) -> None:
        if engines := _engines(found["evaluations"]):
            found["engine"] = engines[-1]
        manifest.model_copy(update=found).write(self.folder)

    def _earlier(self) -> Manifest | None:
        """The manifest of the same run's last start; None if this is the first."""
        if not (self.folder / "manifest.json").is_file():
            return None
        found = read_manifest(self.folder)
        return found if found.key == self.plan.key else None

    def _first_manifest(self, earlier: Manifest | None, reused: int) -> Manifest:
        plan = self.plan
        commit, dirty = checkout_state()
        return Manifest(
            status="running",
            key=plan.key,
            passed=self.request.passed,
            config=plan.config,
            model_revision=plan.model_revision,
            parameters=plan.parameters,
            datasets={cell.name: dataset_sha256(records) for cell, records in plan.records.items()},
            stages={},
            evaluations={},
            engine=torch_record(plan.config.compute),
            engine_seconds=None,
            engine_load_seconds=(),
            engine_crashes=0,
            versions=versions(),
            commit=commit,
            dirty=dirty,
            hardware=earlier.hardware if earlier else {},
            started=earlier.started if earlier else datetime.now(UTC).isoformat(timespec="seconds"),
            starts=earlier.starts + 1 if earlier else 1,
            reused=reused,
            wall_seconds=earlier.wall_seconds if earlier else None,
            peak_memory_bytes=earlier.peak_memory_bytes if earlier else None,
        )

    def _say_what_is_there(self, reused: int) -> None:
        schedule = self.schedule
        if reused:
            self.on_message(Note(f"{reused} of {len(schedule.jobs)} stages were there{schedule.made_by_others()}"))
        if not schedule.finished:
            compute = self.plan.config.compute
            self.on_message(EngineChosen(compute.engine, compute.engine_reason))
            if schedule.steps_left and (faster := advice(compute)):
                self.on_message(Note(faster))
            if checkout_state()[1]:
                self.on_message(
                    Note("code or tasks have uncommitted changes: the standard division will not take this run")
                )
            if schedule.steps_left and (large := too_large_batch(self.plan)):
                self.on_message(Note(large))

    def _train(self, serving: Serving | None) -> None:
        self.live.done = sum(1 for _ in self.schedule.done())
        plan, schedule = self.plan, self.schedule
        slots = plan.config.compute.slots
        self.on_message(TrainingBegins(self.live.done, self.live.of, schedule.steps_left, plan.parameters, slots))
        self.live.write(self.folder)
        for message in self.workers.perform(self.schedule, self.folder.absolute(), serving):
            if isinstance(message, StageDone):
                job, record = self.schedule.finish(message.where, message.key)
                link_stage(self.folder, self.store, job, record)
                for note in self.keeper.after(job):
                    self.on_message(Note(note))
            self.live.take(message)
            self.live.done = sum(1 for _ in self.schedule.done())
            self.live.write(self.folder, at_once=isinstance(message, StageDone))
            if not isinstance(message, Generate):
                self.on_message(message)
        self.hardware = self.workers.hardware
        self.schedule.require_success()


def _hardware(stages: Mapping[str, Mapping[str, StageRecord]]) -> dict[str, str]:
    """What the newest stage was trained on, for a run that found all of them made by others."""
    made = [one.provenance for own in stages.values() for one in own.values()]
    return max(made, key=lambda one: one.made).hardware if made else {}


def _engines(evaluations: Any) -> list[Any]:
    return [
        found["answers"].engine for stages in evaluations.values() for found in stages.values() if "answers" in found
    ]


@contextmanager
def _alone(folder: Path, request: RunRequest, on_message: OnMessage) -> Iterator[None]:
    """Keep a run folder to this process; another that is at the same run is waited for."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_message(Note(f"another process is at this run ({folder}); waiting for it"))
            lock.acquire(poll_interval=0.2)
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        raise RunFailed(
            f"{error.filename or request.output_path} cannot be written or read ({error.strerror or error}); what is "
            "finished is kept: mend that, and run the same command again to go on."
        ) from None


@contextmanager
def _watched_memory() -> Iterator[list[int]]:
    """Yield a one-element list that holds the highest memory of this process and its children, shared pages once."""
    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not stop.wait(WATCH_SECONDS):
            peak[0] = max(peak[0], sum(_memory(process) for process in (me, *_children(me))))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _memory(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.Error:
        return 0
