"""From a request to its results: what it names is loaded, data is fetched, and the plan is made and executed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.evaluator import EVALUATORS
from ocl_bench.files import require_writable
from ocl_bench.runner.messages import FromRun, Note
from ocl_bench.runner.plan import Choice, Plan, check_choice, choose, make_plan
from ocl_bench.runner.request import RunRequest
from ocl_bench.runner.workers import Workers, prepare
from ocl_bench.score import metrics
from ocl_bench.score.result import Results
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.sources import published_data


class Shown(Protocol):
    """Shows how a run goes on."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *error: Any) -> None: ...

    def built(self) -> None:
        """One more dataset is built."""

    def __call__(self, message: FromRun) -> None:
        """Show one message of a run."""


Progress = Callable[[str, int], Shown]  # a task's name and how many datasets it will have → what shows a run of it


def plan_request(request: RunRequest, there: bool = False) -> Plan:
    """What a request would do, here or on a machine that is not there. Only data are fetched.

    Raises:
        OclBenchError: for bad input.
    """
    choice = choose(request)
    if there:
        _fetch_if_absent(choice.task, show=False)
    else:
        _make_ready(choice, request, None)
    return make_plan(choice, request, lambda: None, there=there)


def check_requests(requests: Sequence[RunRequest], progress: Progress | None = None) -> None:
    """Check all requests before the first is done, as far as the first dataset of each shows.

    Raises:
        OclBenchError: for the first that cannot work, with its task.
    """
    choices = [(choose(request), request) for request in requests]
    prepare()
    for choice, request in choices:
        try:
            _make_ready(choice, request, progress)
            check_choice(choice, request)
        except OclBenchError as error:
            raise OclBenchError(f"task '{choice.task.task}': {error}") from None


def perform_request(request: RunRequest, workers: Workers, progress: Progress | None = None) -> tuple[Path, Results]:
    """Do what a request asks for, from wherever the same was left.

    Args:
        request: what to do.
        workers: training processes; those that an earlier run started are used again where they fit.
        progress: shows progress; None shows nothing.

    Returns:
        The run folder and the results in it.

    Raises:
        OclBenchError: for bad input, before anything is trained.
        RunFailed: if a stage fails; what is finished is kept.
    """
    choice = _ready(request, progress)
    prepare()  # libraries are imported while the plan is made
    with _shown(choice, request, progress) as shown:
        for _, fault in (*EVALUATORS.plugins.listed(), *metrics.PLUGINS.listed()):
            if fault:
                shown(Note(fault))
        plan = make_plan(choice, request, shown.built)
        from ocl_bench.runner.execute import execute

        return execute(plan, request, workers, shown)


def perform_part(request: RunRequest, seeds: tuple[int, ...], folder: Path, workers: Workers) -> None:
    """Do the stages of some of a request's seeds, and show nothing; see `execute_part`. Raises as `perform_request`."""
    choice = _ready(request, None)
    prepare()
    with _shown(choice, request, None) as shown:
        # The whole request's plan: which engine answers, for one, depends on how much is asked in all.
        plan = make_plan(choice, request, shown.built, jobs=max(1, len(seeds)))
        from ocl_bench.runner.execute import execute_part

        execute_part(plan, request, seeds, folder, workers, shown)


def _ready(request: RunRequest, progress: Progress | None) -> Choice:
    choice = choose(request)
    _make_ready(choice, request, progress)
    return choice


def _make_ready(choice: Choice, request: RunRequest, progress: Progress | None) -> None:
    require_writable(request.output_path)
    _fetch_if_absent(choice.task, show=progress is not None)


def _shown(choice: Choice, request: RunRequest, progress: Progress | None) -> Shown:
    return (progress or _Silent)(choice.task.task, len(choice.seeds) * len(request.stage2_seeds))


def _fetch_if_absent(task: Task, show: bool) -> None:
    """Fetch the published data that a task is made from, unless it is here. Raises OclBenchError if that fails."""
    source = published_data(task)
    if source is None or source.state() != "absent":
        return
    from ocl_bench.runner.progress import FetchProgress

    if not show:
        source.fetch(None, lambda done, total: None)
        return
    with FetchProgress(task.task) as progress:
        source.fetch(None, progress)


class _Silent:
    """Shows nothing."""

    def __init__(self, task: str, cells: int) -> None:
        pass

    def __enter__(self) -> "_Silent":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def built(self) -> None:
        pass

    def __call__(self, message: Any) -> None:
        pass
