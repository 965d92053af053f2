"""The Python face of the suite."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocl_bench.errors import OclBenchError
from ocl_bench.files import require_writable
from ocl_bench.frames import to_pandas
from ocl_bench.tasks.load import Overrides, as_overrides, load_task

if TYPE_CHECKING:
    from ocl_bench.leaderboard.board import Leaderboard
    from ocl_bench.report.comparison import Comparison
    from ocl_bench.report.samples import Samples
    from ocl_bench.runner.begin import Progress
    from ocl_bench.runner.estimate import Estimate
    from ocl_bench.runner.request import RunRequest
    from ocl_bench.runner.workers import Workers
    from ocl_bench.score.result import Gap, Results, Value
    from ocl_bench.score.selection import SampleSource

__all__ = [
    "RunResult", "compare", "evaluate_checkpoint", "load", "load_leaderboard", "load_task", "plan", "run", "run_tasks",
    "samples", "score",
]  # fmt: skip

DEFAULT_TASK = "world"
STANDARD = "standard"


@dataclass(frozen=True, repr=False)
class RunResult:
    """What a run, an evaluated checkpoint or a submission found. It prints as its gaps; `table()` has all.

    Attributes:
        folder: its folder.
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

    def __repr__(self) -> str:
        from ocl_bench.report.tables import short_table

        return short_table(self.results)

    def _repr_html_(self) -> str:
        from ocl_bench.report.tables import short_table

        return short_table(self.results, "html")

    def table(self, format: str = "simple") -> str:
        """Subsets and gaps as text; `format` is any of tabulate's, such as `github` or `latex`."""
        from ocl_bench.report.tables import result_table

        return result_table(self.results, format)

    def to_pandas(self, per_seed: bool = False) -> Any:
        """Every metric of every subset and gap as a `pandas.DataFrame`.

        Args:
            per_seed: whether there is a row for each seed, with its value, instead of one with mean and interval.
        """
        return to_pandas(self.results.rows(per_seed))

    def samples(self, **selected: Any) -> "Samples":
        """Questions with what was said to them; see `ocl_bench.samples`."""
        return samples(self, **selected)

    def plot(self, path: Path | str | None = None) -> Path:
        """Draw the learning curves; returns where (`curves.png` in the run folder unless `path` is given)."""
        from ocl_bench.report.plots import plot_run

        return plot_run(self.folder, Path(path) if path else None)


def run(
    model: str | Path | None = None,
    task: str | Path = DEFAULT_TASK,
    *,
    progress: "bool | Progress | None" = None,
    workers: "Workers | None" = None,
    **options: Any,
) -> RunResult:
    """Finetune a model on a task's X1 and X2, evaluate it after each stage, and score the gaps.

    What is there of the same run, or of another that needs the same stage, is taken: run again after an interruption,
    it goes on.

    Args:
        model: a hub id, a folder, or `scratch:NAME`; None takes the task's.
        task: a task's name or file.
        progress: whether to show progress; None shows it in a terminal or a notebook, and nothing elsewhere. Or what
            shows it (`ocl_bench.runner.begin.Progress`).
        workers: training processes to share with other runs (`ocl_bench.runner.workers.Workers`); None starts its own.
        options: the other fields of `ocl_bench.runner.request.RunRequest`:

    Raises:
        OclBenchError: for bad input, before anything is trained.
        RunFailed: if a stage fails; what is finished is kept.
    """
    from ocl_bench.runner.request import RunRequest

    return run_request(RunRequest.from_options(model=model, task=task, **options), _shown(progress), workers)


def _shown(progress: "bool | Progress | None") -> "Progress | None":
    if callable(progress):
        return progress
    from ocl_bench.runner.progress import RunProgress, is_watched

    return RunProgress if progress or (progress is None and is_watched()) else None


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


