"""Run a study: every point that is not there yet, then the figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.files import require_writable, write_atomic
from ocl_bench.models.spec import is_pretrained
from ocl_bench.runner.begin import Progress
from ocl_bench.runner.executors import Executor, Local
from ocl_bench.runner.request import RunRequest
from ocl_bench.score.result import Results
from ocl_bench.study.schema import Run, Study, load_study
from ocl_bench.study.sweep import results_in


class PointResult(Contract):
    """A finished point."""

    run: Run = Field(description="what was run")
    seeds: tuple[int, ...] = Field(description="stage-1 seeds")
    results: Results = Field(description="the run's results.json")


class StudyResults(Contract):
    """A study's file of results."""

    schema_version: Literal[1] = Field(1, description="version of this format")
    study: Study = Field(description="the study")
    model: str = Field(description="the model it was run with")
    points: tuple[PointResult, ...] = Field(description="finished points, in the order of the study")


def run_study(
    name: str,
    model: str | None = None,
    *,
    seeds: tuple[int, ...],
    task: str | None = None,
    overrides: Sequence[str] = (),
    include_path: Sequence[Path] = (),
    output_path: Path = Path("studies"),
    runs_path: Path = Path("runs"),
    executor: Executor | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> tuple[StudyResults, Path]:
    """Run a study's points with `model` and draw its figure.

    Points that the study's JSON in `output_path` already has are kept: an interrupted study goes on where it was.

    Args:
        name: a study's name or file.
        model: a hub id, a folder, or `scratch:NAME`; decides between the study's two kinds of runs. None takes
            `scratch:tiny`, or the first point's model where the study is of pretrained models alone.
        seeds: stage-1 seeds of every point.
        task: a task's name or file; None takes the study's for this kind of model.
        overrides: further overrides of every point, after the study's own.
        include_path: folders with further tasks, recipes and studies.
        output_path: where `NAME.json` and `NAME.png` go.
        runs_path: where run folders go.
        executor: where runs are performed; None: here. One after the other, the first that fails ends the study.
        progress: of runs here.
        options: further fields of `ocl_bench.runner.request.RunRequest`.

    Returns:
        The results and the figure's path.

    Raises:
        OclBenchError: as `ocl_bench.run`; or if the JSON there has a point of another model, task, setting or seeds.
    """
    from ocl_bench.study.figure import draw

    study = load_study(name, include_path)
    model = study.default_model if model is None else model
    if model is None:
        raise OclBenchError(f"study '{study.study}' is for pretrained models and names none; give --model.")
    require_writable(output_path)
    path = output_path / f"{study.study}.json"
    wanted = [
        point.model_copy(update={"task": point.task if task is None else task, "set": (*point.set, *overrides)})
        for point in study.runs(is_pretrained(model))
    ]
    done = {wanted.index(point.run): point for point in _kept(path, model, wanted, seeds)}

    def results() -> StudyResults:
        return StudyResults(study=study, model=model, points=tuple(done[number] for number in sorted(done)))

    missing = [number for number in range(len(wanted)) if number not in done]
    requests = [
        RunRequest.from_options(
            model=wanted[number].model or model,
            task=wanted[number].task,
            overrides=wanted[number].set,
            seeds=seeds,
            include_path=include_path,
            output_path=runs_path / study.study,
            **options,
        )
        for number in missing
    ]
    failed: list[OclBenchError] = []
    with executor or Local(progress) as runs:
        for outcome in runs.perform(requests):
            number = missing[outcome.number]
            if outcome.error is not None:
                failed.append(outcome.error)
                if isinstance(runs, Local):
                    break
                continue
            found = results_in(outcome.folder)
            done[number] = PointResult(run=wanted[number], seeds=seeds, results=found)
            write_atomic(path, results().model_dump_json(indent=1) + "\n")
    if failed:
        raise failed[0]
    figure = output_path / f"{study.study}.png"
    draw(results(), figure)
    return results(), figure


def read_study_results(path: Path) -> StudyResults:
    """Read a study's JSON. Raises OclBenchError if it is none of this version."""
    try:
        return StudyResults.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise OclBenchError(f"{path}: not a study's results ({str(error).splitlines()[0]}).") from None


def _kept(path: Path, model: str, wanted: Sequence[Run], seeds: tuple[int, ...]) -> tuple[PointResult, ...]:
    """Points of an earlier call. Raises OclBenchError if any of them would be lost."""
    if not path.is_file():
        return ()
    earlier = read_study_results(path)
    if earlier.model != model or any(one.run not in wanted or one.seeds != seeds for one in earlier.points):
        raise OclBenchError(
            f"{path} holds points of {earlier.model} that are not of this call (another model, task, setting or other "
            "seeds); choose another --output_path."
        )
    return earlier.points
