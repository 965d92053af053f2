"""Every question has one answer, and the results are what the answers give."""

import heapq
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import MsgspecError
from pydantic import ValidationError

from ocl_bench.evaluate.answers import Said
from ocl_bench.evaluate.questions import question_settings
from ocl_bench.files import json_text, sha256
from ocl_bench.leaderboard.checks.consistency import (
    inconsistent_answers,
    is_word_level,
    unchanged_stages,
    untold_trainings,
)
from ocl_bench.leaderboard.checks.data import Asked, Dataset, is_own, questions_of
from ocl_bench.leaderboard.checks.reading import SHOWN, Checked, Floats, Hashes, few
from ocl_bench.leaderboard.submission import MANIFEST, RESULTS, SAMPLES, AnswerLine, SubmittedAnswer, decode_answers
from ocl_bench.leaderboard.untrusted import Problem, Unreadable, parse_json_line, printable
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.folder import results_of
from ocl_bench.runner.identity import EvaluationIdentity, content_key
from ocl_bench.runner.manifest import Manifest
from ocl_bench.score.result import Results
from ocl_bench.score.samples import samples_of
from ocl_bench.score.score import score_samples
from ocl_bench.tasks.build import chance_levels

# Of a task that is not the suite's: those of `attributes`, in ten seeds, and a quarter more.
MAX_ANSWERS = 180_000
# Mean bytes of an answer's line: 120 where it is a word, 250 where it is a sentence of 16 tokens.
ROW_BYTES = 300
# By how much a number of the results may be another, relatively or as such.
LAST_DIGITS = 1e-9
# Lines of a file that are not as the suite writes them, such as by another JSON writer: they take ten times as long.
MAX_ODD = 200
_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+"'
# What matches has no key twice, no NaN and no endless number.
_REGULAR = re.compile(
    rb'\{"id": %b, "stage": %b, "em_forced": [01], "logprob": -?\d{1,8}(?:\.\d{1,20})?(?:e-\d\d)?, "generated": %b'
    rb'(?:, "choice": \d{1,6})?\}' % (_STRING, _STRING, _STRING)
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_answers(
    checked: Checked, manifest: Manifest, datasets: Mapping[Cell, Dataset], contents: Mapping[str, bytes]
) -> None:
    """Every question of every stage has one answer, and the results are what these give."""
    chance = chance_levels(manifest.config.task)
    complete = True
    left = math.inf if is_own(manifest.config.task) else MAX_ANSWERS
    for cell in manifest.config.cells:
        name = f"{cell.name}/{SAMPLES}"
        stages = [stage.name for stage in cell.owned(manifest.config.task)]
        asked = {stage: questions_of(datasets[cell], manifest, cell, stage) for stage in stages}
        wanted = sum(len(questions.by_id) for questions in asked.values())
        left -= wanted
        if left < 0:
            checked.add(MANIFEST, "config.task", f"asks for more than {MAX_ANSWERS} answers in all")
            return
        if name not in contents or not _fits(checked, name, contents[name], wanted):
            complete = False
            continue
        answers = _answers(checked, name, contents[name])
        by_stage = _as_asked(answers, asked)
        if by_stage is None:
            complete &= _all_answered(checked, name, answers, asked)
            by_stage = {stage: [] for stage in stages}
            for one in answers:
                if one.stage in asked and one.id in asked[one.stage].by_id:
                    by_stage[one.stage].append(one)
        for stage, own in by_stage.items():
            checked.fingerprint[cell.name, stage] = _fingerprint(own)
            where = {"seed": cell.seed, "stage2_seed": cell.stage2_seed}
            checked.samples += samples_of(own, asked[stage].by_id, chance, datasets[cell].values, stage=stage, **where)
            _check_record(checked, manifest, cell, stage, own, _settings(manifest, asked[stage].sha256))
        checked.problems += unchanged_stages(name, by_stage)
        word_level = is_word_level(manifest, cell, datasets[cell])
        every = {id: record for questions in {*asked.values()} for id, record in questions.by_id.items()}
        checked.problems += few(
            name, [*inconsistent_answers(name, answers, every, manifest, cell, checked.config, word_level)]
        )
    checked.problems += few(SAMPLES, untold_trainings(checked, manifest))
    if complete and checked.results is not None:
        _check_results(checked, manifest, checked.results)


def _as_asked(answers: list[AnswerLine], asked: Mapping[str, Asked]) -> dict[str, list[AnswerLine]] | None:
    """The answers of each stage, if they are those to all questions in the order in which they were asked."""
    found, start = {}, 0
    for stage, questions in asked.items():
        own = answers[start : start + len(questions.ids)]
        if [one.id for one in own] != questions.ids or {one.stage for one in own} - {stage}:
            return None
        found[stage] = own
        start += len(own)
    return found if start == len(answers) else None


def _check_record(
    checked: Checked,
    manifest: Manifest,
    cell: Cell,
    stage: str,
    answers: Sequence[AnswerLine],
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
        if "answers" in one and one["answers"].identity.settings.get("questions") == settings["questions"]
    }
    if len(prompts) > 1:
        checked.add(MANIFEST, f"{where}.facts.prompts_sha256", "differs from stage to stage")
    if not _SHA256.fullmatch(str(record.facts.get("prompts_sha256"))):
        checked.add(MANIFEST, f"{where}.facts.prompts_sha256", "is no sha256: 64 digits from 0 to f")
    if record.engine != manifest.engine:
        checked.add(MANIFEST, f"{where}.engine", "is not that of the run")


def read_fingerprints(checked: Checked, contents: Mapping[str, bytes]) -> None:
    """The fingerprints of a submission that was accepted, and so checked: its answers are only read."""
    manifest = checked.manifest
    assert manifest is not None
    for cell in manifest.config.cells:
        name = f"{cell.name}/{SAMPLES}"
        answers = _answers(checked, name, contents.get(name, b""))
        for stage in cell.owned(manifest.config.task):
            own = [one for one in answers if one.stage == stage.name]
            checked.fingerprint[cell.name, stage.name] = _fingerprint(own)


def _settings(manifest: Manifest, questions: str) -> dict[str, Any]:
    compute = manifest.config.compute
    return question_settings(
        questions, manifest.config.task, str(compute.evaluation), compute.engine, compute.engine_args
    )


def _stored(answers: Iterable[Said]) -> str:
    """The lines that the run stored, which have no stage: what `to_json_lines` gives, in a third of the time."""
    return "".join(
        f'{{"id": {json_text(one.id)}, "em_forced": {one.em_forced}, "logprob": {one.logprob!r}, '
        f'"generated": {json_text(one.generated)}{_stored_choice(one)}}}\n'
        for one in answers
    )


def _stored_choice(one: Said) -> str:
    return "" if one.choice is None else f', "choice": {one.choice}'


def _fingerprint(answers: Iterable[Said]) -> tuple[Floats, Hashes]:
    """Log-probabilities and hashes of the generated texts, in the order of the questions' ids."""
    own = sorted(answers, key=lambda one: one.id)
    hashes = [zlib.crc32(one.generated.encode()) for one in own]
    return np.array([one.logprob for one in own], np.float32), np.array(hashes, np.uint32)


def _fits(checked: Checked, name: str, content: bytes, wanted: int) -> bool:
    """Whether a file is no larger than so many answers can be."""
    lines = content.count(b"\n")
    if lines > wanted + MAX_ODD:
        checked.add(name, "", f"has {lines} lines; the task asks for {wanted} answers")
    elif len(content) > ROW_BYTES * (wanted + MAX_ODD):
        checked.add(name, "", f"has {len(content)} bytes; {wanted} answers have {ROW_BYTES} on average at most")
    else:
        return True
    return False


def _answers(checked: Checked, name: str, content: bytes) -> list[AnswerLine]:
    """The answers of a file. Lines that are not as the suite writes them are read with care, slowly, and so but few."""
    lines = content.removesuffix(b"\n").split(b"\n")
    regular = list(map(_REGULAR.fullmatch, lines))
    if all(regular):
        try:
            return decode_answers(lines)
        except (MsgspecError, ValueError):
            pass  # which line it is, and what is wrong with it, is found below
    answers: list[AnswerLine] = []
    wrong: list[Problem] = []
    odd = 0
    try:
        for number, (line, as_written) in enumerate(zip(lines, regular, strict=True), start=1):
            if as_written:
                try:
                    answers.append(_read(SubmittedAnswer.model_validate_json(line, strict=True)))
                    continue
                except ValidationError:
                    pass
            odd += 1
            if odd > MAX_ODD:
                raise Unreadable(f"has more than {MAX_ODD} lines that the suite does not write so")
            try:
                if line:
                    row = parse_json_line(number, line)
                    answers.append(_read(SubmittedAnswer.model_validate(row, strict=True)))
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                key = printable(".".join(map(str, first["loc"])))
                wrong.append(Problem(name, f"line {number}: {key}", first["msg"]))
    except Unreadable as error:
        checked.add(name, "", str(error))
    checked.problems += few(name, wrong)
    return answers


def _read(one: SubmittedAnswer) -> AnswerLine:
    return AnswerLine(**vars(one))


def _all_answered(checked: Checked, name: str, answers: Sequence[AnswerLine], asked: Mapping[str, Asked]) -> bool:
    given = Counter((one.stage, one.id) for one in answers)
    wanted = {(stage, id) for stage, questions in asked.items() for id in questions.by_id}
    faults = {
        "has no answer": wanted - set(given),
        "was not asked": set(given) - wanted,
        "is answered more than once": {which for which, count in given.items() if count > 1},
    }
    for message, which in faults.items():
        shown = [Problem(name, printable(f"{stage} {id}"), message) for stage, id in heapq.nsmallest(SHOWN, which)]
        if len(which) > SHOWN:
            shown.append(Problem(name, "", f"and {len(which) - SHOWN} more of this kind"))
        checked.problems += shown
    return not any(faults.values())


def _check_results(checked: Checked, manifest: Manifest, submitted: Results) -> None:
    """results.json is, number for number and but for their last digits, what the answers give.

    Nobody can derive what is in a model from what it answers: that is checked for form by itself.
    """
    own = results_of(manifest, score_samples(checked.samples, manifest.config.task) | _inside(submitted))
    wrong = (
        Problem(RESULTS, where, f"is {_shown(given)}; the answers give {_shown(derived)}")
        for where, given, derived in _differences(submitted.model_dump(mode="json"), own.model_dump(mode="json"), "")
    )
    checked.problems += few(RESULTS, wrong)
    checked.ranked = _ranked(checked, manifest, own)


def _inside(submitted: Results) -> dict[str, Any]:
    return {"probes": submitted.probes, "gradients": submitted.gradients}


def _ranked(checked: Checked, manifest: Manifest, own: Results) -> Results:
    """What ranks rest on. Seeds beyond the standard ones were chosen by the submitter, perhaps for what they gave.

    Probes and gradients, on which no rank rests, stay those of all seeds.
    """
    config, standard = manifest.config, {(seed, 0) for seed in manifest.config.task.standard_seeds}
    seeds = {(cell.seed, cell.stage2_seed) for cell in config.cells}
    if checked.submission is None or checked.submission.division == "open" or not seeds > standard:
        return own
    kept = [sample for sample in checked.samples if (sample.seed, sample.stage2_seed) in standard]
    fewer = config.model_copy(update={"seeds": config.task.standard_seeds, "stage2_seeds": (0,)})
    found = score_samples(kept, config.task) | _inside(own)
    return results_of(manifest.model_copy(update={"config": fewer}), found)


def _shown(value: Any) -> str:
    """A value, or what it is where it is not one number or text."""
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (dict, list)) else printable(repr(value))


def _differences(given: Any, derived: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(given, dict) and isinstance(derived, dict):
        for key in sorted({*given, *derived}):
            inner = f"{where}.{key}".removeprefix(".")
            yield from _differences(given.get(key), derived.get(key), printable(inner))
    elif isinstance(given, list) and isinstance(derived, list) and len(given) == len(derived):
        for number, pair in enumerate(zip(given, derived, strict=True)):
            yield from _differences(*pair, f"{where}.{number}")
    elif type(given) is not type(derived) or not _equal(given, derived):
        yield where, given, derived


def _equal(given: Any, derived: Any) -> bool:
    """Whether two values are the same. Sums and quantiles have other last digits on other processors."""
    if isinstance(given, float) and isinstance(derived, float):
        return math.isclose(given, derived, rel_tol=LAST_DIGITS, abs_tol=LAST_DIGITS)
    return bool(given == derived)
