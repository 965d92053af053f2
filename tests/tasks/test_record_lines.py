"""A record's line is what JSON gives for it, is made once, and is that of no other record."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs
from msgspec.structs import replace

from ocl_bench.errors import OclBenchError
from ocl_bench.files import to_json_lines
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, read_dataset, serialize

WORLD = load_task("world", ["source_args.num_entities=20"])
ODD = Record(
    id='a "quoted" \\ id', subset="d1_cons", split="x2", kind="qa", prompt="Zoë\u2028\t\x7f", completion=" 東京\n",
    answers=("東京", "\x00"), entity="", variable="<|é|>", group="",
)  # fmt: skip


def plain(record: Record) -> dict[str, Any]:
    """A record as JSON's types, without what it has no need of."""
    row: dict[str, Any] = msgspec.to_builtins(record, enc_hook=lambda picture: picture.model_dump())
    return {key: value for key, value in row.items() if value or key not in ("options", "picture")}


@pytest.mark.parametrize("task", ["world", "digit_grid", "set_inclusion_mini", "cvdb_sample"])
def test_a_dataset_is_the_json_of_its_records(task: str) -> None:
    records = [*build(load_task(task), 1)[::7], ODD]
    wanted = to_json_lines(map(plain, records))
    assert serialize(records) == wanted
    assert serialize(records) == wanted  # as lines that are there already


def test_seeds_share_the_records_of_x0_so_that_their_lines_are_made_once() -> None:
    first, second = ([one for one in build(WORLD, seed) if one.subset.startswith("x0")] for seed in (0, 1))
    assert len(first) > 1000
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert all(one.line is other.line for one, other in zip(first, second, strict=True))


def test_what_is_copied_and_changed_has_a_line_of_its_own() -> None:
    before = ODD.line
    changed = replace(ODD, id="other")
    for other in (changed, copy.copy(changed), copy.deepcopy(changed), pickle.loads(pickle.dumps(changed))):
        assert '"id": "other"' in other.line and other.line == to_json_lines([plain(other)])
    assert ODD.line == before
    fresh = Record(**structs.asdict(ODD))  # which has no line yet
    assert fresh == ODD and hash(fresh) == hash(ODD) and repr(fresh) == repr(ODD)
    assert pickle.dumps(ODD) == pickle.dumps(fresh)


def test_a_dataset_that_is_read_is_the_one_that_was_written(tmp_path: Path) -> None:
    records = [*build(load_task("digit_grid"), 1)[::50], *build(WORLD, 1)[::50], ODD]
    path = tmp_path / "data.jsonl"
    path.write_text(serialize(records), encoding="utf-8")
    assert read_dataset(path) == records


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": 5}, "expected `str`, got `int` - at `$.prompt`."),
        ({"split": "x9"}, "invalid enum value 'x9' - at `$.split`."),
        ({"answers": []}, "expected `array` of length >= 1 - at `$.answers`."),
        ({"color": "red"}, "object contains unknown field `color`."),
        ({"picture": {"maker": "digit_grid"}}, "key 'scans' is missing; add it - at `$.picture`."),
        ({"group": None}, "expected `str`, got `null` - at `$.group`."),
    ],
)
def test_a_line_that_is_no_record_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(ODD.line + json.dumps(json.loads(ODD.line) | change) + "\n", encoding="utf-8")
    with pytest.raises(OclBenchError) as caught:
        read_dataset(path)
    assert str(caught.value) == f"{path} line 2: {said}"
