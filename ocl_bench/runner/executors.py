"""Executors: where requests are performed. `local` is this process; others start parts of them on other machines.

A part is what one stage-1 seed of a request needs. It leaves its stages in the output folder, which all machines share,
and once all parts of a request are done, the whole request is performed by the same executor: it finds every stage
there, scores, and writes the run folder. A machine that is lost loses a stage at most.
"""

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ocl_bench.errors import OclBenchError
from ocl_bench.runner.begin import Progress, perform_request
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.part import FOLDER, Ended, Part, choice_sha256, code_versions
from ocl_bench.runner.parts import EXECUTORS
from ocl_bench.runner.plan import Choice, choose
from ocl_bench.runner.request import RunRequest
from ocl_bench.runner.workers import Workers

POLL_SECONDS = 0.2

Seeds = tuple[int, ...] | None  # as of `Part`
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Attributes:
        number: the request's, in the order given.
        folder: its run folder; the current one if it failed.
        seeds: stage-1 seeds that are done; None where a failed run does not tell.
        error: why it failed; None if it did not.
    """

    number: int
    folder: Path
    seeds: int | None
    error: OclBenchError | None = None


class Executor(Protocol):
    """Performs requests somewhere, within its `with` block; what is not done at the block's end is given up."""

    def __enter__(self) -> "Executor": ...

    def __exit__(self, *error: Any) -> None: ...

    def perform(self, requests: Sequence[RunRequest]) -> Iterator[Outcome]:
        """Perform requests; yields what became of each as it ends. One that fails does not end the others."""


