"""The answer: what a model said to one question, as one JSON line. Every score is computed from it and its record."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import RunFailed
from ocl_bench.files import read_json_lines, to_json_lines, write_atomic

ANSWERS = "answers.jsonl"

LOWEST_LOGPROB = -1e6  # none of a model is lower, and statistics of what is far lower overflow
# A sum of 32-bit logarithms holds no more.
LOGPROB_DIGITS = 6


class Said(Protocol):
    """What is scored of an answer: an `Answer`, or whatever else holds the same."""

    @property
    def id(self) -> str: ...
    @property
    def em_forced(self) -> int: ...
    @property
    def logprob(self) -> float: ...
    @property
    def generated(self) -> str: ...
    @property
    def choice(self) -> int | None: ...


class Answer(Contract):
    """What the model said to one question."""

    id: str = Field(description="the record's id")
    em_forced: int = Field(
        ge=0, le=1, description="1 if an accepted answer, and its end, is what greedy decoding gives"
    )
    logprob: float = Field(
        ge=LOWEST_LOGPROB, le=0, description="natural log-probability of the first answer and its end"
    )
    generated: str = Field(description="greedy answer, cut at the first newline")
    choice: int | None = Field(
        None,
        ge=0,
        exclude_if=lambda choice: choice is None,
        description="number, from 0, of the question's most likely option, by the log-probability of it and its end; "
        "of equally likely ones not the right one",
    )


def make_answer(id: str, forced: bool, logprob: float, generated: str, choice: int | None = None) -> Answer:
    """One answer, as it is stored.

    Args:
        id: the record's.
        forced: whether an accepted answer and its end is what greedy decoding would produce.
        logprob: natural log-probability of the first answer and its end.
        generated: the greedy answer.
        choice: number of the most likely option; None where there are none.

    Raises:
        RunFailed: if the log-probability is none that a working model gives.
    """
    if not logprob >= LOWEST_LOGPROB:  # nor is NaN
        raise RunFailed(f"the answer to {id} has the log-probability {logprob:g}: the model's weights are broken.")
    rounded = round(logprob, LOGPROB_DIGITS) + 0.0  # no -0.0
    return Answer(id=id, em_forced=int(forced), logprob=rounded, generated=generated, choice=choice)


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write answers, one a line."""
    write_atomic(path, to_json_lines(answer.model_dump(mode="json") for answer in answers))


def read_answers(path: Path) -> list[Answer]:
    """Read answers. Raises OclBenchError, naming file and line, if it holds anything else."""
    return [Answer.parse(row, f"{path} line {line}") for line, row in enumerate(read_json_lines(path), start=1)]
