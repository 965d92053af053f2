"""Run a study: every point that is not there yet, then the figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.files import require_writable, write_atomic
from ocl_bench.models.spec import is_pretrained
from ocl_bench.score.result import Results
from ocl_bench.study.schema import Run, Study, load_study

DEFAULT_MODEL = "scratch:tiny"


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
    model: str = DEFAULT_MODEL,
    *,
    seeds: tuple[int, ...],
    overrides: Sequence[str] = (),
    include_path: Sequence[Path] = (),
    output_path: Path = Path("studies"),
    runs_path: Path = Path("runs"),
    **options: Any,
) -> tuple[StudyResults, Path]:
    """Run a study's points with `model` and draw its figure.

    A point that the study's JSON in `output_path` already has, from the same model, seeds and overrides, is kept: an
    interrupted study goes on where it was.

    Args:
        name: a study's name or file.
        model: a hub id, a folder, or `scratch:NAME`; decides between the study's two kinds of runs.
        seeds: stage-1 seeds of every point.
        overrides: further overrides of every point, after the study's own.
        include_path: folders with further tasks, recipes and studies.
        output_path: where `NAME.json` and `NAME.png` go.
        runs_path: where run folders go.
        options: further arguments of `ocl_bench.run`.

    Returns:
        The results and the figure's path.
    """
    from ocl_bench.api import run
    from ocl_bench.runner.execute import Workers
    from ocl_bench.study.figure import draw

    study = load_study(name, include_path)
    require_writable(output_path)
    path = output_path / f"{study.study}.json"
    kept = _kept(path, study, model)
    points: list[PointResult] = []
    results = StudyResults(study=study, model=model, points=())
    with Workers() as workers:
        for planned in study.runs(is_pretrained(model)):
            point = planned.model_copy(update={"set": (*planned.set, *overrides)})
            done = next((one for one in kept if one.run == point and one.seeds == seeds), None)
            if done is None:
                found = run(
                    point.model or model,
                    point.task,
                    overrides=point.set,
                    seeds=seeds,
                    include_path=include_path,
                    output_path=runs_path / study.study,
                    workers=workers,
                    **options,
                )
                done = PointResult(run=point, seeds=seeds, results=found.results)
            points.append(done)
            results = StudyResults(study=study, model=model, points=tuple(points))
            write_atomic(path, results.model_dump_json(indent=1) + "\n")
    figure = output_path / f"{study.study}.png"
    draw(results, figure)
    return results, figure


def read_study_results(path: Path) -> StudyResults:
    """Read a study's JSON. Raises OclBenchError if it is none of this version."""
    try:
        return StudyResults.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise OclBenchError(f"{path}: not a study's results ({str(error).splitlines()[0]}).") from None


def _kept(path: Path, study: Study, model: str) -> tuple[PointResult, ...]:
    """Points of an earlier call, if they are of this study and model."""
    if not path.is_file():
        return ()
    earlier = read_study_results(path)
    if earlier.model != model or earlier.study.study != study.study:
        raise OclBenchError(f"{path} holds the study with model {earlier.model}; choose another --output_path.")
    return earlier.points
