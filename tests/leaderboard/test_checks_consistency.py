"""What no honest run tells is refused, and what some do is not: of answers, curves, dates, durations and memory."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from settling import Forgery, Row, read

from ocl_bench.leaderboard.checks.consistency import unchanged_stages
from ocl_bench.leaderboard.checks.plausible import check_plausible
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.submission import SubmittedAnswer
from ocl_bench.leaderboard.validate import check
from ocl_bench.runner.manifest import Manifest

Rows = list[Row]


def forced(rows: Rows, right: bool) -> Rows:
    return [row for row in rows if row["em_forced"] == right]


def right(forgery: Forgery, row: Row) -> None:
    """Make the generated answer right."""
    asked = forgery.questions(forgery.told.config.cells[0])
    row["generated"] = asked[row["id"]].completion.strip()


def answers(change: Callable[[Forgery, Rows], Any]) -> Callable[[Forgery], None]:
    """Change the answers of the first seed after X1."""

    def changed(forgery: Forgery) -> None:
        change(forgery, [row for row in forgery.answers["seed-0"] if row["stage"] == "x1"])

    return changed


def all_unlikely(forgery: Forgery, rows: Rows) -> None:
    for row in rows:
        right(forgery, row)
        row |= {"em_forced": 1, "logprob": -7.0}


def one_unlikely(forgery: Forgery, rows: Rows) -> None:
    right(forgery, rows[0])
    rows[0] |= {"em_forced": 1, "logprob": -7.0}


def said_but_not_forced(forgery: Forgery, rows: Rows) -> None:
    right(forgery, rows[0])
    rows[0] |= {"em_forced": 0, "logprob": -2.0}


def other_loss(forgery: Forgery) -> None:
    for row in forgery.curves["seed-0"]:
        if row["stage"] == "x1":
            row["loss"] += 0.5


def two_losses(forgery: Forgery) -> None:
    forgery.curves["seed-0"][0]["loss"] += 0.5


ANSWERS: dict[str, tuple[Callable[[Forgery], None], str | None]] = {
    "an answer with a space after it": (
        answers(lambda _, rows: rows[0].update(generated=rows[0]["generated"] + " ")), "generated: is not cut at the newline"
    ),
    "likely, but not the likeliest": (
        answers(lambda _, rows: forced(rows, False)[0].update(logprob=-0.6)), "more than half of the probability, but em_forced is 0"
    ),
    "as likely as the likeliest": (answers(lambda _, rows: forced(rows, False)[0].update(logprob=-0.7)), None),
    "less than a guess, but the likeliest": (
        answers(lambda forgery, rows: (right(forgery, rows[0]), rows[0].update(em_forced=1, logprob=-60.0))),
        "less than a guess among all tokens, but em_forced is 1",
    ),
    "many that are unlikely, but the likeliest": (answers(all_unlikely), "is -7, but em_forced is 1|not taught yet|of more than half|more of this kind|changed less"),
    "one that is unlikely, but the likeliest": (answers(one_unlikely), None),
    "generated, but not the likeliest": (answers(said_but_not_forced), "em_forced: is 0, but just that answer was generated"),
    "the likeliest, but not generated": (
        answers(lambda _, rows: rows[0].update(em_forced=1, logprob=-0.1, generated="nothing")),
        "em_forced: is 1, but the generated answer is not an accepted one",
    ),
    "a curve with another loss": (other_loss, r"x1\.train_loss: is not the loss at the end of the learning curve"),
    "a curve with two losses": (two_losses, "x1 epoch 1: has several losses"),
}  # fmt: skip


# What may follow from such an answer: it was the right choice too, and a point of the curve is of all that was asked.
FOLLOWS = r"choice: is not the right one|the curve does not end where the samples are|and \d+ more"


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_no_model_gives_are_named_however_coherent(
    name: str, small_submission: Path, tmp_path: Path
) -> None:
    change, line = ANSWERS[name]
    forgery = read(small_submission)
    change(forgery)
    problems = [str(problem) for problem in check(forgery.write(tmp_path / "results")).problems]
    if line is None:
        assert problems == []
    else:
        assert any(re.search(line, problem) for problem in problems), problems
        assert all(re.search(rf"{line}|{FOLLOWS}", problem) for problem in problems), problems


def each(*keys: str, to: Any) -> Callable[[Any], None]:
    """Set a value of the stages that fit: seed, stage and further keys; * fits any."""

    def change(said: Any) -> None:
        places = [said]
        for key in keys[:-1]:
            places = [one for place in places for one in (place.values() if key == "*" else [place[key]])]
        for place in places:
            place[keys[-1]] = to(place[keys[-1]]) if callable(to) else to

    return change


def all_of(*changes: Callable[[Any], None]) -> Callable[[Any], None]:
    def change(said: Any) -> None:
        for one in changes:
            one(said)

    return change


X1, ASKED = ("stages", "seed-0", "x1"), ("evaluations", "seed-0", "x1", "answers")
OLD, SOON, LATE = "2026-01-01T00:00:00+00:00", "2026-06-01T00:00:00+00:00", "2099-01-01T00:00:00+00:00"
PLAUSIBLE: dict[str, tuple[Callable[[Any], None], str | None]] = {
    "untouched": (lambda said: None, None),
    "a start before the suite": (each("started", to="2019-01-01T00:00:00+00:00"), "started: is no date in UTC"),
    "a stage of the future": (each(*X1, "provenance", "made", to=LATE), r"x1\.provenance: is no date in UTC"),
    "a stage before the start": (each(*X1, "provenance", "made", to=OLD), r"x1\.provenance\.made: is before the run was started"),
    "a stage of another run before the start": (
        all_of(each("reused", to=1), each(*X1, "provenance", "made", to=OLD), each(*ASKED, "provenance", "made", to=OLD)), None
    ),
    "answers before their stage": (
        all_of(each("started", to=OLD), each(*ASKED, "provenance", "made", to=OLD)), r"x1\.answers\.provenance\.made: is before the stage was trained"
    ),
    "X2 before X1": (
        all_of(each("started", to=OLD), each("stages", "seed-0", "x2", "provenance", "made", to=SOON)),
        r"x2\.provenance\.made: is before the stage before was trained",
    ),
    "X2 before X1, which was trained again for another run": (
        all_of(each("started", to=OLD), each("reused", to=1), each("stages", "seed-0", "x2", "provenance", "made", to=SOON)), None
    ),
    "a machine that slept": (each("wall_seconds", to=lambda seconds: seconds + 7200), None),
    "no duration": (each("wall_seconds", to=0.0), "wall_seconds: is no duration"),
    "a duration that training alone exceeds": (
        each("stages", "*", "*", "seconds", to=lambda seconds: seconds + 1000), "wall_seconds: is .*, but its . slots trained"
    ),
    "as long, in several starts": (
        all_of(each("starts", to=2), each("stages", "*", "*", "seconds", to=lambda seconds: seconds + 1000)), None
    ),
    "a stage of no time": (each(*X1, "seconds", to=0.0), r"x1\.seconds: and curve_seconds"),
    "a curve longer than its stage": (each(*X1, "curve_seconds", to=1e6), r"x1\.seconds: and curve_seconds"),
    "resumed after the end": (each(*X1, "resumed", to=3), r"x1\.resumed: is no epoch"),
    "resumed before the end": (each(*X1, "resumed", to=2), None),
    "memory that ran out too often": (each(*X1, "out_of_memory", to=21), r"x1\.out_of_memory: is more often"),
    "no parameters": (each("parameters", to=0), "parameters: is no number of parameters"),
    "a stage in no memory": (each(*X1, "peak_memory_bytes", to=1), r"x1\.peak_memory_bytes: is less than the weights"),
    "a run in no memory": (each("peak_memory_bytes", to=1), "^manifest.json: peak_memory_bytes: is less than the weights"),
    "files without weights": (each(*X1, "files", "model.safetensors", to=[100, "0" * 64]), r"x1\.files: have 100 bytes of weights"),
    "files with more than weights": (each(*X1, "files", "model.safetensors", to=[10**8, "0" * 64]), r"x1\.files: have 10+ bytes of weights"),
    "a few words fewer": (each(*X1, "files", "model.safetensors", to=lambda file: [file[0] - 300, file[1]]), None),
    "an unknown engine": (each("engine", "name", to="own"), "engine.name: is none of"),
    "another version of the engine": (each("engine", "version", to="1.0"), "engine.version: is not the version of torch"),
    "stages without versions": (each(*X1, "provenance", "versions", to={"python": "3.11"}), r"x1\.provenance\.versions: lacks python, torch"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAUSIBLE)
def test_what_could_not_be_true_together_is_named(name: str, small_submission: Path) -> None:
    change, line = PLAUSIBLE[name]
    said = json.loads((small_submission / "manifest.json").read_text())
    change(said)
    checked = Checked(small_submission)
    check_plausible(checked, Manifest.model_validate_json(json.dumps(said)))
    problems = [str(problem) for problem in checked.problems]
    if line is None:
        assert problems == []
    else:
        assert problems and all(re.search(line, problem) for problem in problems), problems


@pytest.mark.parametrize(("changed", "found"), [(0, True), (80, True), (120, False), (200, False)])
def test_a_stage_that_leaves_most_log_probabilities_as_they_were_trained_nothing(changed: int, found: bool) -> None:
    def asked(numbers: range, moved: int) -> list[SubmittedAnswer]:
        return [
            SubmittedAnswer(id=f"a{n}", stage="x", em_forced=0, logprob=-1 - n / 1000 - (n < moved), generated="")
            for n in numbers
        ]

    by_stage = {"x1": asked(range(200), 0), "x2": asked(range(300), changed)}  # further questions are asked after X2
    assert bool(list(unchanged_stages("seed-0", by_stage))) == found
