"""A subset has equal parts, which records alone tell apart."""

import pytest

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