def plan(
    model: str | Path | None = None, task: str | Path = DEFAULT_TASK, *, on: str | None = None, **options: Any
) -> "Estimate":
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
    model: str | Path,
    task: str | Path = DEFAULT_TASK,
    *,
    seed: int = 0,
    stage2_seed: int = 0,
    stage: str | None = None,
    overrides: Overrides = (),
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
        str(model),
        str(task),
        seed=seed,
        stage2_seed=stage2_seed,
        stage=stage,
        overrides=as_overrides(overrides),
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
    model: str | Path | None = None,
    tasks: Sequence[str | Path] | str = (STANDARD,),
    *,
    progress: "bool | Progress | None" = None,
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
    asked = [tasks] if isinstance(tasks, str) else list(map(str, tasks))
    names = expand(asked, is_pretrained(None if model is None else str(model)), include_path)
    requests = [RunRequest.from_options(model=model, task=name, **options) for name in names]
    shown = _shown(progress)
    if len(requests) > 1:
        check_requests(requests, shown)
    with Workers() as workers:
        for request in requests:
            yield run_request(request, shown, workers)


def load(folder: Path | str) -> RunResult:
    """Load what a run, an evaluated checkpoint or a submission found: its folder, or its results.json.

    Raises:
        OclBenchError: if there is none, or it is of another version.
    """
    from ocl_bench.runner.folder import read_results

    path = Path(folder)
    return RunResult(path if path.is_dir() else path.parent, read_results(path))


def score(folder: Path | str) -> RunResult:
    """Score a run again from its answers, and write its results.json; no model is loaded.

    Args:
        folder: the run folder.

    Raises:
        OclBenchError: if the run has not finished.
    """
    from ocl_bench.runner.folder import score_run, write_results

    results = score_run(Path(folder))
    write_results(Path(folder), results)
    return RunResult(Path(folder), results)


def samples(
    *runs: RunResult | Path | str,
    subset: str | None = None,
    seed: int | None = None,
    stage: str | None = None,
    kind: str | None = None,
    question: str | None = None,
    wrong: bool = False,
    limit: int | None = None,
) -> "Samples":
    """Questions with the accepted answers, what a model said, what it chose, and whether that is right.

    Args:
        runs: runs, evaluated checkpoints or submissions, or their folders; several of one task are shown side by side.
        subset, seed, stage, kind, question, wrong, limit: which; see `ocl_bench.score.selection.select`.

    Raises:
        OclBenchError: for a folder that has no answers, or a selection that there is not.
    """
    from ocl_bench.report.samples import Samples
    from ocl_bench.score.selection import letters, select

    sources = dict(zip(letters(len(runs)), map(_answered, map(_folder, runs)), strict=True))
    told = {name: source.where for name, source in sources.items()}
    if len(runs) == 1:
        sources, told = dict.fromkeys(("",), *sources.values()), {}
    found = select(
        sources, subset=subset, seed=seed, stage=stage, kind=kind, question=question, wrong=wrong, limit=limit
    )
    return Samples(found, told)


def _folder(run: RunResult | Path | str) -> Path:
    if not isinstance(run, RunResult | Path | str):
        raise OclBenchError(
            f"{type(run).__name__}: give runs, or their folders, one by one, as in compare(one, other)."
        )
    return run.folder if isinstance(run, RunResult) else Path(run)


def _answered(folder: Path) -> "SampleSource":
    from ocl_bench.leaderboard.answered import SubmissionSamples
    from ocl_bench.leaderboard.submission import SUBMISSION
    from ocl_bench.runner.answered import EvaluationSamples, RunSamples

    if (folder / SUBMISSION).is_file():
        return SubmissionSamples(folder)
    return RunSamples(folder) if (folder / "manifest.json").is_file() else EvaluationSamples(folder)


def compare(
    *runs: RunResult | Path | str, metric: str | None = None, gaps: Sequence[str] | str | None = None
) -> "Comparison":
    """Gaps side by side, each run's difference from the first, and whether they can be told apart.

    Args:
        runs: two or more runs, evaluated checkpoints or submissions, or their folders, of one task.
        metric: a metric; None takes choice, or em where nothing is chosen.
        gaps: which; None takes all that they have in common.

    Raises:
        OclBenchError: if they are of different tasks or versions, or have no such gap or metric.
    """
    from ocl_bench.report.comparison import compared

    return compared([_folder(one) for one in runs], metric, (gaps,) if isinstance(gaps, str) else gaps)


def load_leaderboard(folder: Path | str = "leaderboard") -> "Leaderboard":
    """The accepted submissions of a leaderboard, ranked as its table ranks them.

    Args:
        folder: the leaderboard's folder, as in a checkout of this repository.

    Raises:
        OclBenchError: if it is none, or a submission in it cannot be read.
    """
    from ocl_bench.leaderboard.board import load_board

    return load_board(Path(folder))
