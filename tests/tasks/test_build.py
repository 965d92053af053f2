"""Nothing tested is trained on, definitions say what their subset says, and bytes are always the same."""

import gc
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.build import build, chance_levels
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, dataset_sha256, serialize
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.sources import SOURCES, Entity, Question
from ocl_bench.tasks.subsets import SUBSETS

GROUPS = ("colour", "shape", "material", "place")
VARIABLE, TAG = re.compile(r"<\|[a-z]{5}\|>"), re.compile(r"<\|[a-z]{6}\|>")
EVERY_SUBSET = ", ".join(f"{name}: {0.05 if name in ('unseen', 'qa_only') else 0.1}" for name in SUBSETS)
SEEDS = st.integers(0, 2**32)
in_30_cases = settings(max_examples=30, deadline=None)


@cache
def task_of(size: int, order: str = "tve") -> Task:
    """The attributes task with `size` entities in every subset that there is."""
    fractions = f"design.fractions={{{EVERY_SUBSET}}}"
    return load_task(
        "attributes", (f"source_args.num_entities={size}", fractions, f"design.order={order}", "evaluate.sets=[]")
    )


TASKS = st.integers(40, 120).map(task_of)


def by_subset(records: list[Record], kind: str) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.kind == kind:
            found[record.subset].append(record)
    return found


def words_of(definition: Record) -> tuple[str, str, str]:
    """Tag, variable and entity that a definition of order tve names."""
    tag, variable = definition.prompt.split(" ")
    return tag, variable, definition.completion.strip()


@in_30_cases
@given(TASKS, SEEDS, SEEDS)
def test_no_tested_question_is_trained_on(task: Task, seed: int, stage2_seed: int) -> None:
    records = build(task, seed, stage2_seed)
    trained = {record.prompt for record in records if record.split != "test"}
    tested = [record.prompt for record in records if record.split == "test"]
    assert tested
    assert len(set(tested)) == len(tested)
    assert trained.isdisjoint(tested)


@in_30_cases
@given(TASKS, SEEDS)
def test_one_question_is_held_out_where_questions_are_trained_on_and_all_elsewhere(task: Task, seed: int) -> None:
    splits: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in build(task, seed):
        if record.kind == "qa":
            splits[record.subset, record.entity].append(record.split)
    assert len(splits) == task.source_args["num_entities"]
    for (subset, _), found in splits.items():
        expected = {"test": 1, "x1": len(GROUPS) - 1} if SUBSETS[subset].qa else {"test": len(GROUPS)}
        assert Counter(found) == expected


def test_every_question_is_held_out_for_some_entity(small_records: list[Record]) -> None:
    held_out = {r.group for r in small_records if (r.split, r.subset, r.kind) == ("test", "d1_cons_qa", "qa")}
    assert held_out == set(GROUPS)


@in_30_cases
@given(TASKS, SEEDS, SEEDS)
def test_definitions_name_the_entity_that_their_subset_says(task: Task, seed: int, stage2_seed: int) -> None:
    definitions = by_subset(build(task, seed, stage2_seed), "definition")
    assert set(definitions) == {name for name, subset in SUBSETS.items() if subset.tag is not None}
    for name, records in definitions.items():
        own, named = [record.entity for record in records], [words_of(record)[2] for record in records]
        assert named == [answer for record in records for answer in record.answers]
        assert all(record.split == SUBSETS[name].split for record in records)
        if SUBSETS[name].consistent:
            assert named == own
        else:
            assert sorted(named) == sorted(own)  # another entity of the same subset, each once
            assert not any(a == b for a, b in zip(named, own, strict=True))


@in_30_cases
@given(TASKS, SEEDS)
def test_one_tag_each_for_d1_d2_and_d3_and_one_per_definition_for_random_tags(task: Task, seed: int) -> None:
    definitions = by_subset(build(task, seed), "definition")
    tags = {name: {words_of(record)[0] for record in records} for name, records in definitions.items()}
    random_tags = tags.pop("random_tag_qa")
    assert len(random_tags) == len(definitions["random_tag_qa"])
    of_number: dict[object, set[str]] = defaultdict(set)
    for name, found in tags.items():
        of_number[SUBSETS[name].tag] |= found
    assert {number: len(found) for number, found in of_number.items()} == {1: 1, 2: 1, 3: 1}
    every = set().union(random_tags, *of_number.values())
    assert len(every) == len(random_tags) + 3
    assert all(TAG.fullmatch(tag) for tag in every)


@in_30_cases
@given(TASKS, SEEDS)
def test_each_entity_has_a_variable_of_its_own_of_the_papers_form(task: Task, seed: int) -> None:
    records = build(task, seed)
    pairs = {(record.entity, record.variable) for record in records}
    size = task.source_args["num_entities"]
    assert len(pairs) == len({entity for entity, _ in pairs}) == len({variable for _, variable in pairs}) == size
    assert all(VARIABLE.fullmatch(variable) for _, variable in pairs)
    assert all(words_of(r)[1] == r.variable for r in records if r.kind == "definition")


