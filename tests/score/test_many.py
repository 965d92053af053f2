"""Many answers are measured at once, those that have generated and accepted ones in common once: as each by itself."""

from collections import defaultdict
from collections.abc import Sequence
from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocl_bench.evaluate.answers import Answer, Said
from ocl_bench.score.gaps import final_stages
from ocl_bench.score.metrics import METRICS, Metric, Values, register, unregister
from ocl_bench.score.samples import Sample, columns
from ocl_bench.score.score import score_samples
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, answer_text

TASK = load_task("attributes")
STAGES = final_stages(TASK)
SPOKEN = ("red", "The red.", "red red", "dark blue", "blue", "")  # few, so that they come again
VALUES = frozenset({"red", "blue"})


@st.composite
def answered(draw: st.DrawFn, number: int) -> Sample:
    subset = draw(st.sampled_from(("d1_cons", "d2_cons", "unseen")))
    accepted = draw(st.sampled_from((("red",), ("blue", "dark blue"))))
    options = ("red", "blue") if draw(st.booleans()) else ()
    record = Record(
        id=f"{subset}/qa/{number}", subset=subset, split="test", kind="qa", prompt="Q", answers=accepted,
        completion=answer_text(accepted[0]), entity=f"e{number % 3}", variable="v", group="colour", options=options,
    )  # fmt: skip
    answer = Answer(
        id=record.id, em_forced=draw(st.integers(0, 1)), logprob=draw(st.floats(-9, 0)),
        generated=draw(st.sampled_from(SPOKEN)), choice=draw(st.integers(0, 1)) if options else None,
    )  # fmt: skip
    seed, stage2_seed = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    stage = draw(st.sampled_from((STAGES[subset], "x1")))
    return Sample(record, answer, stage, seed, stage2_seed, VALUES if options else frozenset(), 0.1)


def mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 25).flatmap(lambda count: st.tuples(*map(answered, range(count)))))
def test_scores_are_to_the_last_bit_those_of_each_answer_by_itself(samples: tuple[Sample, ...]) -> None:
    found = score_samples(samples, TASK)
    scored = [one for one in samples if one.stage == STAGES[one.record.subset]]
    for metric in METRICS.values():
        by_cell: dict[tuple[str, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for one in scored:
            own = by_cell[one.record.subset, one.seed][one.stage2_seed]
            if (value := metric.of(one.answer, one.record, one.values)) is not None:
                own.append(value)
        for subset, values in found["metrics"].items():
            given = {seed: list(own.values()) for (name, seed), own in by_cell.items() if name == subset}
            expected = {str(seed): mean([*map(mean, own)]) for seed, own in sorted(given.items()) if all(own)}
            told = values[metric.name].per_seed if metric.name in values else {}
            assert told == (expected if any(metric.needs(one.record) for one in scored) else {})
    right = [METRICS["em"].of(one.answer, one.record) != one.answer.em_forced for one in samples]
    assert (found["disagreement"].n, found["disagreement"].differing) == (len(samples), sum(right))


def question(number: int) -> Record:
    return Record(
        id=f"d1_cons/qa/{number}", subset="d1_cons", split="test", kind="qa", prompt="Q", completion=answer_text("red"),
        answers=("red",), entity=f"e{number}", variable="v", group="colour",
    )  # fmt: skip


def test_a_text_metric_is_computed_once_for_each_pair_and_any_other_for_each_answer() -> None:
    asked: list[tuple[str, Sequence[str]]] = []

    def length(generated: str, answers: Sequence[str]) -> float:
        asked.append((generated, answers))
        return float(len(generated))

    def of_entity(answer: Said, record: Record, values: Values) -> float | None:
        """No function of what was generated: of the question, and of how often it was asked."""
        calls.append(record.id)
        return int(record.entity[1:]) + len(calls) / 100

    calls: list[str] = []
    text = register(Metric.of_text(length, name="length", description="characters"))
    other = register(Metric(name="of_entity", description="number of the entity", measure=of_entity))
    try:
        said = ("red", "blue", "red", "red")
        answers = [Answer(id=f"d1_cons/qa/{n}", em_forced=0, logprob=-1.0, generated=one) for n, one in enumerate(said)]
        samples = [
            Sample(question(n), one, "x2", seed, 0, chance=0.1) for seed in (0, 1) for n, one in enumerate(answers)
        ]
        found = score_samples(samples, TASK)["metrics"]["d1_cons"]
        assert asked == [("red", ("red",)), ("blue", ("red",))]
        assert found[text.name].per_seed == {"0": 3.25, "1": 3.25}
        assert calls == [one.record.id for one in samples]
        # Entities 0 to 3, and calls 1 to 4, then 5 to 8.
        assert found[other.name].per_seed == pytest.approx({"0": 1.5 + 0.025, "1": 1.5 + 0.065})
        assert [*columns(samples).measured(text)] == [text.of(one.answer, one.record) for one in samples]
    finally:
        unregister(text.name)
        unregister(other.name)
