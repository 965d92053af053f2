"""The reversal task: both directions, distinct phrasings, a shuffled control, and names that mean one thing."""

import pytest

from ocl_bench.contract import read_yaml
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.sources.people import LISTS, PeopleSource


def test_descriptions_are_all_different() -> None:
    entities = PeopleSource().entities(PeopleSource.Args(num_entities=3000))
    assert len({entity.name for entity in entities}) == 3000
    with pytest.raises(OclBenchError, match="only 3200 descriptions"):
        PeopleSource().entities(PeopleSource.Args(num_entities=3201))


def test_no_name_can_be_found_where_another_is_meant() -> None:
    lists = read_yaml(LISTS)
    first, last = lists["first_names"], lists["last_names"]
    assert len(set(first)) >= 60
    assert len(set(last)) >= 60
    assert not any(one != other and other.endswith(one) for one in first for other in first)
    assert not any(one != other and other.startswith(one) for one in last for other in last)


def test_each_direction_is_trained_in_three_phrasings_and_both_are_asked() -> None:
    records = build(load_task("reversal", ("source_args.num_entities=100",)), 0)
    trained = [record for record in records if record.split == "x2"]
    assert len(trained) == 80 * 3
    assert len({record.prompt + record.completion for record in trained}) == len(trained)
    for record in trained:
        forward = record.subset == "d1_cons"
        start, end = (record.variable, record.entity) if forward else (record.entity, record.variable)
        assert record.prompt.startswith(start)
        assert record.completion == f" {end}\n"
    for record in records:
        if record.split == "test" and record.subset in ("d1_cons", "d2_cons", "unseen"):
            assert record.kind == "cloze"
            forward = record.group == "d1"
            assert record.prompt.startswith(record.variable if forward else record.entity)
            assert record.answers == (record.entity if forward else record.variable,)
    assert {record.subset for record in records if record.split == "test"} == {
        "d1_cons", "d2_cons", "unseen", "d1_swapped", "d2_swapped",
    }  # fmt: skip
