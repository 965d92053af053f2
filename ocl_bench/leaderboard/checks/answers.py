"""Every question has one answer, and the results are what the answers give."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ocl_bench.leaderboard.checks.data import questions_of
from ocl_bench.leaderboard.checks.reading import Checked, few
from ocl_bench.leaderboard.submission import RESULTS, SAMPLES, SubmittedAnswer, answer_lines
from ocl_bench.leaderboard.untrusted import MAX_TEXT, Problem, Unreadable, parse_json_lines, printable
from ocl_bench.runner.folder import results_of
from ocl_bench.runner.manifest import Manifest
from ocl_bench.runner.plan import cell_name
from ocl_bench.score.metrics import EM
from ocl_bench.score.result import Results
from ocl_bench.score.samples import samples_of
from ocl_bench.tasks.build import chance_levels
from ocl_bench.tasks.records import Record

# A token that is not the most likely one has at most half of the probability. Log-probabilities are of 32-bit sums.
NOT_GREEDY = math.log(0.5) + 0.02
# Answers that greedy decoding gives token for token and that are yet not an accepted text: lossy tokenizers have some.
MISREAD_SHARE = 0.01


def check_answers(
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
            asked = {record.id: record for record in questions_of(datasets[cell], manifest, cell)}
            complete &= _all_answered(checked, name, answers, asked, stages)
            for stage in stages:
                own = [one for one in answers if one.stage == stage and one.id in asked]
                checked.samples += samples_of(own, asked, chance, stage=stage, seed=seed, stage2_seed=stage2_seed)
            _check_consistency(checked, name, answers, asked, manifest)
    if complete and checked.results is not None:
        _check_results(checked, manifest, checked.results)


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


def _check_consistency(
    checked: Checked, name: str, answers: Sequence[SubmittedAnswer], asked: Mapping[str, Record], manifest: Manifest
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
        if one.em_forced and not EM.of(one, asked[one.id]):
            misread.append(
                Problem(
                    name, f"{one.stage} {one.id}: em_forced", "is 1, but the generated answer is not an accepted one"
                )
            )
    otherwise = sum(stage.answers_differing for stage in manifest.stages.get(name.split("/")[0], {}).values())
    if len(misread) > otherwise + MISREAD_SHARE * len(answers):
        wrong += misread
    checked.problems += few(name, wrong)


def _check_results(checked: Checked, manifest: Manifest, submitted: Results) -> None:
    """results.json is, number for number, what the answers give."""
    own = results_of(manifest, checked.samples, {})
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
