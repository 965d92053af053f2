"""Check a submission, trusting nothing in it: what can be derived is derived again and compared exactly.

The data are rebuilt from the task, so that no question can be missing, added or changed; every score is computed from
the answers. What a submitter says of the run (optimizer steps, learning rates, weights) has to fit the recipe, the data
and itself. What remains is the answers themselves: `verify` finetunes again.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from pydantic import ValidationError

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.metrics import exact_match, f1
from ocl_bench.evaluate.samples import CurvePoint, Sample, set_name
from ocl_bench.evaluate.sampling import curve_sample, subset_sample
from ocl_bench.files import sha256
from ocl_bench.leaderboard.submission import (
    CONFIG,
    CURVES,
    MANIFEST,
    RESULTS,
    SAMPLES,
    SUBMISSION,
    Answer,
    Submission,
    revision,
    sample_of,
)
from ocl_bench.leaderboard.untrusted import (
    Problem,
    Unreadable,
    list_files,
    parse_json,
    parse_json_lines,
    printable,
    read_bytes,
    unpack,
)
from ocl_bench.runner.folder import cells, results_of
from ocl_bench.runner.manifest import Manifest, StageRecord
from ocl_bench.runner.plan import cell_name, is_standard
from ocl_bench.score.result import Results
from ocl_bench.tasks.build import build, chance_levels
from ocl_bench.tasks.load import load_task, source_args, task_files
from ocl_bench.tasks.records import Record, dataset_sha256
from ocl_bench.tasks.release import STANDARD_SEEDS
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.sources import published_source

# A submission of an own task may ask for data of this size to be built.
MAX_CELLS = 1000
MAX_ARGUMENT = 20_000
MAX_PRODUCT = 2 * 10**8
SHOWN = 5  # problems of one kind and file; the others are counted

# A token that is not the most likely one has at most half of the probability. Log-probabilities are of 32-bit sums.
NOT_GREEDY = math.log(0.5) + 0.02
# Answers that greedy decoding gives token for token and that are yet not an accepted text: lossy tokenizers have some.
MISREAD_SHARE = 0.01
CURVE_TOLERANCE = 0.02  # the last point of a curve and the samples are of the same weights, in other batches

T = TypeVar("T", bound=Contract)


@dataclass
class Checked:
    """A submission that was read, and what is wrong with it.

    Attributes:
        folder: where it lies.
        problems: what is wrong; the rest is only there as far as it could be read.
        curves: cell → its learning curve.
        samples: every sample, with all that is derived.
    """

    folder: Path
    problems: list[Problem] = field(default_factory=list)
    submission: Submission | None = None
    manifest: Manifest | None = None
    results: Results | None = None
    config: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[CurvePoint]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def add(self, file: str, where: str, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(file, where, message))


def find_submissions(path: Path, levels: int = 6) -> Iterator[Path]:
    """Submissions at or below a path, and whatever lies there that is none: `check` says of each what is wrong."""
    is_folder = path.is_dir() and not path.is_symlink()
    if not is_folder or not levels or any((path / name).exists() for name in (SUBMISSION, RESULTS, MANIFEST)):
        yield path
    else:
        for inner in sorted(path.iterdir()):
            yield from find_submissions(inner, levels - 1)


def check(folder: Path) -> Checked:
    """Read a submission and check all of it. Never raises for what is in the folder."""
    checked = Checked(folder)
    if folder.is_symlink() or not folder.is_dir():
        checked.add("", "", "is not a folder of a submission")
        return checked
    contents = _read_all(checked)
    if checked.submission is None:
        return checked
    _check_place(checked)
    if checked.manifest is not None:
        _check_identity(checked, contents)
        if len(cells(checked.manifest.config)) > MAX_CELLS:
            checked.add(MANIFEST, "config.seeds", f"more than {MAX_CELLS} trainings")
        else:
            _check_files(checked, contents)
            _check_division(checked, checked.submission, checked.manifest)
            _check_stages(checked, checked.manifest)
            datasets = _rebuild(checked, checked.manifest)
            if datasets is not None:
                _check_training(checked, checked.manifest, datasets)
                _check_answers(checked, checked.manifest, datasets, contents)
                _check_curves(checked, checked.manifest, datasets, contents)
    checked.problems = sorted(set(checked.problems))
    return checked


# --- reading ---


def _read_all(checked: Checked) -> dict[str, bytes]:
    """Every file's bytes, unpacked; and the parsed submission, manifest, results and configuration."""
    names, problems = list_files(checked.folder)
    checked.problems += problems
    contents: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    for name in names:
        try:
            raw = read_bytes(checked.folder / name)
            digests[name] = sha256(raw)
            contents[name] = unpack(raw) if name.endswith(".gz") else raw
        except Unreadable as error:
            checked.add(name, "", str(error))
    checked.submission = _parse(checked, Submission, SUBMISSION, contents)
    checked.manifest = _parse(checked, Manifest, MANIFEST, contents)
    checked.results = _parse(checked, Results, RESULTS, contents)
    config = _json(checked, CONFIG, contents)
    if isinstance(config, dict):
        checked.config = config
    if checked.submission is not None:
        listed = checked.submission.files
        for name in sorted({*listed, *digests} - {SUBMISSION}):
            if name not in digests:
                checked.add(SUBMISSION, f"files.{printable(name)}", "there is no such file")
            elif name not in listed:
                checked.add(name, "", "is not listed in submission.json")
            elif listed[name] != digests[name]:
                checked.add(name, "", "its sha256 is not the one in submission.json")
    return contents


