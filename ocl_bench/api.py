"""The Python face of the suite."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ocl_bench.errors import OclBenchError
from ocl_bench.files import require_writable
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.sources import published_source

if TYPE_CHECKING:
    from ocl_bench.models.spec import ModelArgs
    from ocl_bench.runner.execute import Workers
    from ocl_bench.runner.progress import RunProgress
    from ocl_bench.score.result import Gap, Results, Value

__all__ = ["RunResult", "evaluate_checkpoint", "load_results", "load_task", "run", "run_tasks"]

DEFAULT_TASK = "attributes"
STANDARD = "standard"
DEFAULT_SEEDS = 5


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
    seeds: int | Sequence[int] = DEFAULT_SEEDS,
    stage2_seeds: int | Sequence[int] = 1,
    model_args: "ModelArgs | Mapping[str, Any] | None" = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    include_path: Sequence[Path | str] = (),
    trust_remote_code: bool = False,
    device: str | None = None,
    batch_size: int | None = None,
    engine: str = "auto",
    engine_args: Mapping[str, Any] | None = None,
    also_tasks: Sequence[str] = (),
    limit: int | None = None,
    curves: bool = True,
    report_to: Sequence[str] = (),
    output_path: Path | str = "runs",
    progress: "Callable[[str, int], RunProgress] | None" = None,
    workers: "Workers | None" = None,
) -> RunResult:
    """Finetune a model on a task's X1 and X2, evaluate it after each stage, and score the gaps.

    Args:
        model: a hub id, a folder, or `scratch:NAME`; None takes the task's.
        task: a task's name or file.
        seeds: stage-1 seeds, or how many.
        stage2_seeds: stage-2 seeds of each stage-1 seed, or how many.
        model_args: how to load the model: `ModelArgs`, or a mapping such as `{"dtype": "bfloat16"}`.
        recipe: a recipe's name or file; None takes the task's.
        overrides: `key=value` with dotted keys of the task file, or `recipe.` and a key of the recipe.
        include_path: folders with further task files, and recipes in `recipes/`.
        trust_remote_code: run code that comes with the model.
        device: cpu, cuda, cuda:N or mps; None takes the best there is.
        batch_size: datapoints per forward pass; None chooses. The effective batch size is the recipe's.
        engine: what generates answers: torch, vllm, or auto, which takes vLLM where it pays.
        engine_args: arguments of vLLM, such as `{"tensor_parallel_size": 2}`.
        also_tasks: tasks of lm-eval to ask before and after, such as `hellaswag`; those of `include_path` too.
        limit: questions per subset and kind; the result cannot be submitted.
        curves: record learning curves.
        report_to: the Trainer's experiment trackers, such as `tensorboard`.
        output_path: where run folders are made.
        progress: shows progress; None shows nothing.
        workers: training processes to share with other runs (`ocl_bench.runner.execute.Workers`); None starts its own.

    Raises:
        OclBenchError: for bad input, before anything is trained; or if a seed fails.
    """
    passed = _passed(locals())
    from ocl_bench.forking import warm
    from ocl_bench.models.spec import ModelArgs
    from ocl_bench.runner.devices import device_environment
    from ocl_bench.runner.plan import check_seeds, choose, make_plan
    from ocl_bench.runner.worker import PRELOAD

    if model_args is not None and not isinstance(model_args, ModelArgs):
        model_args = ModelArgs.parse(dict(model_args) if isinstance(model_args, Mapping) else model_args, "model_args")
    choice = choose(
        model,
        task,
        model_args=model_args,
        recipe=recipe,
        overrides=overrides,
        include_path=[Path(path) for path in include_path],
        trust_remote_code=trust_remote_code,
    )
    seed_list, stage2_list = check_seeds(seeds, "seeds"), check_seeds(stage2_seeds, "stage2_seeds")
    for name, number in (("batch_size", batch_size), ("limit", limit)):
        if number is not None and number < 1:
            raise OclBenchError(f"{name} is {number}; give a number from 1 up.")
    require_writable(Path(output_path))
    shown = (progress or _Silent)(choice.task.task, len(seed_list) * len(stage2_list))
    _fetch_if_absent(choice.task, show=progress is not None)
    warm(PRELOAD, device_environment("cpu"))  # what training imports is read while the plan is made
    with shown:
        plan = make_plan(
            choice,
            seeds=seed_list,
            stage2_seeds=stage2_list,
            device=device,
            batch_size=batch_size,
            engine=engine,
            engine_args={} if engine_args is None else engine_args,
            also_tasks=tuple(also_tasks),
            also_path=tuple(Path(path) for path in include_path),
            limit=limit,
            curves=curves,
            report_to=tuple(report_to),
            on_built=shown.built,
        )
        from ocl_bench.runner.execute import Workers, execute

        with nullcontext(workers) if workers else Workers() as processes:
            folder, results = execute(plan, processes, Path(output_path), passed, shown)
    result = RunResult(folder, results)
    if curves:
        result.plot()
    return result


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


def run_tasks(model: str | None = None, tasks: Sequence[str] = (STANDARD,), **options: Any) -> "Iterator[RunResult]":
    """Run several tasks, one after the other, in the same processes, which load a pretrained model once.

    Args:
        model: as in `run`.
        tasks: tasks and groups. A group is that of pretrained models if `model` is one.
        options: as in `run`.

    Raises:
        OclBenchError: as `run`; a task that cannot be found is refused before any is run.
    """
    from ocl_bench.models.spec import is_pretrained
    from ocl_bench.runner.execute import Workers
    from ocl_bench.tasks.groups import expand

    include_path = [Path(path) for path in options.get("include_path", ())]
    names = expand(tasks, is_pretrained(model), include_path)
    for name in names:
        load_task(name, include_path=include_path)
    with Workers() as workers:
        for name in names:
            yield run(model, name, workers=workers, **options)


def _fetch_if_absent(task: Task, show: bool) -> None:
    """Fetch the published data that a task is made from, unless it is here. Raises OclBenchError if that fails."""
    source = published_source(task.source)
    if source is None or source.state() != "absent":
        return
    from ocl_bench.runner.progress import FetchProgress

    if not show:
        source.fetch(None, lambda done, total: None)
        return
    with FetchProgress(task.task) as progress:
        source.fetch(None, progress)


def load_results(folder: Path | str) -> RunResult:
    """Load a finished run, or any results.json."""
    from ocl_bench.runner.folder import read_results

    return RunResult(Path(folder), read_results(Path(folder)))


def _passed(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `run` that differ from its defaults, as JSON can hold them."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(run).parameters.items()}
    plain = {}
    for name, value in arguments.items():
        if name in ("progress", "workers") or value == defaults[name]:
            continue
        if isinstance(value, Path):
            value = str(value)
        elif isinstance(value, BaseModel):
            value = value.model_dump(mode="json", exclude_defaults=True)
        elif isinstance(value, Mapping):
            value = dict(value)
        elif not isinstance(value, (str, int, type(None))):
            value = [str(item) if isinstance(item, Path) else item for item in value]
        plain[name] = value
    return plain


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
