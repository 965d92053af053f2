"""A record's line is what JSON gives for it, is made once, and is that of no other record."""

import copy
import pickle

import pytest

from ocl_bench.files import to_json_lines
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, serialize

WORLD = load_task("world", ["source_args.num_entities=20"])
ODD = Record(
    id='a "quoted" \\ id', subset="d1_cons", split="x2", kind="qa", prompt="Zoë\u2028\t\x7f", completion=" 東京\n",
    answers=("東京", "\x00"), entity="", variable="<|é|>", group="",
)  # fmt: skip


@pytest.mark.parametrize("task", ["world", "digit_grid", "set_inclusion_mini", "cvdb_sample"])
def test_a_dataset_is_the_json_of_its_records(task: str) -> None:
    records = [*build(load_task(task), 1)[::7], ODD]
    wanted = to_json_lines(record.model_dump(mode="json") for record in records)
    assert serialize(records) == wanted
    assert serialize(records) == wanted  # as lines that are there already


def test_seeds_share_the_records_of_x0_so_that_their_lines_are_made_once() -> None:
    first, second = ([one for one in build(WORLD, seed) if one.subset.startswith("x0")] for seed in (0, 1))
    assert len(first) > 1000
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert all(one.line is other.line for one, other in zip(first, second, strict=True))


def test_what_is_copied_and_changed_has_a_line_of_its_own() -> None:
    before = ODD.line
    changed = ODD.model_copy(update={"id": "other"})
    for other in (changed, copy.copy(changed), copy.deepcopy(changed), pickle.loads(pickle.dumps(changed))):
        assert '"id": "other"' in other.line and other.line == to_json_lines([other.model_dump(mode="json")])
    assert ODD.line == before
    fresh = Record(**ODD.model_dump())  # which has no line yet
    assert fresh == ODD and hash(fresh) == hash(ODD) and repr(fresh) == repr(ODD)
    assert pickle.dumps(ODD) == pickle.dumps(fresh)
