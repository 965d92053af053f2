"""The run folder: where everything about one run lies."""

import time
from collections.abc import Mapping
from pathlib import Path

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.samples import Sample
from ocl_bench.files import read_json_lines, write_atomic
from ocl_bench.runner.manifest import Manifest, RunConfig, StageRecord, read_manifest
from ocl_bench.runner.plan import cell_name
from ocl_bench.score.result import Results
from ocl_bench.score.score import score
from ocl_bench.tasks.records import Record, serialize


def new_run_folder(output_path: Path, config: RunConfig) -> Path:
    """Make `<output_path>/<model>/<task>/<UTC time>`; a second run in the same second gets a suffix."""
    parent = output_path / config.model.slug / config.task.task
    name = time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        folder = parent / (name + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise OclBenchError(f"{parent}: too many runs in one second.")


def write_data(folder: Path, records: Mapping[str, list[Record]]) -> None:
    """Write each cell's data.jsonl."""
    for cell, dataset in records.items():
        write_atomic(folder / cell / "data.jsonl", serialize(dataset))


def cells(config: RunConfig) -> list[str]:
    """Names of all cells, in order of seed and stage-2 seed."""
    return [cell_name(seed, stage2_seed) for seed in config.seeds for stage2_seed in config.stage2_seeds]


def read_stages(folder: Path, config: RunConfig) -> dict[str, dict[str, StageRecord]]:
    """What each finished stage of each cell did."""
    return {
        cell: {
            stage.name: StageRecord.model_validate_json(path.read_text(encoding="utf-8"))
            for stage in config.task.stages
            if (path := folder / cell / stage.name / "stage.json").is_file()
        }
        for cell in cells(config)
    }


def read_samples(folder: Path, config: RunConfig) -> list[Sample]:
    """All samples of a run. Raises OclBenchError if a cell has none, so that no seed is skipped silently."""
    samples = []
    for cell in cells(config):
        path = folder / cell / "samples.jsonl"
        if not path.is_file():
            raise OclBenchError(f"{path} is missing: the run has not finished this seed.")
        samples += [
            Sample.parse(row, f"{path} line {number}") for number, row in enumerate(read_json_lines(path), start=1)
        ]
    return samples


def score_run(folder: Path) -> Results:
    """Score a run from its samples alone; no model is loaded."""
    manifest: Manifest = read_manifest(folder)
    config = manifest.config
    return score(
        read_samples(folder, config),
        config.task,
        model=config.model.name,
        model_revision=manifest.model_revision,
        recipe=config.recipe.recipe,
        engine=manifest.engine,
        limit=config.limit,
        overridden=config.overridden,
    )


def write_results(folder: Path, results: Results) -> None:
    """Write results.json."""
    write_atomic(folder / "results.json", results.model_dump_json(indent=2) + "\n")


def read_results(folder: Path) -> Results:
    """Read a run folder's results.json. Raises OclBenchError if it is missing or of another version."""
    path = folder / "results.json" if folder.is_dir() else folder
    if not path.is_file():
        raise OclBenchError(f"{folder}: there is no results.json; score the run with `ocl-bench score {folder}`.")
    from pydantic import ValidationError

    try:
        return Results.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise OclBenchError(f"{path}: not a result of this version of ocl-bench ({str(error).splitlines()[0]}).") from None
