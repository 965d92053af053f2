"""Every question has one answer, and the results are what the answers give."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ocl_bench.evaluate.answers import Answer
from ocl_bench.evaluate.questions import question_settings
from ocl_bench.files import sha256, to_json_lines
from ocl_bench.leaderboard.checks.consistency import inconsistent_answers, is_word_level
from ocl_bench.leaderboard.checks.data import Dataset, questions_of
from ocl_bench.leaderboard.checks.reading import Checked, few
from ocl_bench.leaderboard.submission import MANIFEST, RESULTS, SAMPLES, SubmittedAnswer, answer_lines
from ocl_bench.leaderboard.untrusted import MAX_TEXT, Problem, Unreadable, parse_json_lines, printable
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.folder import results_of
from ocl_bench.runner.identity import EvaluationIdentity, content_key
from ocl_bench.runner.manifest import Manifest
from ocl_bench.score.result import Results
from ocl_bench.score.samples import samples_of
from ocl_bench.score.score import score_samples
from ocl_bench.tasks.build import chance_levels
from ocl_bench.tasks.records import Record


def check_answers(
    checked: Checked, manifest: Manifest, datasets: Mapping[Cell, Dataset], contents: Mapping[str, bytes]
) -> None:
    """Every question of every stage has one answer, and the results are what these give."""
    chance = chance_levels(manifest.config.task)
    complete = True
    for cell in manifest.config.cells:
        name = f"{cell.name}/{SAMPLES}"
        if name not in contents:
            complete = False
            continue
        answers = _answers(checked, name, contents[name])
        stages = [stage.name for stage in cell.owned(manifest.config.task)]
        questions = questions_of(datasets[cell], manifest, cell)
        asked = {record.id: record for record in questions}
        settings = _settings(manifest, datasets[cell].sha256(questions))
        complete &= _all_answered(checked, name, answers, asked, stages)
        for stage in stages:
            own = [one for one in answers if one.stage == stage and one.id in asked]
            where = {"seed": cell.seed, "stage2_seed": cell.stage2_seed}
            checked.samples += samples_of(own, asked, chance, stage=stage, **where)
            _check_record(checked, manifest, cell, stage, own, settings)
        word_level = is_word_level(manifest, cell, datasets[cell])
        checked.problems += few(
            name, [*inconsistent_answers(name, answers, asked, manifest, cell, checked.config, word_level)]
        )
    if complete and checked.results is not None:
        _check_results(checked, manifest, checked.results)


def _check_record(
    checked: Checked,
    manifest: Manifest,
    cell: Cell,
    stage: str,
    answers: Sequence[SubmittedAnswer],
    settings: dict[str, Any],
) -> None:
    """The manifest tells of these answers to these questions by these weights."""
    found = manifest.evaluations.get(cell.name, {}).get(stage, {})
    if list(found) != ["answers"] or stage not in manifest.stages.get(cell.name, {}):
        checked.add(MANIFEST, f"evaluations.{cell.name}.{stage}", "has not exactly the evaluator answers")
        return
    record, where = found["answers"], f"evaluations.{cell.name}.{stage}.answers"
    expected = EvaluationIdentity(
        evaluator="answers",
        weights=manifest.stages[cell.name][stage].weights_after,
        settings=settings,
    )
    if record.identity != expected:
        checked.add(MANIFEST, f"{where}.identity", "is not what weights, questions and engine give")
    if record.key != content_key(record.identity):
        checked.add(MANIFEST, f"{where}.key", "is not the sha256 of the identity")
    if record.rows != len(answers):
        checked.add(MANIFEST, f"{where}.rows", f"is {record.rows}; there are {len(answers)} answers")
    if record.rows_sha256 != sha256(_stored(answers)):
        checked.add(MANIFEST, f"{where}.rows_sha256", "is not that of the answers")
    if set(record.facts) != {"prompts_sha256", "differing"} or not 0 <= int(record.facts["differing"]) <= record.rows:
        checked.add(MANIFEST, f"{where}.facts", "are not prompts_sha256, and differing from 0 to the number of rows")
    prompts = {
        one["answers"].facts.get("prompts_sha256")
        for one in manifest.evaluations[cell.name].values()
        if "answers" in one
    }
    if len(prompts) > 1:
        checked.add(MANIFEST, f"{where}.facts.prompts_sha256", "differs from stage to stage")
    if record.engine != manifest.engine:
        checked.add(MANIFEST, f"{where}.engine", "is not that of the run")


def _settings(manifest: Manifest, questions: str) -> dict[str, Any]:
    compute = manifest.config.compute
    return question_settings(
        questions, manifest.config.task, str(compute.evaluation), compute.engine, compute.engine_args
    )


def _stored(answers: Sequence[SubmittedAnswer]) -> str:
    """The lines that the run stored, which have no stage."""
    return to_json_lines({key: getattr(one, key) for key in Answer.model_fields} for one in answers)


def _answers(checked: Checked, name: str, content: bytes) -> list[SubmittedAnswer]:
    quickly = _as_the_suite_writes(content)
    if quickly is not None:
        return quickly
    answers: list[SubmittedAnswer] = []
    wrong: list[Problem] = []
    try:
        for number, row in parse_json_lines(content):
            try:
                answers.append(SubmittedAnswer.model_validate(row, strict=True))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                key = printable(".".join(map(str, first["loc"])))
                wrong.append(Problem(name, f"line {number}: {key}", first["msg"]))
    except Unreadable as error:
        checked.add(name, "", str(error))
    checked.problems += few(name, wrong)
    return answers


def _as_the_suite_writes(content: bytes) -> list[SubmittedAnswer] | None:
    """The answers of a file that is byte for byte what the suite writes for them; None of any other.

    There is then nothing in it that strict reading would refuse or read otherwise, and it is read in a tenth of the
    time.
    """
    lines = content.splitlines()
    if max(map(len, lines), default=0) > MAX_TEXT:
        return None
    try:
        answers = [SubmittedAnswer.model_validate_json(line, strict=True) for line in lines]
        return answers if answer_lines(answers) == content else None
    except ValueError:  # ValidationError and UnicodeError are such
        return None


def _all_answered(
    checked: Checked, name: str, answers: Sequence[SubmittedAnswer], asked: Mapping[str, Record], stages: Sequence[str]
) -> bool:
    given = Counter((one.stage, one.id) for one in answers)
    wanted = {(stage, id) for stage in stages for id in asked}
    faults = {
        "has no answer": wanted - set(given),
        "was not asked": set(given) - wanted,
        "is answered more than once": {which for which, count in given.items() if count > 1},
    }
    for message, which in faults.items():
        checked.problems += few(
            name, [Problem(name, printable(f"{stage} {id}"), message) for stage, id in sorted(which)]
        )
    return not any(faults.values())


def _check_results(checked: Checked, manifest: Manifest, submitted: Results) -> None:
    """results.json is, number for number, what the answers give."""
    own = results_of(manifest, score_samples(checked.samples, manifest.config.task))
    wrong = [
        Problem(RESULTS, where, f"is {printable(repr(given))}; the answers give {printable(repr(derived))}")
        for where, given, derived in _differences(submitted.model_dump(mode="json"), own.model_dump(mode="json"), "")
    ]
    checked.problems += few(RESULTS, wrong)


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
