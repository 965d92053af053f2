"""The run folder: where everything about one run lies, as links to what runs share.

<output_path>/<model>/<task>/<key>/
    manifest.json  results.json  curves.png
    <cell>/data.jsonl            the cell's dataset
    <cell>/<stage>/              a checkpoint that from_pretrained loads, stage.json, curve.jsonl
    <cell>/<stage>/<name>.jsonl  what an evaluator found at the end of the stage; <name>.json tells of it
    <cell>/<stage>/<name>-epochs.jsonl   what such an evaluator found in training
    <cell>/before/               the same, of the model before the first stage
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from ocl_bench.collection import without_collection
from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.evaluator import EVALUATORS, Observed
from ocl_bench.evaluate.questions import asked_after
from ocl_bench.files import folder_atomic, read_json_lines, sha256_of_file, write_atomic
from ocl_bench.registry import load_attribute
from ocl_bench.runner.cells import Cell, stage_folder
from ocl_bench.runner.identity import SHORT, BaseIdentity
from ocl_bench.runner.jobs import BEFORE, Asked, StageJob, cell_evaluators, epochs_beside
from ocl_bench.runner.manifest import EvaluationRecord, Evaluations, Manifest, RunConfig, StageRecord, read_manifest
from ocl_bench.runner.plan import Plan
from ocl_bench.runner.store import RECORD_FILE, ROWS_FILE, STAGE_FILE, Store, is_weights, link_file
from ocl_bench.score.result import Disagreement, Results, Unlearned
from ocl_bench.score.score import score
from ocl_bench.tasks.records import Record, read_dataset, serialize


def run_folder(output_path: Path, plan: Plan) -> Path:
    """`<output_path>/<model>/<task>/<key>`: the same command has the same folder."""
    return output_path / plan.config.model.slug / plan.config.task.task / plan.key[: SHORT // 2]


def clean_folder(folder: Path) -> None:
    """Remove what a process that was killed left half-written."""
    for left in folder.rglob(".*"):
        if left.name == ".lock":
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@without_collection()
def write_data(folder: Path, records: Mapping[Cell, list[Record]]) -> None:
    """Write each cell's data.jsonl."""
    for cell, dataset in records.items():
        path, text = folder / cell.name / "data.jsonl", serialize(dataset)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, text)


@lru_cache(maxsize=4)
def read_data(folder: Path, cell: Cell) -> list[Record]:
    """A cell's dataset."""
    return read_dataset(folder / cell.name / "data.jsonl")


def read_job(
    folder: Path, store: Store, seeds: tuple[int, int], number: int, base: BaseIdentity, parent: str | None
) -> StageJob:
    """The job of one stage of a run folder; `base` as in `StageJob`, `parent` is the key of the stage before."""
    config = read_config(folder)
    own = next(one for one in config.cells if (one.seed, one.stage2_seed) == seeds)
    before = None if parent is None else store.stage(parent)
    if parent is not None and before is None:
        raise OclBenchError(f"{store.stage_path(parent)}: the stage before is not there; run the command again.")
    records = read_data(folder, own)
    return StageJob(config, own, number, records, base, cell_evaluators(config, own, records, base), before)