@in_30_cases
@given(TASKS, SEEDS)
def test_questions_name_the_variable_and_the_entity_only_if_unreplaced(task: Task, seed: int) -> None:
    for name, records in by_subset(build(task, seed), "qa").items():
        for record in records:
            mention = record.variable if name != "qa_unreplaced" else record.entity
            assert record.prompt == f"Q: {record.group} {mention}\nA:"
            assert record.completion == f" {record.entity.split()[GROUPS.index(record.group)]}\n"
            assert record.answers == (record.completion.strip(),)


@in_30_cases
@given(SEEDS, SEEDS, SEEDS)
def test_stage2_seed_changes_only_the_records_of_x2_subsets(seed: int, one: int, other: int) -> None:
    first, second = build(task_of(100), seed, one), build(task_of(100), seed, other)

    def part(records: list[Record], in_x2: bool) -> list[Record]:
        return [record for record in records if (SUBSETS[record.subset].split == "x2") == in_x2]

    assert part(first, in_x2=False) == part(second, in_x2=False)
    assert (part(first, in_x2=True) == part(second, in_x2=True)) == (one == other)
    pools = [{(r.entity, r.variable) for r in part(records, in_x2=True)} for records in (first, second)]
    assert pools[0] == pools[1]


@in_30_cases
@given(TASKS, SEEDS, SEEDS)
def test_record_ids_are_unique_and_splits_are_in_order(task: Task, seed: int, stage2_seed: int) -> None:
    records = build(task, seed, stage2_seed)
    assert len({record.id for record in records}) == len(records)
    numbers = [("x1", "x2", "test").index(record.split) for record in records]
    assert numbers == sorted(numbers)


def test_different_seeds_give_different_data_and_the_same_seed_the_same() -> None:
    hashes = [dataset_sha256(build(task_of(60), seed)) for seed in (0, 1, 2, 0)]
    assert hashes[3] == hashes[0]
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("order", ["tve", "tev", "vte", "vet", "evt", "etv"])
def test_definitions_of_every_order_are_exact_to_the_byte(order: str) -> None:
    reordered = by_subset(build(task_of(60, order), 0), "definition")
    for name, records in by_subset(build(task_of(60), 0), "definition").items():
        for plain, record in zip(records, reordered[name], strict=True):
            element = dict(zip("tve", words_of(plain), strict=True))
            first, second, third = (element[letter] for letter in order)
            assert (record.prompt, record.completion) == (f"{first} {second}", f" {third}\n")
            assert record.id == plain.id


def test_a_record_is_one_json_line_with_its_fields_in_order(small_records: list[Record]) -> None:
    record = next(record for record in small_records if record.kind == "qa")
    assert serialize([record]) == (
        f'{{"id": "{record.id}", "subset": "{record.subset}", "split": "{record.split}", "kind": "qa", '
        f'"prompt": "Q: {record.group} {record.variable}\\nA:", "completion": " {record.answers[0]}\\n", '
        f'"answers": ["{record.answers[0]}"], "entity": "{record.entity}", "variable": "{record.variable}", '
        f'"group": "{record.group}"}}\n'
    )


def test_bytes_are_the_same_in_processes_with_different_hash_seeds(small_task: Task) -> None:
    code = (
        "import sys; from ocl_bench.tasks.build import build; from ocl_bench.tasks.records import *\n"
        "from ocl_bench.tasks.schema import Task\n"
        "print(dataset_sha256(build(Task.model_validate_json(sys.stdin.read()), 3, 1)))"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            input=small_task.model_dump_json(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for hash_seed in ("0", "12345")
    }
    assert hashes == {dataset_sha256(build(small_task, 3, 1))}


def test_chance_is_one_over_the_number_of_values(small_task: Task) -> None:
    levels = chance_levels(small_task)
    assert {group: level for (kind, group), level in levels.items() if kind == "qa"} == dict.fromkeys(GROUPS, 0.1)


def test_records_are_not_searched_for_cycles_while_they_are_made() -> None:
    """Each search looks through all that there are by then, so that building would not be linear."""
    task, searches = load_task("attributes"), list[str]()

    def note(phase: str, about: object) -> None:
        searches.append(phase)

    gc.collect()
    gc.callbacks.append(note)
    try:
        build(task, 0)
    finally:
        gc.callbacks.remove(note)
    assert searches.count("start") <= 2 and gc.isenabled()  # one may be due at the end


class Odd:
    """A source that gives what it should not."""

    Args = Contract
    given: tuple[Entity, ...] = ()

    def entities(self, args: Contract) -> list[Entity]:
        return [*self.given]


@pytest.mark.parametrize(
    ("entity", "said"),
    [
        (Entity("Ada", (Question("age", "How old is {entity}?", (36,), 0.1),)), "36, of the entity 'Ada', is no text"),
        (Entity(7, ()), "7, of the entity 7, is no text"),
        (Entity("Ada", (Question("age", "How old is {entity}?", (), 0.1),)), "has the answers (); give a tuple"),
        (Entity("Ada", (Question("age", "How old is {entity}?", ["36"], 0.1),)), "about 'Ada' has the answers ['36']"),
    ],
)  # fmt: skip
def test_a_source_that_gives_no_text_is_named(entity: Entity, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES._entries, "odd", f"{__name__}:Odd")
    monkeypatch.setattr(Odd, "given", (entity,))
    with pytest.raises(OclBenchError, match=re.escape(said)):
        build(task_of(40).model_copy(update={"source": "odd", "source_args": {}}), 0)
