"""The sample: an answer beside its question. It is derived, never stored."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from ocl_bench.evaluate.answers import Answer
from ocl_bench.tasks.records import Record


class Sample(NamedTuple):
    """One answered question. A tuple, because a submission has tens of thousands.

    Attributes:
        record: the question.
        answer: what the model said.
        values: what answers to questions of its group may be, normalised; empty where it has no options.
        chance: accuracy of the best guess that does not look at the entity.
        stage: the finetuning stage at whose end it was asked.
        seed: stage-1 seed.
        stage2_seed: stage-2 seed.
    """

    record: Record
    answer: Answer
    values: Collection[str]
    chance: float
    stage: str
    seed: int
    stage2_seed: int


def samples_of(
    answers: Iterable[Answer],
    records: Mapping[str, Record],
    chance: Mapping[tuple[str, str], float],
    values: Mapping[str, Collection[str]],
    *,
    stage: str,
    seed: int,
    stage2_seed: int,
) -> list[Sample]:
    """Put answers beside their questions.

    Args:
        answers: of one stage of one seed.
        records: id → question, of every answer.
        chance: kind and group of a question → chance level.
        values: group of a question with options → all that its answers may be (`metrics.group_values`).
        stage, seed, stage2_seed: when they were asked.
    """
    samples = []
    for answer in answers:
        record = records[answer.id]
        known = values.get(record.group, ()) if record.options else ()
        samples.append(Sample(record, answer, known, chance[record.kind, record.group], stage, seed, stage2_seed))
    return samples
