"""Forgeries that no number contradicts: they pass the checks, and count no more than that until training is repeated.

In the standard division none of them is ranked.
"""

import random

from forged_runs import invent
from forger import asked, end_curves, resample, says
from settling import Forgery, Row, read

from corpus.attack import Attack, Bench
from corpus.changes import Act, every_answer, every_point, forged, stage
from corpus.doors import unranked
from corpus.outcome import Outcome
from ocl_bench.leaderboard import validate
from ocl_bench.tasks.records import Record


def right(row: Row, record: Record) -> None:
    row |= {"em_forced": 1, "logprob": round(-0.05 - len(record.id) / 1000, 6)}
    row |= says(record, record.answers[0], random.Random(0))


def known(*subsets: str, stages: tuple[str, ...] = ("x1", "x2")) -> Act:
    """Every answer of some subsets is right after some stages."""

    def change(forgery: Forgery) -> None:
        for row, record in asked(forgery):
            if record.subset in subsets and row["stage"] in stages:
                right(row, record)

    return forged(change)


def same_in_both_stages(forgery: Forgery) -> None:
    for rows in forgery.answers.values():
        first = {row["id"]: row for row in rows if row["stage"] == "x1"}
        for row in (row for row in rows if row["id"] in first):
            row |= {key: value for key, value in first[row["id"]].items() if key != "stage"}


def same_in_both_seeds(forgery: Forgery) -> None:
    for one, other in zip(forgery.answers["seed-0"], forgery.answers["seed-1"], strict=True):
        if one["em_forced"] == other["em_forced"]:
            other["logprob"] = one["logprob"]


def all_right(bench: Bench) -> Outcome:
    """In the standard division, with curves that fit."""
    forgery = read(bench.small)
    for row, record in asked(forgery):
        right(row, record)
    end_curves(forgery)
    return unranked(forgery.write(bench.results), bench.folder)


def resampled(bench: Bench) -> Outcome:
    return unranked(resample(bench.small, bench.results), bench.folder)


def invented(bench: Bench) -> Outcome:
    with validate.Initial() as initial:
        return unranked(invent(bench.accepted, bench.results, initial), bench.folder)


FORGERIES: dict[str, Act] = {
    "every log-probability is the same": every_answer(
        lambda row: row.update(logprob=-2.5 if not row["em_forced"] else -0.5)
    ),
    "what was never taught is known": known("unseen"),
    "X2 is known after X1": known("d1_cons", "d2_cons", "d3_cons", stages=("x1",)),
    "X2 changed no answer": forged(same_in_both_stages),
    "two seeds of the same log-probabilities": forged(same_in_both_seeds),
    "learning curves that fall in between": every_point(lambda row: row.update(em_forced=0.0, logprob=-50.0)),
    "a curve that is not the checkpoint's": stage(
        "files", lambda was: was | {"curve.jsonl": [was["curve.jsonl"][0], "0" * 64]}
    ),
    "every answer is right, in the standard division": all_right,
    "answers drawn from another's, in the standard division": resampled,
    "a model that never was, in the standard division": invented,
}

ATTACKS = [Attack("for a replay", name, act, ".", refused=False, allowed=10.0) for name, act in FORGERIES.items()]