def read_config(folder: Path) -> RunConfig:
    """What a run folder's run does."""
    return _read_config(folder, (folder / "manifest.json").stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read_config(folder: Path, changed: int) -> RunConfig:
    return read_manifest(folder).config


def link_stage(folder: Path, store: Store, job: StageJob, record: StageRecord) -> None:
    """Show a finished job in the run folder."""
    place = stage_folder(folder, job.cell, job.stage.name)
    asked = list(job.asked(record))
    if not _shows(place, record, store.has_weights(record)):
        shutil.rmtree(place, ignore_errors=True)
        with folder_atomic(place) as inside:
            source = store.stage_path(record.key)
            for path in source.rglob("*"):
                if path.is_file():
                    name = path.relative_to(source)
                    (inside / name).parent.mkdir(parents=True, exist_ok=True)
                    link_file(path, inside / name, (place / name).parent)
    for one in asked:
        _link_rows(folder / job.cell.name / one.place, store, one)


def _shows(place: Path, record: StageRecord, weights: bool) -> bool:
    """Whether a folder shows this stage already, with its weights if there are any."""
    try:
        same = StageRecord.model_validate_json((place / STAGE_FILE).read_text(encoding="utf-8")) == record
        sizes = {name: size for name, (size, _) in record.files.items() if weights or not is_weights(name)}
        return same and all((place / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _link_rows(place: Path, store: Store, asked: Asked) -> None:
    place.mkdir(exist_ok=True)
    source = store.evaluation_path(asked.key)
    for name, target in ((ROWS_FILE, f"{asked.evaluator.name}.jsonl"), (RECORD_FILE, f"{asked.evaluator.name}.json")):
        write_atomic(place / target, (source / name).read_bytes())


def read_records(folder: Path, config: RunConfig) -> tuple[dict[str, dict[str, StageRecord]], Evaluations]:
    """What each finished stage of each cell did, and what evaluators tell of its models besides their rows."""
    stages: dict[str, dict[str, StageRecord]] = {}
    evaluations: Evaluations = {}
    for cell in config.cells:
        own = stages.setdefault(cell.name, {})
        for stage in cell.owned(config.task):
            path = stage_folder(folder, cell, stage.name) / STAGE_FILE
            if path.is_file():
                own[stage.name] = StageRecord.model_validate_json(path.read_text(encoding="utf-8"))
        found = evaluations.setdefault(cell.name, {})
        for place in (BEFORE, *own):
            for name in EVALUATORS:
                path = folder / cell.name / place / f"{name}.json"
                if path.is_file():
                    record = EvaluationRecord.model_validate_json(path.read_text(encoding="utf-8"))
                    found.setdefault(place, {})[name] = record
    return stages, evaluations


def observed(folder: Path, config: RunConfig, name: str) -> list[Observed]:
    """All that an evaluator found in a run, before the first stage, in its epochs and after each.

    Its rows stay in their files until they are asked for: those of all seeds may not fit into memory.

    Raises:
        OclBenchError: if rows are missing or not what was written.
    """
    found = []
    for cell in config.cells:
        for place in (BEFORE, *(stage.name for stage in cell.owned(config.task))):
            for path, sha256 in _row_files(folder / cell.name / place, name):
                if sha256_of_file(path) != sha256:
                    raise OclBenchError(
                        f"{path}: not what was written (its sha256 differs); run the command again to mend it."
                    )
                rows = _StoredRows(path, EVALUATORS.load(name).row)
                found.append(Observed(cell.seed, cell.stage2_seed, "" if place == BEFORE else place, rows))
    return found


def _row_files(place: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Files with an evaluator's rows, and what their sha256 was."""
    if (epochs := place / epochs_beside(name)).is_file():
        stage = StageRecord.model_validate_json((place / STAGE_FILE).read_text(encoding="utf-8"))
        yield epochs, stage.files[epochs.name][1]
    if (path := place / f"{name}.jsonl").is_file():
        record = EvaluationRecord.model_validate_json(path.with_suffix(".json").read_text(encoding="utf-8"))
        yield path, record.rows_sha256


class _StoredRows(Sequence[Contract]):
    """The rows of a file, read from it each time.

    Args:
        path: the file.
        row: their type.
    """

    def __init__(self, path: Path, row: type[Contract]) -> None:
        self._path, self._row = path, row

    def __iter__(self) -> Iterator[Contract]:
        for line, content in enumerate(read_json_lines(self._path), 1):
            yield self._row.parse(content, f"{self._path} line {line}")

    def __len__(self) -> int:
        return sum(1 for _ in read_json_lines(self._path))

    @overload
    def __getitem__(self, number: int) -> Contract: ...
    @overload
    def __getitem__(self, number: slice) -> list[Contract]: ...
    def __getitem__(self, number: int | slice) -> Contract | list[Contract]:
        return list(self)[number]


class _StoredData(Mapping[tuple[int, int], list[Record]]):
    """Seed and stage-2 seed → the cell's dataset, read when it is asked for; the last few are kept."""

    def __init__(self, folder: Path, cells: Sequence[Cell]) -> None:
        self._folder, self._cells = folder, {(cell.seed, cell.stage2_seed): cell for cell in cells}

    def __getitem__(self, seeds: tuple[int, int]) -> list[Record]:
        return read_data(self._folder, self._cells[seeds])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def score_run(folder: Path, told: Manifest | None = None) -> Results:
    """Score a finished run from its rows; no model is loaded. Raises OclBenchError if it has not finished.

    Args:
        folder: the run folder.
        told: the manifest to take what the run is called and asked from; None takes the folder's.
    """
    manifest = told or read_manifest(folder)
    if manifest.status != "complete":
        raise OclBenchError(f"{folder}: the run's status is '{manifest.status}'; only a complete run is scored.")
    config = manifest.config
    _require_answers(folder, manifest)
    records = _StoredData(folder, config.cells)
    fields: dict[str, Any] = {}
    asked = {name for places in manifest.evaluations.values() for found in places.values() for name in found}
    for name in (name for name in EVALUATORS.working() if name in asked):
        if summary := EVALUATORS.load(name).summary:
            fields |= load_attribute(summary)(observed(folder, config, name), config.task, records)
    return results_of(manifest, fields)


def _require_answers(folder: Path, manifest: Manifest) -> None:
    """Every question of every stage was answered once."""
    config = manifest.config
    for cell in config.cells:
        records = read_data(folder, cell)
        for stage in cell.owned(config.task):
            asked = asked_after(config.task, stage.name, records, config.limit, cell.seed)
            path = stage_folder(folder, cell, stage.name) / "answers.jsonl"
            answered = {row["id"] for row in read_json_lines(path)} if path.is_file() else set()
            if len(answered) != len(asked):
                raise OclBenchError(
                    f"{path}: stage {stage.name} has {len(answered)} answered questions of {len(asked)}; "
                    "the run has not finished or its files were changed."
                )


def results_of(manifest: Manifest, found: Mapping[str, Any]) -> Results:
    """A run's results: what its manifest says, and what evaluators' summaries found."""
    config = manifest.config
    return score(
        found,
        config.task,
        seeds=config.seeds,
        stage2_seeds=config.stage2_seeds,
        model=config.model.name,
        model_revision=manifest.model_revision,
        recipe=config.recipe.recipe,
        engine=manifest.engine,
        engine_check=_engine_check(manifest),
        unlearned=unlearned(manifest),
        limit=config.limit,
        modified=config.modified,
    )


def unlearned(manifest: Manifest) -> list[Unlearned]:
    """Stages whose training loss did not fall below what the recipe expects."""
    config, bar = manifest.config, manifest.config.recipe.learned_below
    found = []
    for cell in config.cells:
        for stage, record in manifest.stages.get(cell.name, {}).items():
            if bar is not None and not record.train_loss < bar:
                where = {"seed": cell.seed, "stage2_seed": cell.stage2_seed, "stage": stage}
                found.append(Unlearned(**where, train_loss=record.train_loss, learned_below=bar))
    return found


def _engine_check(manifest: Manifest) -> Disagreement | None:
    """How often an engine in a process of its own began otherwise than teacher forcing had shown."""
    if manifest.engine.name == "torch":
        return None  # its answers go on from what was shown
    asked = [
        found["answers"] for cell in manifest.evaluations.values() for found in cell.values() if "answers" in found
    ]
    return Disagreement(n=sum(one.rows for one in asked), differing=sum(int(one.facts["differing"]) for one in asked))


def write_results(folder: Path, results: Results) -> None:
    """Write results.json."""
    write_atomic(folder / "results.json", results.model_dump_json(indent=2) + "\n")


def read_results(folder: Path) -> Results:
    """Read a run folder's results.json. Raises OclBenchError if it is missing or of another version."""
    path = folder / "results.json" if folder.is_dir() else folder
    if not path.is_file():
        if (folder / "manifest.json").is_file():
            raise OclBenchError(f"{folder}: there is no results.json; score the run with `ocl-bench score {folder}`.")
        what = "there is no results.json" if folder.exists() else "there is no such folder"
        raise OclBenchError(f"{folder}: {what}; name the folder of a run, an evaluation or a submission.")
    from pydantic import ValidationError

    try:
        return Results.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise OclBenchError(
            f"{path}: not a result of this version of ocl-bench ({str(error).splitlines()[0]})."
        ) from None
