"""Execute a plan: start workers, hand out seeds, watch them, score."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue
from typing import Any

import psutil

from ocl_bench.errors import OclBenchError, RunFailed
from ocl_bench.forking import forked
from ocl_bench.processes import Child, Events, Exited, Failed, Message
from ocl_bench.runner.devices import device_environment
from ocl_bench.runner.folder import new_run_folder, read_stages, score_run, write_data, write_results
from ocl_bench.runner.manifest import Manifest, RunConfig, checkout_state, torch_record, versions
from ocl_bench.runner.messages import EngineChosen, FromWorker, Generate, Job, Ready, SeedDone
from ocl_bench.runner.plan import Plan
from ocl_bench.runner.serving import Serving
from ocl_bench.runner.worker import PRELOAD, log_path
from ocl_bench.score.result import Results
from ocl_bench.tasks.records import dataset_sha256

WATCH_SECONDS = 0.5

OnEvent = Callable[[Message], None]


def execute(
    plan: Plan, workers: "Workers", output_path: Path, passed: dict[str, Any], on_event: OnEvent
) -> tuple[Path, Results]:
    """Run a plan to the end.

    Args:
        plan: from `make_plan`.
        workers: the processes that train; those that the last run started are used again where they fit.
        output_path: where run folders are made.
        passed: what the user passed, for the manifest.
        on_event: called with each message of the workers, in this thread.

    Returns:
        The run folder and the results in it.

    Raises:
        RunFailed: if a seed fails; what finished before is kept.
    """
    start = time.monotonic()
    folder = new_run_folder(output_path, plan.config)
    manifest = _first_manifest(plan, passed)
    write_data(folder, plan.records)
    manifest.write(folder)
    ran_on: dict[str, str] = {}
    serves = plan.config.engine == "vllm"
    on_event(EngineChosen(plan.config.engine, plan.config.engine_reason))
    with _watched_memory() as memory, Serving(plan, folder) if serves else nullcontext() as serving:
        try:
            for message in workers.train(folder.absolute(), plan.config, serving):
                if isinstance(message, Ready):
                    ran_on = message.hardware
                on_event(message)
            status = "complete"
        except BaseException:
            status = "failed"
            raise
        finally:
            manifest = manifest.model_copy(
                update={
                    "status": status,
                    "hardware": ran_on,
                    **(serving.facts if serving else {}),
                    "stages": read_stages(folder, plan.config),
                    "wall_seconds": time.monotonic() - start,
                    "peak_memory_bytes": memory[0],
                }
            )
            manifest.write(folder)
    results = score_run(folder)
    write_results(folder, results)
    return folder, results


def _first_manifest(plan: Plan, passed: dict[str, Any]) -> Manifest:
    commit, dirty = checkout_state()
    return Manifest(
        status="running",
        passed=passed,
        config=plan.config,
        model_revision=plan.model_revision,
        parameters=plan.parameters,
        datasets={cell: dataset_sha256(records) for cell, records in plan.records.items()},
        stages={},
        engine=torch_record(plan.config),
        engine_seconds=None,
        engine_load_seconds=(),
        engine_crashes=0,
        versions=versions(),
        commit=commit,
        dirty=dirty,
        hardware={},
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=None,
        peak_memory_bytes=None,
    )


class Workers:
    """The processes that train: started for a run, kept for the next that needs the same, ended with the block."""

    def __init__(self) -> None:
        self._shape: tuple[str, int, int] | None = None
        self._workers: list[Child] = []
        self._events: Events = Queue()
        self._hardware: dict[str, str] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: Any) -> None:
        self._end()

    def train(self, folder: Path, config: RunConfig, serving: "Serving | None") -> Iterator[Message]:
        """Train and evaluate every seed of a run folder; yields the workers' messages as they come.

        Args:
            folder: the run folder.
            config: the run.
            serving: the run's vLLM engine, which answers what workers ask it; None if it has none.
        """
        waiting = deque(Job(str(folder), seed, stage2_seed=0, stage=0) for seed in config.seeds)
        self._start(folder, config)
        yield Ready(self._hardware)
        try:
            if serving is not None:
                serving.start(self._events)
            for idle in self._workers[: len(waiting)]:
                idle.send(waiting.popleft())
            unfinished = len(config.seeds)
            while unfinished:
                worker, message = self._events.get()
                match message:
                    case Generate():
                        assert serving is not None and worker is not None
                        serving.ask(worker, message)
                        continue
                    case SeedDone():
                        unfinished -= 1
                        if waiting and worker is not None:
                            worker.send(waiting.popleft())
                    case Failed() | Exited():
                        log = serving.log if serving and worker is None else self._log(folder, worker)
                        raise _failure(message, log)
                yield message
        except BaseException:
            self._end()
            raise

    def _log(self, folder: Path, worker: Child | None) -> Path:
        return log_path(folder, next(number for number, one in enumerate(self._workers) if one is worker))

    def _start(self, folder: Path, config: RunConfig) -> None:
        """Start as many workers as the run wants, unless those of the last run are just as many of the same kind."""
        shape = (config.device, config.workers, config.threads)
        if self._shape == shape:
            return
        self._end()
        self._shape, self._events = shape, Queue()
        environment = device_environment(config.device) | {
            "OMP_NUM_THREADS": str(config.threads),
            "MKL_NUM_THREADS": str(config.threads),
        }
        for number in range(config.workers):
            arguments = [str(number), str(config.threads)]
            log = log_path(folder, number)
            child = Child(
                "ocl_bench.runner.worker",
                arguments,
                environment,
                log,
                self._events,
                sends=FromWorker,
                start=forked(PRELOAD),
            )
            self._workers.append(child)
        for _ in self._workers:
            started, message = self._events.get()
            if isinstance(message, Failed | Exited):
                log = self._log(folder, started)
                self._end()
                raise _failure(message, log)
            assert isinstance(message, Ready)
            self._hardware = message.hardware

    def _end(self) -> None:
        for worker in self._workers:
            worker.end()
        self._shape, self._workers = None, []


def _failure(ended: Failed | Exited, log: Path) -> OclBenchError:
    if isinstance(ended, Exited):
        return RunFailed(
            f"a training process ended with code {ended.code} (negative: killed by that signal, 9 is often a lack "
            f"of memory); see {log}."
        )
    message = ended.message.strip().splitlines()[0]
    if ended.exit_code is not None:
        return OclBenchError(message) if ended.exit_code == OclBenchError.exit_code else RunFailed(message)
    if "out of memory" in message.lower():
        return RunFailed(f"the device ran out of memory; pass a smaller --batch_size (see {log}).")
    return RunFailed(f"training failed: {message} (see {log})")


@contextmanager
def _watched_memory() -> Iterator[list[int]]:
    """Yield a one-element list that holds the highest memory of this process and its children, shared pages once."""
    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not stop.wait(WATCH_SECONDS):
            peak[0] = max(peak[0], sum(_memory(process) for process in (me, *me.children(recursive=True))))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _memory(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.Error:
        return 0
