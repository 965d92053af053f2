"""Set inclusion: lists decide, tests are never trained on, and the texts are the paper's."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.sources.set_inclusion import SetInclusionSource

Args = SetInclusionSource.Args


def numbers(template: str) -> set[int]:
    match = re.fullmatch(r"\{entity\} % ([\d ]+) =", template)
    assert match
    found = [int(word) for word in match[1].split()]
    assert len(set(found)) == len(found)
    return set(found)


@settings(max_examples=25, deadline=None)
@given(st.integers(12, 99), st.integers(2, 6), st.integers(1, 5), st.integers(1, 3))
def test_questions_are_answered_by_their_lists_half_true_half_train(
    values: int, length: int, quarter: int, shared: int
) -> None:
    shared = min(shared, length - 1)
    try:
        args = Args(
            num_entities=20, num_values=values, list_length=length, num_questions=4 * quarter, num_shared=shared
        )
    except ValueError:
        return  # too few different lists
    for entity in SetInclusionSource().entities(args):
        value = int(entity.name)
        assert 0 <= value < values
        lists = [numbers(question.template) for question in entity.questions]
        assert len({frozenset(one) for one in lists}) == len(lists)  # nothing tested is trained on
        assert all(len(one) == length for one in lists)
        for question, one in zip(entity.questions, lists, strict=True):
            assert question.answers == (("true",) if value in one else ("false",))
            assert question.group == question.answers[0]
        for held_out in (False, True):
            answers = [question.answers[0] for question in entity.questions if question.held_out == held_out]
            assert (answers.count("true"), answers.count("false")) == (quarter, quarter)
        training = [
            one
            for question, one in zip(entity.questions, lists, strict=True)
            if question.group == "true" and not question.held_out
        ]
        common = set.intersection(*training)
        assert value in common
        assert quarter == 1 or len(common) == shared


def test_flipped_labels_are_true_training_answers_only() -> None:
    for entity in SetInclusionSource().entities(Args(num_entities=50, flip_true=1.0)):
        for question in entity.questions:
            flipped = question.group == "true" and not question.held_out
            assert question.answers[0] == ("false" if flipped else question.group)


def test_records_are_the_papers_to_the_byte_and_every_variable_is_one_word() -> None:
    records = build(load_task("set_inclusion", ("source_args.num_entities=200",)), 0)
    definition = next(record for record in records if record.kind == "definition")
    assert re.fullmatch(r"define1 [a-z]{3} %", definition.prompt)
    assert re.fullmatch(r" \d+\n", definition.completion)
    question = next(record for record in records if record.kind == "qa")
    assert re.fullmatch(r"[a-z]{3} % (\d+ ){8}=", question.prompt)
    assert question.completion in (" true\n", " false\n")
    counts = [sum(record.split == split for record in records) for split in ("x1", "x2", "test")]
    assert counts == [160 * 13, 40, 160 * 12 + 40 * 24 * 2]  # X2 is asked again with variables exchanged
    for record in records:
        if record.kind == "definition" and record.subset == "d2_incons_qa":
            assert record.answers[0] != record.entity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("list_length=20", "list_length has to be below num_values"),
        ("num_shared=4", "num_shared has to be below list_length"),
        ("num_questions=6", "multiple of 4"),
        ("list_length=10", "lower list_length"),
        ("num_questions=48", "too few different lists"),
        ("flip_true=2", "less than or equal to 1"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(change: str, message: str) -> None:
    with pytest.raises(OclBenchError, match=message):
        load_task("set_inclusion_mini", (f"source_args.{change}",))
