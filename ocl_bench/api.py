"""The Python face of the suite."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocl_bench.files import require_writable
from ocl_bench.tasks.load import load_task

if TYPE_CHECKING:
    from ocl_bench.runner.begin import Progress
    from ocl_bench.runner.estimate import Estimate
    from ocl_bench.runner.request import RunRequest
    from ocl_bench.runner.workers import Workers
    from ocl_bench.score.result import Gap, Results, Value

__all__ = ["RunResult", "evaluate_checkpoint", "load_results", "load_task", "plan", "run", "run_tasks"]

DEFAULT_TASK = "world"
STANDARD = "standard"


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: the run folder.
        results: what is in its results.json.
    """

    folder: Path
    results: "Results"

    @property
    def gaps(self) -> "dict[str, dict[str, Gap]]":
        """Gap → metric → mean, interval, p and n; for example `gaps["meta_ocl_gap"]["em_forced"].mean`."""
        return self.results.gaps

    @property
    def metrics(self) -> "dict[str, dict[str, Value]]":
        """Subset → metric → mean, interval, chance and n."""
        return self.results.metrics

    def table(self, format: str = "simple") -> str:
        """Subsets and gaps as text; `format` is any of tabulate's, such as `github` or `latex`."""
        from ocl_bench.report.tables import result_table

        return result_table(self.results, format)

    def plot(self, path: Path | str | None = None) -> Path:
        """Draw the learning curves; returns where (`curves.png` in the run folder unless `path` is given)."""
        from ocl_bench.report.plots import plot_run

        return plot_run(self.folder, Path(path) if path else None)


def run(
    model: str | None = None,
    task: str = DEFAULT_TASK,
    *,
    progress: "Progress | None" = None,
    workers: "Workers | None" = None,
    **options: Any,
) -> RunResult:
    """Finetune a model on a task's X1 and X2, evaluate it after each stage, and score the gaps.

    What is there of the same run, or of another that needs the same stage, is taken: run again after an interruption,
    it goes on.

    Args:
        model: a hub id, a folder, or `scratch:NAME`; None takes the task's.
        task: a task's name or file.
        progress: shows progress; None shows nothing.
        workers: training processes to share with other runs (`ocl_bench.runner.workers.Workers`); None starts its own.
        options: the other fields of `ocl_bench.runner.request.RunRequest`:

    Raises:
        OclBenchError: for bad input, before anything is trained.
        RunFailed: if a stage fails; what is finished is kept.
    """
    from ocl_bench.runner.request import RunRequest

    return run_request(RunRequest.from_options(model=model, task=task, **options), progress, workers)


def run_request(
    request: "RunRequest",
    progress: "Progress | None" = None,
    workers: "Workers | None" = None,
) -> RunResult:
    """What `run` does, of a request that is made already."""
    from ocl_bench.report.pictures import draw
    from ocl_bench.runner.begin import perform_request
    from ocl_bench.runner.workers import Workers

    with nullcontext(workers) if workers else Workers() as processes:
        folder, results = perform_request(request, processes, progress)
    draw(folder)
    return RunResult(folder, results)


def plan(model: str | None = None, task: str = DEFAULT_TASK, *, on: str | None = None, **options: Any) -> "Estimate":
    """What a run will take: parameters, memory, disk, steps, FLOPs and time. No weights are loaded.

    Args:
        model, task, options: as in `run`.
        on: a device to plan for that this machine does not have, such as H100; None plans for the run's own.

    Raises:
        OclBenchError: for bad input. That the run does not fit is no error here: `require_fit` says so.
    """
    from ocl_bench.runner.begin import plan_request
    from ocl_bench.runner.devices import named
    from ocl_bench.runner.estimate import estimate
    from ocl_bench.runner.request import RunRequest

    request, device = RunRequest.from_options(model=model, task=task, **options), None if on is None else named(on)
    return estimate(plan_request(request, there=on is not None), device)


def _document_run() -> None:
    """Give `run` the signature and the descriptions of the request's fields, which are written once."""
    from ocl_bench.runner.request import RunRequest

    own = inspect.signature(run).parameters
    fields = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in RunRequest.model_fields.items()
        if name not in own
    ]
    kept = [parameter for name, parameter in own.items() if name != "options"]
    run.__signature__ = inspect.Signature([*kept, *fields], return_annotation=RunResult)  # type: ignore[attr-defined]
    told = "".join(
        f"            {name}: {field.description}.\n"
        for name, field in RunRequest.model_fields.items()
        if name not in own
    )
    run.__doc__ = (run.__doc__ or "").replace("RunRequest`:\n", f"RunRequest`:\n{told}")


_document_run()


def evaluate_checkpoint(
    model: str,
    task: str = DEFAULT_TASK,
    *,
    seed: int = 0,
    stage2_seed: int = 0,
    stage: str | None = None,
    overrides: Sequence[str] = (),
    include_path: Sequence[Path | str] = (),
    lm_eval_model: str = "hf",
    model_args: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    device: str | None = None,
    limit: int | None = None,
    output_path: Path | str = "evals",
) -> RunResult:
    """Score a finished checkpoint through a model of lm-eval; see `ocl_bench.runner.checkpoint.evaluate_checkpoint`.

    Raises:
        OclBenchError: for bad input, or if lm-eval's model fails.
    """
    from ocl_bench.runner import checkpoint

    require_writable(Path(output_path))
    folder, results = checkpoint.evaluate_checkpoint(
        model,
        task,
        seed=seed,
        stage2_seed=stage2_seed,
        stage=stage,
        overrides=overrides,
        include_path=[Path(path) for path in include_path],
        lm_eval_model=lm_eval_model,
        model_args=model_args or {},
        batch_size=batch_size,
        device=device,
        limit=limit,
        output_path=Path(output_path),
    )
    return RunResult(folder, results)


def run_tasks(
    model: str | None = None,
    tasks: Sequence[str] = (STANDARD,),
    *,
    progress: "Progress | None" = None,
    **options: Any,
) -> "Iterator[RunResult]":
    """Run several tasks, one after the other, in the same processes, which load a pretrained model once.

    Args:
        model: as in `run`.
        tasks: tasks and groups. A group is that of pretrained models if `model` is one.
        progress, options: as in `run`.

    Raises:
        OclBenchError: as `run`; of several tasks, all are checked before any is run.
    """
    from ocl_bench.models.spec import is_pretrained
    from ocl_bench.runner.begin import check_requests
    from ocl_bench.runner.request import RunRequest
    from ocl_bench.runner.workers import Workers
    from ocl_bench.tasks.groups import expand

    include_path = [Path(path) for path in options.get("include_path", ())]
    names = expand(tasks, is_pretrained(model), include_path)
    requests = [RunRequest.from_options(model=model, task=name, **options) for name in names]
    if len(requests) > 1:
        check_requests(requests, progress)
    with Workers() as workers:
        for request in requests:
            yield run_request(request, progress, workers)


def load_results(folder: Path | str) -> RunResult:
    """Load a finished run, or any results.json."""
    from ocl_bench.runner.folder import read_results

    return RunResult(Path(folder), read_results(Path(folder)))
