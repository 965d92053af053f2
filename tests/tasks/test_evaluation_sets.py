"""Attribution, the bare variable, cloze and swapped variables: exact texts, right answers, only in the test."""

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from ocl_bench.tasks.build import build, chance_levels
from ocl_bench.tasks.load import all_tasks, load_task
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.subsets import SUBSETS, SWAPPED

EVERY_SET = "evaluate.sets=[attribution, bare_variable, cloze, swapped]"
UNREPLACED = (
    "design.fractions={d1_cons_qa: .2, d2_incons_qa: .2, qa_unreplaced: .1, d1_cons: .15, d2_cons: .15, unseen: .2}"
)
PHRASINGS = {
    "who": "Who is {}?",
    "mean": "What does {} mean?",
    "stand_for": "What does {} stand for?",
    "name": "What is the name of {}?",
}


def records_of(size: int, seed: int = 0, *more: str) -> list[Record]:
    return build(load_task("attributes", (f"source_args.num_entities={size}", UNREPLACED, EVERY_SET, *more)), seed)


def test_the_sets_add_tests_and_change_nothing_else() -> None:
    plain = build(load_task("attributes", ("source_args.num_entities=60", UNREPLACED, "evaluate.sets=[]")), 0)
    with_sets = records_of(60)
    ids = {record.id for record in plain}
    assert [record for record in with_sets if record.id in ids] == plain
    assert {record.split for record in with_sets if record.id not in ids} == {"test"}
    assert len({record.id for record in with_sets}) == len(with_sets)


def test_attribution_asks_in_the_papers_four_phrasings_and_scores_inconsistent_definitions_twice() -> None:
    records = records_of(60)
    named = {r.variable: r.answers[0] for r in records if r.kind == "definition"}
    asked: Counter[tuple[str, str]] = Counter()
    for record in records:
        if not record.kind.startswith("attribution") or "swapped" in record.subset:
            continue
        asked[record.subset, record.kind] += 1
        assert record.prompt == f"Q: {PHRASINGS[record.group].format(record.variable)}\nA:"
        own = record.kind == "attribution_qa" or record.variable not in named
        assert record.answers == (record.entity if own else named[record.variable],)
        assert record.completion == f" {record.answers[0]}\n"
    assert asked == {
        ("d1_cons_qa", "attribution"): 48,
        ("d2_incons_qa", "attribution"): 48,
        ("d2_incons_qa", "attribution_qa"): 48,
        ("d1_cons", "attribution"): 36,
        ("d2_cons", "attribution"): 36,
        ("unseen", "attribution"): 48,
    }


def test_the_bare_variable_is_the_whole_prompt() -> None:
    found = [record for record in records_of(60) if record.kind == "bare_variable" and "swapped" not in record.subset]
    assert all(record.prompt == record.variable for record in found)
    assert Counter(record.subset for record in found)["d1_cons"] == 9


def test_cloze_asks_each_tags_wording_up_to_its_last_element() -> None:
    records = records_of(60)
    definitions = {r.variable: r for r in records if r.kind == "definition"}
    tags = {r.subset[:2]: r.prompt.split()[0] for r in definitions.values()}
    for record in records:
        if record.kind == "cloze" and "swapped" not in record.subset:
            assert record.prompt == f"{tags[record.group]} {record.variable}"
            definition = definitions.get(record.variable)
            assert record.answers == ((definition.answers[0] if definition else record.entity),)
    assert {r.group for r in records if r.kind == "cloze"} == {"d1", "d2"}  # no subset has tag 3


@settings(max_examples=20, deadline=None)
@given(st.integers(40, 81), st.integers(0, 2**32))
def test_swapped_asks_each_members_questions_of_another_members_variable(size: int, seed: int) -> None:
    records = records_of(size, seed)
    variable_of = {record.entity: record.variable for record in records if record.subset in SUBSETS}
    entities: dict[str, set[str]] = defaultdict(set)
    partners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for record in records:
        if record.subset in SWAPPED:
            entities[SWAPPED[record.subset].id].add(record.entity)
        elif record.subset.endswith("_swapped"):
            assert record.split == "test"
            assert record.kind != "definition"
            assert record.variable in record.prompt
            assert record.variable != variable_of[record.entity]
            assert variable_of[record.entity] not in record.prompt
            partners[record.subset].add((record.entity, record.variable))
    assert set(partners) == {"d1_swapped", "d2_swapped"}
    for control, pairs in partners.items():
        assert {entity for entity, _ in pairs} == entities[control]  # nobody is left out
        assert {variable for _, variable in pairs} == {variable_of[entity] for entity in entities[control]}
        assert len(pairs) == len(entities[control])


def test_the_swapped_control_is_asked_by_default_where_there_is_an_x2_to_learn() -> None:
    tasks = [one.task for one in all_tasks()]
    taught = [task for task in tasks if task.first_x2_stage < len(task.stages)]
    assert [task.task for task in taught if "swapped" not in task.evaluate.sets] == []
    assert {task.task for task in tasks} - {task.task for task in taught} == {"six_stages"}


def test_swapped_variables_are_asked_about_from_the_stage_on_that_teaches_which_are_swapped() -> None:
    task = load_task("world")
    asked = [[subset for subset in ("x0_aliases", "d1_cons", "d1_swapped") if task.asks(n, subset)] for n in range(3)]
    assert asked == [["x0_aliases"], ["d1_cons"], ["d1_cons", "d1_swapped"]]
    single = load_task("sources")
    assert len(single.stages) == 1 and single.asks(0, "d2_swapped")


def test_every_question_has_a_chance_level() -> None:
    task = load_task("attributes", ("source_args.num_entities=60", EVERY_SET))
    levels = chance_levels(task)
    assert {(record.kind, record.group) for record in build(task, 0) if record.split == "test"} <= set(levels)
    assert levels["attribution", "name"] == 1 / 60