class Local:
    """One request after the other, in training processes that all of them share.

    Args:
        progress: shows progress; None shows nothing.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress, self.workers = progress, Workers()

    def __enter__(self) -> "Local":
        self.workers.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.workers.__exit__(*error)

    def perform(self, requests: Sequence[RunRequest]) -> Iterator[Outcome]:
        """As of `Executor`."""
        for number, request in enumerate(requests):
            try:
                folder, results = perform_request(request, self.workers, self.progress)
            except OclBenchError as error:
                yield Outcome(number, Path(), None, error)
            else:
                yield Outcome(number, folder, len(results.seeds))


class Job(Protocol):
    """A part that was handed to other machines."""

    def ended(self) -> Ended | None:
        """How it ended; None if it has not."""

    def cancel(self) -> None:
        """End it, wherever it is."""


class Pool(Protocol):
    """Machines that do parts."""

    def submit(self, parts: Sequence[Part], request: RunRequest) -> list[Job]:
        """Hand over parts of one request."""

    def close(self) -> None:
        """Let go of the machines."""


class Elsewhere:
    """Requests in parts, on a pool's machines.

    Args:
        pool: called when the block begins. Raises OclBenchError if its machines cannot be reached.
        tell: called with a line for each part that ends.
    """

    def __init__(self, pool: Callable[[], Pool], tell: Tell) -> None:
        self._make, self._tell = pool, tell
        self._running: dict[Job, tuple[_Point, Part]] = {}
        self._markers: dict[Path, Path] = {}  # output folder → the file by which nodes know it
        self._whole = True  # whether nothing has failed or was given up

    def __enter__(self) -> "Elsewhere":
        self._pool = self._make()
        return self

    def __exit__(self, *error: Any) -> None:
        self._whole &= not self._running
        for job in self._running:
            with contextlib.suppress(Exception):  # whatever is unreachable now, the others are ended
                job.cancel()
        self._pool.close()
        for marker in self._markers.values():
            marker.unlink(missing_ok=True)
            if self._whole and not any(marker.parent.glob(".*")):  # logs of what failed stay, and what others are at
                shutil.rmtree(marker.parent, ignore_errors=True)

    def perform(self, requests: Sequence[RunRequest]) -> Iterator[Outcome]:
        """As of `Executor`."""
        for point in [_Point(number, request, choose(request)) for number, request in enumerate(requests)]:
            self._submit(point)
        while self._running:
            time.sleep(POLL_SECONDS)
            for job, (point, part) in list(self._running.items()):
                ended = job.ended()
                if ended is not None:
                    del self._running[job]
                    self._say(point, part, ended)
                    outcome = self._after(point, part, ended)
                    if outcome is not None:
                        yield outcome

    def _submit(self, point: "_Point") -> None:
        output = point.request.output_path.absolute()
        parts = [
            Part(
                request=msgspec.json.encode(point.passed).decode(),
                seeds=seeds,
                marker=str(self._marker(output)),
                cwd=str(Path.cwd()),
                versions=code_versions(),
                choice=choice_sha256(point.choice),
            )
            for seeds in point.begin()
        ]
        jobs = self._pool.submit(parts, point.request)
        self._running |= {job: (point, part) for job, part in zip(jobs, parts, strict=True)}

    def _after(self, point: "_Point", part: Part, ended: Ended) -> Outcome | None:
        """Go on with a point, one of whose parts has ended; returns what became of the point if that was the last."""
        point.ended(part, ended)
        self._whole &= not ended.error
        if point.underway:
            return None
        if point.failed is None and part.seeds is not None:
            try:
                self._submit(point)
            except OclBenchError as error:  # whatever the machines do not take now: other points go on
                point.failed, self._whole = error, False
            else:
                return None
        return Outcome(point.number, Path(ended.folder), point.done, point.failed)

    def _say(self, point: "_Point", part: Part, ended: Ended) -> None:
        after = f"after {ended.seconds:.0f} s on {ended.node}"
        self._tell(f"{point.name} {part.name} {f'failed {after}: {ended.error}' if ended.error else f'done {after}'}")

    def _marker(self, output: Path) -> Path:
        if output not in self._markers:
            self._markers[output] = marker = output / FOLDER / f".{secrets.token_hex(8)}"
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
        return self._markers[output]


class _Point:
    """A request on its way: what all seeds share first, so that none waits for it with a device in hand, then each
    seed, then the whole; that alone if it was whole before."""

    def __init__(self, number: int, request: RunRequest, choice: Choice) -> None:
        if request.fresh:
            raise OclBenchError("--fresh goes with local runs only: a part that is done again would train anew.")
        self.number, self.request, self.choice = number, request, choice
        self.passed = request.passed | {"output_path": str(request.output_path.absolute())}
        self.name = " ".join(filter(None, (choice.model.name, request.task, request.recipe)))
        shared = choice.task.shared_stages and not request.own_x0
        each: list[Seeds] = [(seed,) for seed in choice.seeds]
        whole: list[Seeds] = [None]
        self._phases: list[list[Seeds]] = [[()], each, whole] if shared else [each, whole]
        if self._was_whole():
            self._phases = [whole]
        self.underway = 0
        self.done = 0
        self.failed: OclBenchError | None = None

    def begin(self) -> "list[Seeds]":
        """The parts of the next phase."""
        parts = self._phases.pop(0)
        self.underway = len(parts)
        return parts

    def ended(self, part: Part, ended: Ended) -> None:
        """One of its parts has ended."""
        self.underway -= 1
        self.failed = self.failed or ended.failure
        if not ended.error:
            self.done = len(self.choice.seeds) if part.seeds is None else self.done + len(part.seeds)

    def _was_whole(self) -> bool:
        """Whether a run folder says that just this was done. What has gone since, the whole request makes again."""
        for path in self.request.output_path.glob(f"{self.choice.model.slug}/{self.choice.task.task}/*/manifest.json"):
            with contextlib.suppress(OclBenchError):  # of another version
                manifest = read_manifest(path.parent)
                if manifest.status == "complete" and manifest.passed == self.passed:
                    return True
        return False


@dataclass(frozen=True)
class Setting:
    """What an executor is made with.

    Attributes:
        options: those that a sweep file has for it.
        address: of a cluster that runs; None if none was given.
        progress: shows progress of runs in this process; None shows nothing.
        tell: called with a line for each part that ends elsewhere.
    """

    options: Mapping[str, Any]
    address: str | None
    progress: Progress | None
    tell: Tell


def _ray(setting: Setting) -> Executor:
    from ocl_bench.runner.on_ray import RayPool

    return Elsewhere(lambda: RayPool(setting.address, setting.options), setting.tell)


def _slurm(setting: Setting) -> Executor:
    from ocl_bench.runner.on_slurm import SlurmPool

    return Elsewhere(lambda: SlurmPool(setting.options), setting.tell)


def _local(setting: Setting) -> Executor:
    return Local(setting.progress)


def executor(
    name: str,
    *,
    address: str | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    tell: Tell = lambda line: None,
) -> Executor:
    """The executor of a name.

    Args:
        name: `local`, `ray`, `slurm`, or that of another package.
        address: of a cluster that runs; None with `ray` starts a Ray on this machine.
        options: with `ray` those of each Ray task, such as `num_cpus`; with `slurm` submitit's parameters.
        progress, tell: as of `Setting`.

    Raises:
        OclBenchError: for a name that there is not, or an address with an executor that takes none.
    """
    if address is not None and name in ("local", "slurm"):
        raise OclBenchError(f"--address is that of a Ray cluster, and the executor is {name}; add --executor ray.")
    made: Executor = EXECUTORS.load(name)(Setting(options or {}, address, progress, tell))
    return made