def _json(checked: Checked, name: str, contents: Mapping[str, bytes]) -> Any:
    if name not in contents:
        if not any(problem.file == name for problem in checked.problems):
            checked.add(name, "", "is missing")
        return None
    try:
        value = parse_json(contents[name])
    except Unreadable as error:
        checked.add(name, "", str(error))
        return None
    if not isinstance(value, dict):
        checked.add(name, "", "is not a JSON object")
        return None
    return value


def _parse(checked: Checked, contract: type[T], name: str, contents: Mapping[str, bytes]) -> T | None:
    value = _json(checked, name, contents)
    if value is None:
        return None
    for where, text in _texts(value):
        if any(char in "<>" or not (char.isprintable() or char == "\n") for char in text):
            checked.add(name, where, "holds <, > or a character that does not print")
    try:
        return contract.model_validate_json(contents[name], strict=True)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            checked.add(name, printable(".".join(map(str, one["loc"]))), one["msg"])
        return None


def _texts(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Dotted key and text of every string but those of the task, whose wording is free, and of what was passed."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        where, item = waiting.pop()
        if where in (".config.task", ".passed"):
            continue
        if isinstance(item, str):
            yield printable(where.removeprefix(".")), item
        elif isinstance(item, dict):
            waiting += [(f"{where}.{key}", inner) for key, inner in item.items()]
            waiting += [(f"{where} (a key)", key) for key in item]
        elif isinstance(item, list):
            waiting += [(f"{where}.{number}", inner) for number, inner in enumerate(item)]


# --- who, where and what ---


def _check_place(checked: Checked) -> None:
    assert checked.submission is not None
    if "__" in checked.submission.org or "__" in checked.submission.model:
        checked.add(SUBMISSION, "model", "__ separates organisation and model; leave it out of both")
    there = "/".join(checked.folder.resolve().parts[-3:])
    if there != checked.submission.place:
        checked.add(SUBMISSION, "", f"belongs into {checked.submission.place}, not {printable(there)}")


def _check_identity(checked: Checked, contents: Mapping[str, bytes]) -> None:
    """Submission, manifest, results and configuration speak of the same run."""
    submission, manifest = checked.submission, checked.manifest
    assert submission is not None and manifest is not None
    spec, task = manifest.config.model, manifest.config.task
    name = f"{submission.org}/{submission.model}"
    if spec.source == "hub":
        fits = spec.name == name or (submission.org == "hub" and spec.name == submission.model)
        fits = fits and spec.location == spec.name
    else:
        fits = spec.name == ("scratch:" if spec.source == "scratch" else "") + name and spec.location == name
    if not fits:
        checked.add(MANIFEST, "config.model.name", f"is not that of the submission, {name}")
    if task.task != submission.task:
        checked.add(MANIFEST, "config.task.task", f"is not that of the submission, {submission.task}")
    if CONFIG in contents and submission.revision != revision(manifest, contents[CONFIG]):
        checked.add(SUBMISSION, "revision", "is not that of the model")
    kind = checked.config.get("model_type")
    if not isinstance(kind, str) or not kind.replace("_", "").replace("-", "").isalnum() or len(kind) > 64:
        checked.add(CONFIG, "model_type", "is no name of an architecture")
    if manifest.status != "complete":
        checked.add(MANIFEST, "status", f"is '{manifest.status}'; only a complete run is taken")
    for package in ("python", "ocl-bench", "torch", "transformers"):
        if package not in manifest.versions:
            checked.add(MANIFEST, f"versions.{package}", "is missing")
    for key in ("also_tasks", "also_path"):
        if getattr(manifest.config, key):
            checked.add(MANIFEST, f"config.{key}", "is not part of a submission")


def _check_files(checked: Checked, contents: Mapping[str, bytes]) -> None:
    assert checked.manifest is not None
    names = cells(checked.manifest.config)
    needed = {SUBMISSION, MANIFEST, RESULTS, CONFIG, *(f"{cell}/{SAMPLES}" for cell in names)}
    allowed = needed | {f"{cell}/{CURVES}" for cell in names}
    for name in sorted(set(contents) - allowed):
        checked.add(name, "", "does not belong into this submission")
    for name in sorted(needed - set(contents)):
        if not any(problem.file == name for problem in checked.problems):
            checked.add(name, "", "is missing")


def _check_division(checked: Checked, submission: Submission, manifest: Manifest) -> None:
    config = manifest.config
    modified = not is_standard(config.model, config.task, config.recipe)
    if config.modified != modified:
        checked.add(MANIFEST, "config.modified", f"should be {str(modified).lower()}")
    if submission.division == "open":
        if not submission.notes:
            checked.add(SUBMISSION, "notes", "say what differs from the standard division")
        return
    name = config.task.task
    if name not in task_files():
        checked.add(
            MANIFEST, "config.task.task", f"'{printable(name)}' is not a task of the suite; use the open division"
        )
    elif config.task != load_task(name):
        own = load_task(name).version
        what = (
            f"is version {config.task.version}, the suite's is {own}" if config.task.version != own else "was changed"
        )
        checked.add(MANIFEST, "config.task", f"the task {what}; run the suite's own")
    elif modified:
        checked.add(MANIFEST, "config", "recipe or model loading differ from the suite's own; use the open division")
    missing = sorted(set(STANDARD_SEEDS) - set(config.seeds))
    if missing:
        checked.add(MANIFEST, "config.seeds", f"lacks the standard seeds {', '.join(map(str, missing))}")
    if 0 not in config.stage2_seeds:
        checked.add(MANIFEST, "config.stage2_seeds", "lacks the standard stage-2 seed 0")
    if config.limit is not None:
        checked.add(MANIFEST, "config.limit", f"only {config.limit} questions per subset were asked")
    if manifest.dirty:
        checked.add(MANIFEST, "dirty", "the checkout had uncommitted changes; run again from a clean one")


# --- how it was trained ---


def _check_stages(checked: Checked, manifest: Manifest) -> None:
    """Weights chain from stage to stage, and no two trainings end in the same."""
    config = manifest.config
    names = cells(config)
    if sorted(manifest.stages) != sorted(names):
        checked.add(MANIFEST, "stages", f"has not exactly the cells {', '.join(names)}")
        return
    expected = {cell: [stage.name for stage in stages] for cell, stages, _ in _cells_with_stages(manifest)}
    for cell in names:
        if list(manifest.stages[cell]) != expected[cell]:
            checked.add(MANIFEST, f"stages.{cell}", f"has not exactly the stages {', '.join(expected[cell])}")
            return
    ends: Counter[str] = Counter()
    starts: dict[str, str] = {}
    for cell, stages, seed in _cells_with_stages(manifest):
        before: str | None = None
        first = cell_name(seed, config.stage2_seeds[0])
        if len(stages) < len(config.task.stages):
            before = manifest.stages[first][config.task.stages[-len(stages) - 1].name].weights_after
        else:
            starts[cell] = manifest.stages[cell][stages[0].name].weights_before
        for stage in stages:
            record, where = manifest.stages[cell][stage.name], f"stages.{cell}.{stage.name}"
            if before is not None and record.weights_before != before:
                checked.add(MANIFEST, f"{where}.weights_before", "are not those that the stage before ended with")
            if record.weights_after == record.weights_before:
                checked.add(MANIFEST, f"{where}.weights_after", "are those that the stage began with")
            before = record.weights_after
            ends[record.weights_after] += 1
            if len(set(record.weights_sha256)) < 1:
                checked.add(MANIFEST, f"{where}.weights_sha256", "is empty")
    if any(count > 1 for count in ends.values()):
        checked.add(MANIFEST, "stages", "two trainings ended with the same weights")
    if config.model.source == "scratch" and len(set(starts.values())) < len(
        {one.split("-stage2")[0] for one in starts}
    ):
        checked.add(MANIFEST, "stages", "two seeds began with the same random weights")
    if config.model.source != "scratch" and len(set(starts.values())) > 1:
        checked.add(MANIFEST, "stages", "seeds began with different weights, though the model is pretrained")


def _cells_with_stages(manifest: Manifest) -> Iterator[tuple[str, Sequence[Any], int]]:
    """Each cell, the stages that it trains itself, and its seed: later stage-2 seeds share those before X2."""
    config = manifest.config
    for seed in config.seeds:
        for number, stage2_seed in enumerate(config.stage2_seeds):
            shared = config.task.first_x2_stage if number else 0
            yield cell_name(seed, stage2_seed), config.task.stages[shared:], seed


def _check_training(checked: Checked, manifest: Manifest, datasets: Mapping[str, list[Record]]) -> None:
    """Each stage had the data that the task gives it, and took the steps that the recipe takes on them."""
    config, recipe = manifest.config, manifest.config.recipe
    for cell, stages, _ in _cells_with_stages(manifest):
        for stage in stages:
            record = manifest.stages.get(cell, {}).get(stage.name)
            if record is None:
                continue
            number = config.task.stages.index(stage)
            records = [one for one in datasets[cell] if stage.trains_on(one.split, one.kind)]
            definitions = sum(one.kind == "definition" for one in records)
            questions = len(records) - definitions
            drawn = questions + recipe.definitions_per_epoch(definitions, questions)
            expected = {"records": len(records), "effective_batch_size": recipe.effective_batch_size}
            expected["answers"] = sum(one.split == "test" for one in _asked(datasets[cell], manifest, cell))
            if number < len(recipe.epochs):
                expected["epochs"] = recipe.epochs[number]
                expected["optimizer_steps"] = recipe.epochs[number] * _steps(drawn, record)
            for key, value in expected.items():
                if getattr(record, key) != value:
                    checked.add(
                        MANIFEST, f"stages.{cell}.{stage.name}.{key}",
                        f"is {getattr(record, key)}; data and recipe give {value}",
                    )  # fmt: skip
            _check_rates(checked, manifest, record, f"stages.{cell}.{stage.name}")


def _steps(drawn: int, record: StageRecord) -> int:
    """Optimizer steps of an epoch: micro-batches are gathered to the effective batch."""
    micro = max(1, record.micro_batch_size)
    return math.ceil(math.ceil(drawn / micro) / max(1, record.effective_batch_size // micro))


def _check_rates(checked: Checked, manifest: Manifest, record: StageRecord, where: str) -> None:
    recipe = manifest.config.recipe
    if record.micro_batch_size < 1 or recipe.effective_batch_size % max(1, record.micro_batch_size):
        checked.add(MANIFEST, f"{where}.micro_batch_size", "does not divide the effective batch size")
    peak, rate = record.learning_rate_peak, recipe.learning_rate
    if peak > rate * (1 + 1e-6) or (record.optimizer_steps > recipe.warmup_steps + 1 and peak < rate * (1 - 1e-6)):
        checked.add(MANIFEST, f"{where}.learning_rate_peak", f"is {peak:g}; the recipe's is {rate:g}")
    if not 0 <= record.learning_rate_first <= peak or not 0 <= record.learning_rate_last <= peak:
        checked.add(
            MANIFEST, f"{where}.learning_rate_first", "and learning_rate_last have to lie between 0 and the peak"
        )
    if not 0 <= record.answers_differing <= record.answers:
        checked.add(MANIFEST, f"{where}.answers_differing", "is not between 0 and answers")


# --- what was asked and said ---


@lru_cache(maxsize=64)
def _built(task: str, seed: int, stage2_seed: int) -> tuple[list[Record], str]:
    records = build(Task.model_validate_json(task), seed, stage2_seed)
    return records, dataset_sha256(records)


def _rebuild(checked: Checked, manifest: Manifest) -> dict[str, list[Record]] | None:
    """The data of every cell, built from the task; None if they cannot be."""
    config = manifest.config
    own = config.task.task in task_files() and config.task == load_task(config.task.task)
    assert checked.submission is not None
    if not own and checked.submission.division == "standard":
        return None  # said already
    try:
        source_args(config.task)
        numbers = [value for value in config.task.source_args.values() if isinstance(value, int)]
        if any(number > MAX_ARGUMENT for number in numbers) or math.prod(numbers) > MAX_PRODUCT:
            raise OclBenchError("asks for more data than are built for a check.")
        source = published_source(config.task.source)
        if source is not None and source.state() == "absent":
            raise OclBenchError(
                f"its data are not here; run `ocl-bench data fetch {config.task.task}`, then check again."
            )
        datasets: dict[str, list[Record]] = {}
        text = config.task.model_dump_json()
        for seed in config.seeds:
            for stage2_seed in config.stage2_seeds:
                cell = cell_name(seed, stage2_seed)
                datasets[cell], digest = _built(text, seed, stage2_seed)
                if manifest.datasets.get(cell) != digest:
                    checked.add(MANIFEST, f"datasets.{cell}", "is not what the task builds for this seed")
                    if not own:
                        return None
        if sorted(manifest.datasets) != sorted(datasets):
            checked.add(MANIFEST, "datasets", f"has not exactly the cells {', '.join(datasets)}")
    except OclBenchError as error:
        checked.add(MANIFEST, "config.task", printable(str(error)))
        return None
    return datasets


def _asked(records: Sequence[Record], manifest: Manifest, cell: str) -> list[Record]:
    """The questions that a cell was asked at the end of each of its stages."""
    tests = [one for one in records if one.split == "test"]
    if manifest.config.limit is None:
        return tests
    return [tests[n] for n in subset_sample(tests, manifest.config.limit, seed=int(cell.split("-")[1]))]


def _check_answers(
    checked: Checked, manifest: Manifest, datasets: Mapping[str, list[Record]], contents: Mapping[str, bytes]
) -> None:
    """Every question of every stage has one answer, and the results are what these give."""
    chance = chance_levels(manifest.config.task)
    complete = True
    for seed in manifest.config.seeds:
        for number, stage2_seed in enumerate(manifest.config.stage2_seeds):
            cell = cell_name(seed, stage2_seed)
            name = f"{cell}/{SAMPLES}"
            if name not in contents:
                complete = False
                continue
            answers = _answers(checked, name, contents[name])
            shared = manifest.config.task.first_x2_stage if number else 0
            stages = [stage.name for stage in manifest.config.task.stages[shared:]]
            asked = {record.id: record for record in _asked(datasets[cell], manifest, cell)}
            complete &= _all_answered(checked, name, answers, asked, stages)
            where = {"seed": seed, "stage2_seed": stage2_seed}
            checked.samples += [
                _sample(one, asked[one.id], chance, where) for one in answers if one.id in asked and one.stage in stages
            ]
            _check_consistency(checked, name, answers, asked, manifest)
    if complete and checked.results is not None:
        _check_results(checked, manifest, checked.results)


def _answers(checked: Checked, name: str, content: bytes) -> list[Answer]:
    answers: list[Answer] = []
    wrong: list[Problem] = []
    try:
        for number, row in parse_json_lines(content):
            try:
                answers.append(Answer.model_validate(row, strict=True))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                key = printable(".".join(map(str, first["loc"])))
                wrong.append(Problem(name, f"line {number}: {key}", first["msg"]))
    except Unreadable as error:
        checked.add(name, "", str(error))
    checked.problems += _few(name, wrong)
    return answers


def _few(name: str, problems: list[Problem]) -> list[Problem]:
    if len(problems) <= SHOWN:
        return problems
    return [*problems[:SHOWN], Problem(name, "", f"and {len(problems) - SHOWN} more of this kind")]


def _all_answered(
    checked: Checked, name: str, answers: Sequence[Answer], asked: Mapping[str, Record], stages: Sequence[str]
) -> bool:
    given = Counter((one.stage, one.id) for one in answers)
    wanted = {(stage, id) for stage in stages for id in asked}
    faults = {
        "has no answer": wanted - set(given),
        "was not asked": set(given) - wanted,
        "is answered more than once": {which for which, count in given.items() if count > 1},
    }
    for message, which in faults.items():
        checked.problems += _few(
            name, [Problem(name, printable(f"{stage} {id}"), message) for stage, id in sorted(which)]
        )
    return not any(faults.values())


def _sample(
    answer: Answer, record: Record, chance: Mapping[tuple[str, str], float], where: Mapping[str, int]
) -> Sample:
    known = {
        "id": record.id,
        "subset": record.subset,
        "kind": record.kind,
        "group": record.group,
        "entity": record.entity,
        "chance": chance[record.kind, record.group],
        **where,
    }
    return sample_of(
        answer,
        known,
        em=exact_match(answer.generated, record.answers),
        f1=f1(answer.generated, record.answers),
    )


def _check_consistency(
    checked: Checked, name: str, answers: Sequence[Answer], asked: Mapping[str, Record], manifest: Manifest
) -> None:
    """Teacher forcing and generation tell of the same model."""
    wrong, misread = [], []
    for one in answers:
        if one.id not in asked:
            continue
        if one.generated != one.generated.partition("\n")[0].strip():
            wrong.append(Problem(name, f"{one.stage} {one.id}: generated", "is not cut at the newline and stripped"))
        if not one.em_forced and one.logprob > NOT_GREEDY:
            wrong.append(
                Problem(
                    name, f"{one.stage} {one.id}: logprob",
                    f"is {one.logprob:g}, more than half of the probability, but em_forced is 0",
                )
            )  # fmt: skip
        if one.em_forced and not exact_match(one.generated, asked[one.id].answers):
            misread.append(
                Problem(
                    name, f"{one.stage} {one.id}: em_forced", "is 1, but the generated answer is not an accepted one"
                )
            )
    otherwise = sum(stage.answers_differing for stage in manifest.stages.get(name.split("/")[0], {}).values())
    if len(misread) > otherwise + MISREAD_SHARE * len(answers):
        wrong += misread
    checked.problems += _few(name, wrong)


def _check_results(checked: Checked, manifest: Manifest, submitted: Results) -> None:
    """results.json is, number for number, what the answers give."""
    own = results_of(manifest, checked.samples, {})
    wrong = [
        Problem(RESULTS, where, f"is {printable(repr(given))}; the answers give {printable(repr(derived))}")
        for where, given, derived in _differences(submitted.model_dump(mode="json"), own.model_dump(mode="json"), "")
    ]
    checked.problems += _few(RESULTS, wrong)


def _differences(given: Any, derived: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(given, dict) and isinstance(derived, dict):
        for key in sorted({*given, *derived}):
            inner = f"{where}.{key}".removeprefix(".")
            yield from _differences(given.get(key), derived.get(key), printable(inner))
    elif isinstance(given, list) and isinstance(derived, list) and len(given) == len(derived):
        for number, pair in enumerate(zip(given, derived, strict=True)):
            yield from _differences(*pair, f"{where}.{number}")
    elif given != derived or type(given) is not type(derived):
        yield where, given, derived


# --- learning curves ---


def _check_curves(
    checked: Checked, manifest: Manifest, datasets: Mapping[str, list[Record]], contents: Mapping[str, bytes]
) -> None:
    """Curves are of the questions that a run shows, and end where the samples are."""
    by_cell: dict[str, dict[tuple[str, str], Sample]] = defaultdict(dict)
    for sample in checked.samples:
        by_cell[cell_name(sample.seed, sample.stage2_seed)][sample.stage, sample.id] = sample
    for cell, stages, _ in _cells_with_stages(manifest):
        name = f"{cell}/{CURVES}"
        if name not in contents:
            if manifest.config.curves and not any(problem.file == name for problem in checked.problems):
                checked.add(name, "", "is missing, though the run recorded curves")
            continue
        points = _points(checked, name, contents[name])
        checked.curves[cell] = points
        questions = _asked(datasets[cell], manifest, cell)
        shown = [questions[n] for n in curve_sample(questions, manifest.config.task.evaluate.curve_questions)]
        _check_cell_curves(checked, name, points, shown, [stage.name for stage in stages], manifest, by_cell[cell])


def _points(checked: Checked, name: str, content: bytes) -> list[CurvePoint]:
    points = []
    try:
        for number, row in parse_json_lines(content):
            try:
                points.append(CurvePoint.model_validate(row, strict=True))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                checked.add(name, f"line {number}: {printable('.'.join(map(str, first['loc'])))}", first["msg"])
                break
    except Unreadable as error:
        checked.add(name, "", str(error))
    return points


def _check_cell_curves(
    checked: Checked,
    name: str,
    points: Sequence[CurvePoint],
    shown: Sequence[Record],
    stages: Sequence[str],
    manifest: Manifest,
    samples: Mapping[tuple[str, str], Sample],
) -> None:
    asked: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in shown:
        asked[record.subset, set_name(record.kind, record.group)].append(record)
    wrong: list[Problem] = []
    seen = Counter((point.stage, point.epoch, point.subset, point.set) for point in points)
    epochs = dict(
        zip((stage.name for stage in manifest.config.task.stages), manifest.config.recipe.epochs, strict=False)
    )
    for point in points:
        where = printable(f"{point.stage} epoch {point.epoch} {point.subset}")
        own = asked.get((point.subset, point.set), [])
        fits = point.stage in stages and point.epoch <= epochs.get(point.stage, 0) and point.n == len(own)
        if not fits or seen[point.stage, point.epoch, point.subset, point.set] > 1:
            wrong.append(Problem(name, where, "is not a point of this run's learning curves"))
        elif point.epoch == epochs[point.stage]:
            at_end = [samples[point.stage, record.id] for record in own if (point.stage, record.id) in samples]
            if len(at_end) == len(own) and not _agrees(point, at_end):
                wrong.append(Problem(name, where, "the curve does not end where the samples are"))
    for stage in stages:
        for subset, of in asked:
            if (stage, epochs.get(stage), subset, of) not in seen:
                wrong.append(Problem(name, f"{stage} {subset}", "the curve does not reach the last epoch"))
    checked.problems += _few(name, wrong)


def _agrees(point: CurvePoint, samples: Sequence[Sample]) -> bool:
    pairs: list[tuple[float, Callable[[Sample], float]]] = [
        (point.em_forced, lambda one: one.em_forced),
        (point.logprob, lambda one: one.logprob),
    ]
    return all(
        abs(shown - fmean(map(read, samples))) <= CURVE_TOLERANCE * max(1.0, abs(shown)) for shown, read in pairs
    )
