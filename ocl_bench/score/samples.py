"""The sample: an answer beside its question. It is derived, never stored."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from ocl_bench.evaluate.answers import Said
from ocl_bench.score.metrics import CHOICE, EM, Metric
from ocl_bench.tasks.records import Record


class Sample(NamedTuple):
    """One answered question. A tuple, because a submission has tens of thousands.

    Attributes:
        record: the question.
        answer: what the model said.
        stage: the finetuning stage at whose end it was asked.
        seed: stage-1 seed.
        stage2_seed: stage-2 seed.
        values: what answers to questions of its group may be, normalised; empty where it has no options, or is only
            looked at.
        chance: accuracy of the best guess that does not look at the entity; no number where it is only looked at.
        run: which of several runs it is of, such as A; empty where there is one.
    """

    record: Record
    answer: Said
    stage: str
    seed: int
    stage2_seed: int
    values: Collection[str] = ()
    chance: float = math.nan
    run: str = ""

    @property
    def chosen(self) -> str | None:
        """The option that the model finds most likely; None where there are none."""
        number, options = self.answer.choice, self.record.options
        return options[number] if number is not None and number < len(options) else None

    @property
    def right(self) -> bool:
        """Whether the choice is right; where nothing is chosen, whether the generated answer is."""
        chosen = CHOICE.of(self.answer, self.record)
        return bool(EM.of(self.answer, self.record) if chosen is None else chosen)

    def row(self) -> dict[str, Any]:
        """The sample as column → value: plain text, numbers and lists."""
        record, answer = self.record, self.answer
        return {
            "run": self.run,
            "seed": self.seed,
            "stage2_seed": self.stage2_seed,
            "stage": self.stage,
            "subset": record.subset,
            "set": record.set,
            "id": record.id,
            "entity": record.entity,
            "variable": record.variable,
            "question": record.prompt,
            "answers": list(record.answers),
            "options": list(record.options),
            "generated": answer.generated,
            "chosen": self.chosen,
            "logprob": answer.logprob,
            "em": EM.of(answer, record),
            "em_forced": answer.em_forced,
            "right": self.right,
        }


class Columns(NamedTuple):
    """What samples are measured by, a column each: many are measured sooner than one after the other."""

    answers: list[Said]
    records: list[Record]
    values: list[Collection[str]]
    chance: list[float]

    def measured(self, metric: Metric) -> Iterator[float | None]:
        """A metric's value for each sample; None where it does not apply."""
        return metric.of_each(self.answers, self.records, self.values)


def columns(samples: Sequence[Sample]) -> Columns:
    """Answers, questions, values and chance levels of samples."""
    return Columns(
        [one.answer for one in samples],
        [one.record for one in samples],
        [one.values for one in samples],
        [one.chance for one in samples],
    )


def told(values: Iterable[float | None]) -> list[float]:
    """Those values that there are."""
    found = list(values)
    return [value for value in found if value is not None] if None in found else cast(list[float], found)


def samples_of(
    answers: Iterable[Said],
    records: Mapping[str, Record],
    chance: Mapping[tuple[str, str], float],
    values: Mapping[str, Collection[str]],
    *,
    stage: str,
    seed: int,
    stage2_seed: int,
) -> Iterator[Sample]:
    """Put answers beside their questions, one after the other.

    Args:
        answers: of one stage of one seed.
        records: id → question, of every answer.
        chance: kind and group of a question → chance level.
        values: group of a question with options → all that its answers may be (`metrics.group_values`).
        stage, seed, stage2_seed: when they were asked.
    """
    for answer in answers:
        record = records[answer.id]
        known = values.get(record.group, ()) if record.options else ()
        yield Sample(record, answer, stage, seed, stage2_seed, known, chance[record.kind, record.group])
