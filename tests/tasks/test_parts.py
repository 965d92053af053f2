"""A subset has equal parts, which records alone tell apart."""

import pytest

from ocl_bench.errors import OclBenchError
from ocl_bench.score.gaps import final_stages
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.parts import WHOLE, Part, members_of, parted

RECORDS = build(load_task("world", ["source_args.num_entities=20"]), 0)


@pytest.mark.parametrize("subset", ["d1_cons_qa", "qa_only", "unseen"])
@pytest.mark.parametrize("of", [2, 3, 6])
def test_parts_of_a_subset_are_equal_share_no_variable_and_make_the_whole(subset: str, of: int) -> None:
    whole = members_of(RECORDS, subset)
    parts = [members_of(RECORDS, f"{subset}@{number}/{of}") for number in range(1, of + 1)]
    assert whole == {record.variable for record in RECORDS if record.subset == subset}
    assert frozenset().union(*parts) == whole
    assert sum(map(len, parts)) == len(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_order_of_the_records_does_not_matter() -> None:
    name = "d1_cons_qa@2/6"
    assert members_of(list(reversed(RECORDS)), name) == members_of(RECORDS, name)


def test_parts_overlap_where_a_place_in_the_deal_is_in_both() -> None:
    parts = [WHOLE, *(Part(number, of) for of in (2, 3, 4, 6) for number in range(1, of + 1))]
    for one in parts:
        for other in parts:
            places = [set(range(part.number - 1, 12, part.of)) for part in (one, other)]
            assert one.overlaps(other) == bool(places[0] & places[1])


@pytest.mark.parametrize("name", ["x1@7/6", "x1@0/6", "x1@-1/6", "x1@1", "x1@", "x1@a/b", "x1@1/6@1/6", "x1@1.0/6"])
def test_a_part_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^'{name}' names no part; write @1/6 for the first sixth, up to @6/6$"):
        parted(name)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("stages=[{name: x1, train: [x1@7/6]}]", "'x1@7/6' names no part; write @1/6 for the first sixth, up to @6/6"),
        ("stages=[{name: x1, train: [x1@0/6]}]", "'x1@0/6' names no part"),
        ("stages=[{name: x1, train: [x1], replay: {x0@a: 1}}]", "'x0@a' names no part"),
        ("stages=[{name: x1, train: [x3@1/6]}]", "unknown training data 'x3'"),
        ("stages=[{name: x1, train: [x1@1/6/qa]}]", "'x1@1/6/qa' names no part"),
        ("stages=[{name: x1, train: [x2/qa@1/6]}]", "unknown training data 'x2/qa'"),
        ("stages=[{name: x1, train: [x1@1/6, x1]}]", "'x1@1/6' is in train or replay twice; leave one out"),
        ("stages=[{name: x1, train: [x1@1/6, x1/qa@1/3]}]", "'x1/qa@1/3' is in train or replay twice"),
        ("stages=[{name: x1, train: [x1@2/6], replay: {x1@2/6: 1}}]", "'x1@2/6' is in train or replay twice"),
        ("evaluate.probes={contrasts: [[d1_cons@1/6, d1_cons@7/6]]}", "'d1_cons@7/6' names no part"),
        ("evaluate.probes={contrasts: [[d1_cons@1/6, d1_con@2/6]]}", "unknown subset 'd1_con'"),
        ("evaluate.probes={contrasts: [[d1_cons@1/6, random_tag_qa@1/6]]}", "no entities are dealt to 'random_tag_qa'"),
        ("evaluate.probes={contrasts: [[d1_cons@1/6, d1_cons]]}", "'d1_cons@1/6' cannot be told from itself"),
        ("evaluate.gradients={subsets: [d1_cons@1/6]}", "unknown subset 'd1_cons@1/6'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(OclBenchError) as caught:
        load_task("world", [override])
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("selector", "subset", "size"), [("x1@5/9", "qa_only", 8), ("x0@1/21", "x0_facts", 20)])
def test_more_parts_than_variables_are_refused(selector: str, subset: str, size: int) -> None:
    small = ["source_args.num_entities=20", f"stages=[{{name: one, train: [{selector}]}}]"]
    with pytest.raises(OclBenchError, match=f"'one' trains on '{selector}', but '{subset}' has {size} variables"):
        build(load_task("world", small), 0)


def test_parts_of_one_subset_may_be_contrasted_and_stages_on_parts_of_x2_are_late() -> None:
    stages = "stages=[{name: x0, train: [x0]}, {name: x1, train: [x1@1/2, x1/qa@2/2]}, {name: x2, train: [x2@1/2]}]"
    task = load_task("world", ["evaluate.probes={contrasts: [[d1_cons@1/6, d1_cons@6/6]]}", stages])
    assert (task.shared_stages, task.first_x2_stage) == (1, 2)
    assert final_stages(task)["d1_cons_qa"] == "x1" and final_stages(task)["d1_cons"] == "x2"
