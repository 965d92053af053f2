"""The run folder: where everything about one run lies."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.ability import AbilityScore
from ocl_bench.evaluate.answers import ANSWERS, read_answers
from ocl_bench.files import read_json_lines, write_atomic
from ocl_bench.runner.manifest import Manifest, RunConfig, StageRecord, read_manifest
from ocl_bench.runner.plan import cell_name
from ocl_bench.score.result import Disagreement, Results
from ocl_bench.score.samples import Sample, samples_of
from ocl_bench.score.score import score
from ocl_bench.tasks.build import chance_levels
from ocl_bench.tasks.records import Record, read_records, serialize


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
    """All samples of a run: its answers beside their questions.

    Raises:
        OclBenchError: if a question of any seed and stage was left out or answered twice.
    """
    samples = []
    stages, branch = config.task.stages, config.task.first_x2_stage
    chance = chance_levels(config.task)
    for seed in config.seeds:
        for number, stage2_seed in enumerate(config.stage2_seeds):
            cell = folder / cell_name(seed, stage2_seed)
            tests = {record.id: record for record in read_records(cell / "data.jsonl") if record.split == "test"}
            asked = _asked(tests.values(), config.limit)
            shared = branch if number else 0  # later stage-2 seeds share the stages before
            for stage in stages[shared:]:
                path = cell / stage.name / ANSWERS
                answers = read_answers(path)
                distinct = {answer.id for answer in answers} & tests.keys()
                answered = Counter((tests[id].subset, tests[id].kind) for id in distinct)
                if answered != asked or len(answers) != asked.total():
                    raise OclBenchError(
                        f"{path}: stage {stage.name} has {len(distinct)} answered questions of {asked.total()}; "
                        "the run has not finished or its files were changed."
                    )
                samples += samples_of(answers, tests, chance, stage=stage.name, seed=seed, stage2_seed=stage2_seed)
    return samples


def read_ability(folder: Path, config: RunConfig) -> dict[int, list[AbilityScore]]:
    """Seed → its scores on the tasks of lm-eval that the run also asked."""
    scores: dict[int, list[AbilityScore]] = {seed: [] for seed in config.seeds}
    for seed, own in scores.items():
        for stage2_seed in config.stage2_seeds:
            path = folder / cell_name(seed, stage2_seed) / "ability.jsonl"
            own += [AbilityScore.parse(row, f"{path} line {n}") for n, row in enumerate(read_json_lines(path), start=1)]
    return scores


def _asked(tests: Iterable[Record], limit: int | None) -> Counter[tuple[str, str]]:
    """Subset and kind → questions that were to be asked."""
    counts = Counter((record.subset, record.kind) for record in tests)
    return Counter({what: count if limit is None else min(count, limit) for what, count in counts.items()})


def score_run(folder: Path) -> Results:
    """Score a finished run from its answers; no model is loaded. Raises OclBenchError if it has not finished."""
    manifest: Manifest = read_manifest(folder)
    if manifest.status != "complete":
        raise OclBenchError(f"{folder}: the run's status is '{manifest.status}'; only a complete run is scored.")
    config = manifest.config
    ability = read_ability(folder, config) if config.also_tasks else {}
    return results_of(manifest, read_samples(folder, config), ability)


def results_of(manifest: Manifest, samples: Sequence[Sample], ability: Mapping[int, Sequence[AbilityScore]]) -> Results:
    """What the samples of a run give."""
    config = manifest.config
    return score(
        samples,
        config.task,
        model=config.model.name,
        model_revision=manifest.model_revision,
        recipe=config.recipe.recipe,
        engine=manifest.engine,
        engine_check=_engine_check(manifest),
        limit=config.limit,
        modified=config.modified,
        ability=ability,
    )


def _engine_check(manifest: Manifest) -> Disagreement | None:
    """How often an engine in a process of its own began otherwise than teacher forcing had shown."""
    if manifest.engine.name == "torch":
        return None  # its answers go on from what was shown
    stages = [stage for cell in manifest.stages.values() for stage in cell.values()]
    return Disagreement(
        n=sum(stage.answers for stage in stages), differing=sum(stage.answers_differing for stage in stages)
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
        raise OclBenchError(
            f"{path}: not a result of this version of ocl-bench ({str(error).splitlines()[0]})."
        ) from None
