"""A table of one's own is a source: whatever its format, what it holds becomes part of the task."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from conftest import call
from pyarrow import parquet

from ocl_bench.errors import OclBenchError
from ocl_bench.files import sha256_of_file
from ocl_bench.leaderboard.checks.data import expected_records
from ocl_bench.runner.plan import validate_task
from ocl_bench.tasks.build import build, chance_levels, load_entities
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import dataset_sha256
from ocl_bench.tasks.schema import Task

COUNT = 40
ROWS: list[dict[str, Any]] = [
    {
        "river": f"River {n}",
        "sea": ("Black", "North", "Red")[n % 3],
        "km": 100 + n % 4,
        "code": f"{n % 2:03}",
        "other": n,
    }
    for n in range(COUNT)
]
QUESTIONS = {
    "sea": "Into which sea does {entity} flow?",
    "km": "How long is {entity}?",
    "code": "What is {entity}'s code?",
}


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_dataset(path: Path, rows: list[dict[str, Any]]) -> None:
    from datasets import ClassLabel, Dataset

    seas = sorted({row["sea"] for row in rows})
    numbered = [row | {"sea": seas.index(row["sea"])} for row in rows]
    Dataset.from_list(numbered).cast_column("sea", ClassLabel(names=seas)).save_to_disk(path, num_shards=3)


def write_arrow(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    "rivers.csv": write_csv,
    "rivers.tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "rivers.jsonl": lambda path, rows: path.write_text("".join(f"{json.dumps(row)}\n" for row in rows)),
    "rivers.parquet": lambda path, rows: parquet.write_table(pa.Table.from_pylist(rows), path),
    "rivers.arrow": write_arrow,
    "rivers": write_dataset,
}


def write_task(folder: Path, **args: Any) -> Path:
    folder.mkdir(exist_ok=True)
    task = {
        "include": "attributes", "task": "rivers", "version": 1, "description": "Rivers.", "source": "table",
        "source_args": {"path": "../rivers.csv", "name": "river", "questions": QUESTIONS} | args,
    }  # fmt: skip
    (folder / "rivers.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
    return folder / "rivers.yaml"


def refusal(path: Path) -> str:
    with pytest.raises(OclBenchError) as error:
        validate_task(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_task(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, ROWS)
    task = load_task(str(write_task(tmp_path / "tasks", path=f"../{name}")))
    entities = load_entities(task)
    assert [one.name for one in entities] == [row["river"] for row in ROWS]
    assert [question.answers for question in entities[5].questions] == [("Red",), ("101",), ("001",)]
    assert [question.template for question in entities[5].questions] == list(QUESTIONS.values())
    assert chance_levels(task)["qa", "sea"] == 14 / COUNT and chance_levels(task)["qa", "code"] == 0.5
    # Nothing of it is about this machine, and the file is needed no more.
    assert task.source_args["num_entities"] == COUNT and str(tmp_path) not in task.model_dump_json()
    again = Task.model_validate_json(task.model_dump_json())
    assert again == task and dataset_sha256(build(again, 0)) == dataset_sha256(build(task, 0))
    # As the leaderboard reckons, which builds from the task alone.
    assert expected_records(task) == pytest.approx(len(build(task, 0)), rel=0.1)
    # The base's own arguments are not the table's.
    assert "attributes" not in task.source_args


def test_options_are_the_columns_values(tmp_path: Path) -> None:
    write_csv(tmp_path / "rivers.csv", ROWS)
    records = build(load_task(str(write_task(tmp_path / "tasks"))), 0)
    asked = {record.group: record.options for record in records if record.kind == "qa" and record.split == "test"}
    assert asked == {"sea": ("Black", "North", "Red"), "km": ("100", "101", "102", "103"), "code": ("000", "001")}


def test_several_answers_are_accepted_and_the_first_is_trained_on(tmp_path: Path) -> None:
    rows = [row | {"sea": [row["sea"], "the sea"]} for row in ROWS]
    WRITERS["rivers.jsonl"](tmp_path / "rivers.jsonl", rows)
    records = build(load_task(str(write_task(tmp_path / "tasks", path="../rivers.jsonl"))), 0)
    one = next(record for record in records if record.group == "sea")
    assert one.answers[1] == "the sea" and one.completion == f" {one.answers[0]}\n"


def test_the_first_rows_are_taken_where_a_number_is_asked_for(tmp_path: Path) -> None:
    write_csv(tmp_path / "rivers.csv", ROWS)
    task = load_task(str(write_task(tmp_path / "tasks")), ["source_args.num_entities=24"])
    assert [one.name for one in load_entities(task)] == [f"River {n}" for n in range(24)]


def test_a_path_starts_from_the_file_that_has_it_and_on_the_command_line_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "rivers.csv", ROWS)
    write_task(tmp_path / "tasks")
    child = tmp_path / "tasks" / "deeper" / "child.yaml"
    child.parent.mkdir()
    child.write_text("include: ../rivers.yaml\ntask: child\n")
    assert len(load_entities(load_task(str(child)))) == COUNT
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "few.csv", ROWS[:30])
    assert len(load_entities(load_task(str(child), ["source_args.path=few.csv"]))) == 30


def test_a_changed_table_is_another_task_and_is_noticed_by_its_checksums(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    write_csv(tmp_path / "rivers.csv", ROWS)
    task = load_task(str(write_task(folder)))
    call("data", "build", "rivers.yaml", "--output_path", "data", folder=folder)
    digests = {split: sha256_of_file(folder / "data" / f"{split}.jsonl") for split in ("x1", "x2", "test")}
    (folder / "checksums.json").write_text(json.dumps({"version": 1, "seeds": {"0": digests}}))
    assert call("data", "verify", "rivers.yaml", folder=folder).returncode == 0
    write_csv(tmp_path / "rivers.csv", [{**ROWS[0], "sea": "Dead"}, *ROWS[1:]])
    assert load_task(str(folder / "rivers.yaml")) != task
    verified = call("data", "verify", "rivers.yaml", folder=folder)
    assert verified.returncode == 1 and "DIFFERS" in verified.stdout


FAULTS: dict[str, tuple[Callable[[Path], object], dict[str, Any], list[str]]] = {
    "no file": (lambda path: path.unlink(), {}, ["rivers.csv: there is no such file", "relative to the task file"]),
    "no column": (lambda path: None, {"name": "rivr"}, ["no column 'rivr'", "did you mean 'river'?"]),
    "no column of a question": (
        lambda path: None, {"questions": {"ocean": "Which of {entity}?"}}, ["no column 'ocean'", "river"],
    ),
    "parted by something else": (
        lambda path: path.write_text("river;sea;km;code\na;b;1;2\n"), {}, ["rivers.csv: its columns are parted by ';'"],
    ),
    "a column twice": (
        lambda path: path.write_text("river,sea,km,code,sea\na,b,1,2,c\n"), {}, ["column 'sea' is there twice"],
    ),
    "a name twice": (
        lambda path: write_csv(path, [*ROWS, ROWS[4]]), {}, ["rows 5 and 41 are both called 'River 4'"],
    ),
    "an empty cell": (
        lambda path: write_csv(path, [*ROWS[:6], ROWS[6] | {"sea": " "}, *ROWS[7:]]), {},
        ["rivers.csv row 7: column 'sea' is empty"],
    ),
    "a line break": (
        lambda path: write_csv(path, [ROWS[0] | {"sea": "Red\nSea"}, *ROWS[1:]]), {},
        ["rivers.csv row 1", "'sea' has a line break"],
    ),
    "too few rows": (lambda path: write_csv(path, ROWS[:5]), {}, ["of 5 entities", "give more entities"]),
    "no rows": (lambda path: path.write_text("river,sea,km,code\n"), {}, ["has 0 rows, and at least 2"]),
    "fewer rows than asked for": (
        lambda path: None, {"num_entities": 99}, ["has 40 rows, and source_args.num_entities is 99"],
    ),
    "another encoding": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"Red", "Rød".encode("latin-1"))), {},
        ["rivers.csv line 4: the file is not in UTF-8"],
    ),
    "cells too many": (
        lambda path: path.write_text("river,sea,km,code\na,b,1,2,3\n"), {}, ["not a whole table", "got 5"],
    ),
    "an unknown placeholder": (
        lambda path: None, {"questions": {"sea": "Where is {river}?"}}, ["'sea: Where is {river}?' has {river}"],
    ),
    "no placeholder": (lambda path: None, {"questions": {"sea": "Where?"}}, ["needs {entity} exactly once"]),
    "one question": (lambda path: None, {"questions": {"sea": "Where is {entity}?"}}, ["an entity with 1"]),
    "an unknown kind": (lambda path: path.rename(path.parent / "rivers.xls"), {"path": "../rivers.xls"}, ["no table"]),
    "a folder of something else": (lambda path: None, {"path": ".."}, ["not made by `Dataset.save_to_disk`"]),
    "fewer rows than written": (
        lambda path: None, {"path": None, "num_entities": 3, "rows": [["a", "b", "c", "d"]] * 2}, ["rows: there are 2"],
    ),
    "a row too short": (lambda path: None, {"path": None, "rows": [["a", "b"]] * 2}, ["an answer to each"]),
    "neither path nor rows": (lambda path: None, {"path": None}, ["give path"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_is_one_sentence_with_file_and_place(tmp_path: Path, fault: str) -> None:
    make, args, words = FAULTS[fault]
    write_csv(tmp_path / "rivers.csv", ROWS)
    make(tmp_path / "rivers.csv")
    path = write_task(tmp_path / "tasks", **args)
    message = refusal(path)
    for word in words:
        assert word in message


def test_a_folder_of_splits_says_which_there_are_and_json_lines_where_they_end(tmp_path: Path) -> None:
    (tmp_path / "rivers").mkdir()
    (tmp_path / "rivers" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert "name one of them, such as" in refusal(write_task(tmp_path / "tasks", path="../rivers"))
    (tmp_path / "rivers.jsonl").write_text('{"river": "a", "sea": "b", "km": 1, "code": "2"}\n{"river": "c",\n')
    assert "rivers.jsonl line 2" in refusal(write_task(tmp_path / "tasks", path="../rivers.jsonl"))
    (tmp_path / "rivers.jsonl").write_text(
        '{"river": "a", "sea": "b", "km": 1, "code": "2"}\n{"river": "c", "km": 1}\n'
    )
    assert "row 2: column 'sea' is empty" in refusal(write_task(tmp_path / "tasks", path="../rivers.jsonl"))
