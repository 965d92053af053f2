"""A sweep: a grid of models, tasks and recipes, each with some seeds, on any executor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ocl_bench.contract import Contract, read_yaml
from ocl_bench.errors import OclBenchError
from ocl_bench.models.spec import is_pretrained
from ocl_bench.report.pictures import draw
from ocl_bench.runner.executors import Executor
from ocl_bench.runner.folder import read_results
from ocl_bench.runner.plan import choose
from ocl_bench.runner.request import RunRequest
from ocl_bench.score.result import Results
from ocl_bench.tasks.groups import expand

# Fields of a request that a sweep has keys of its own for, and `fresh`, with which it could not go on.
OWN = ("model", "task", "recipe", "seeds", "overrides", "output_path", "fresh")


class Sweep(Contract):
    """A sweep file."""

    schema_version: Literal[1] = Field(1, description="version of this file format")
    sweep: str = Field(pattern=r"^[a-z0-9_]+$", description="the sweep's name, which is the file's")
    description: str = Field("", description="one sentence on what it is for")
    models: tuple[str, ...] | None = Field(
        None, min_length=1, description="hub ids, folders, or scratch:NAME; null: the task's"
    )
    tasks: tuple[str, ...] = Field(min_length=1, description="names of tasks or groups, or task files")
    recipes: tuple[str, ...] | None = Field(None, min_length=1, description="names or files; null: the task's")
    seeds: int | tuple[int, ...] | None = Field(None, description="stage-1 seeds: which, or how many; null: the task's")
    set: tuple[str, ...] = Field((), description="overrides of every point, as for `run --set`")
    run: dict[str, Any] = Field({}, description="further options of `ocl-bench run` for all points: device, engine, …")
    executor: str = Field(
        "local", description="where it runs, unless --executor says so: local, ray, slurm, or a plugin"
    )
    ray: dict[str, Any] = Field({}, description="further options of each Ray task: num_cpus, accelerator_type, …")
    slurm: dict[str, Any] = Field({}, description="submitit's parameters: slurm_partition, timeout_min, …")
    plugin: dict[str, Any] = Field({}, description="options of an executor of another package")

    def options(self, executor: str) -> dict[str, Any]:
        """The options that it has for an executor."""
        own = {"local": {}, "ray": self.ray, "slurm": self.slurm}
        return own.get(executor, self.plugin)


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        label: model, task and recipe, as far as the sweep has several.
        request: the run.
        seeds: how many stage-1 seeds it has.
    """

    label: str
    request: RunRequest
    seeds: int


@dataclass(frozen=True)
class Swept:
    """What became of a point.

    Attributes:
        seeds: stage-1 seeds that are done; None where that is not known.
        folder: the run folder.
        results: of the run; None if the point failed.
        error: why it failed.
    """

    point: Point
    seeds: int | None
    folder: Path
    results: Results | None
    error: OclBenchError | None


def load_sweep(path: Path) -> Sweep:
    """Read a sweep file. Raises OclBenchError naming the file, the key and the fix."""
    sweep = Sweep.parse(read_yaml(path), str(path))
    if sweep.sweep != path.stem:
        raise OclBenchError(f"{path}: sweep is '{sweep.sweep}', but the file is called {path.name}; make them agree.")
    return sweep


def points_of(sweep: Sweep, path: Path, output_path: Path) -> list[Point]:
    """The runs of a sweep, with all checked that needs no model.

    Args:
        sweep: what `path` holds.
        path: the file, for messages.
        output_path: for run folders.

    Raises:
        OclBenchError: with a sentence for each point that cannot be.
    """
    for name in OWN:
        if name in sweep.run:
            raise OclBenchError(f"{path}: run.{name}: a sweep sets that for each of its points; leave it out.")
    points: list[Point] = []
    faults: list[str] = []
    for names in _grid(sweep, path):
        label = " ".join(names.values())
        if any(point.label == label for point in points):
            raise OclBenchError(f"{path}: '{label}' is there twice; leave one out.")
        given = {"seeds": sweep.seeds} if sweep.seeds is not None else {}
        try:
            request = RunRequest.from_options(
                **sweep.run, **names, **given, overrides=sweep.set, output_path=output_path
            )
            points.append(Point(label, request, len(choose(request).seeds)))
        except OclBenchError as error:
            faults.append(f"{path}: {label}: {error}")
    if faults:
        raise OclBenchError("\n".join(faults))
    return points


def _grid(sweep: Sweep, path: Path) -> Iterator[dict[str, str]]:
    """Model, task and recipe of each point, as far as the sweep names them."""
    include_path = [Path(folder) for folder in sweep.run.get("include_path", ())]
    for model in sweep.models or (None,):
        for task, recipe in product(expand(sweep.tasks, is_pretrained(model), include_path), sweep.recipes or (None,)):
            named = {"model": model, "task": task, "recipe": recipe}
            yield {field: name for field, name in named.items() if name is not None}


def run_sweep(points: Sequence[Point], executor: Executor) -> Iterator[Swept]:
    """Run the points; yields what became of each as it ends. One that fails does not end the others.

    Stages that are there already are taken, so that the same sweep goes on after an interruption.
    """
    with executor:
        for outcome in executor.perform([point.request for point in points]):
            point = points[outcome.number]
            results = None if outcome.error else results_in(outcome.folder)
            yield Swept(point, outcome.seeds, outcome.folder, results, outcome.error)


def failure(swept: Sequence[Swept]) -> OclBenchError | None:
    """The first point's that failed; None if none did."""
    failed = [(one.point.label, one.error) for one in swept if one.error is not None]
    if not failed:
        return None
    label, error = failed[0]
    others = f" ({len(failed) - 1} more points failed)" if len(failed) > 1 else ""
    return type(error)(f"{label}: {error}{others}")


def results_in(folder: Path) -> Results:
    """What a run left, whose pictures are drawn here: wherever it ran, its folder is shared."""
    draw(folder)
    return read_results(folder)
