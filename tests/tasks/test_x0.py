"""X0 teaches facts and aliases that one model can have learned for every seed."""

from collections import Counter, defaultdict

import pytest

from ocl_bench.errors import OclBenchError
from ocl_bench.models.word_level import vocabulary
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, dataset_sha256, texts

TASK = load_task("world", ["source_args.num_entities=20"])


def of(records: list[Record], split: str, kind: str, subset: str = "") -> list[Record]:
    return [one for one in records if (one.split, one.kind) == (split, kind) and one.subset.startswith(subset)]


def test_every_seed_has_the_same_x0_and_the_same_words_and_another_x0_seed_has_another() -> None:
    first, second = build(TASK, 0), build(TASK, 1, stage2_seed=3)
    x0 = [[one for one in records if one.subset.startswith("x0")] for records in (first, second)]
    assert dataset_sha256(x0[0]) == dataset_sha256(x0[1])
    assert vocabulary(texts(first)) == vocabulary(texts(second))
    assert {one.variable for one in of(first, "x2", "definition")} != {
        one.variable for one in of(second, "x2", "definition")
    }
    other = [one for one in build(TASK, 0, x0_seed=1) if one.subset.startswith("x0")]
    assert dataset_sha256(other) != dataset_sha256(x0[0])


def test_all_facts_are_taught_and_of_every_alias_all_but_one_which_is_asked() -> None:
    records = build(TASK, 0)
    facts = of(records, "x0", "qa", "x0_facts")
    assert len(facts) == 20 * 6
    assert {(one.prompt, one.answers) for one in facts} == {
        (one.prompt, one.answers) for one in of(records, "test", "recall", "x0_facts")
    }
    known = {(one.entity, one.group): one.answers for one in facts}
    taught, asked = of(records, "x0", "qa", "x0_aliases"), of(records, "test", "qa", "x0_aliases")
    assert all(known[one.entity, one.group] == one.answers for one in (*taught, *asked))
    groups = defaultdict(list)
    for one in taught:
        groups[one.variable].append(one.group)
    assert len(groups) == 20 * 8 and all(len(own) == 5 for own in groups.values())
    assert Counter(one.variable for one in asked) == dict.fromkeys(groups, 1)
    assert all(one.group not in groups[one.variable] for one in asked)


def test_definitions_of_x0_name_the_entity_behind_tags_that_nothing_else_has() -> None:
    records = build(TASK, 0)
    told = of(records, "x0", "definition")
    assert Counter(one.variable for one in told).most_common(1)[0][1] == TASK.design.x0.definitions == 2
    entity_of = {one.variable: one.entity for one in of(records, "x0", "qa", "x0_aliases")}
    assert all(one.completion.strip() == entity_of[one.variable] for one in told)
    tags = {one.prompt.split()[0] for one in told}
    later = {one.prompt.split()[0] for split in ("x1", "x2") for one in of(records, split, "definition")}
    assert len(tags) == 5 and len(later) == 3 and not tags & later


def test_variables_of_x1_and_x2_are_four_for_each_entity_and_no_aliases() -> None:
    records = build(TASK, 0)
    aliases = {one.variable for one in records if one.subset == "x0_aliases"}
    variables = {
        (one.entity, one.variable) for one in records if not one.subset.startswith("x0") and "swapped" not in one.subset
    }
    assert Counter(entity for entity, _ in variables) == dict.fromkeys({entity for entity, _ in variables}, 4)
    assert len(variables) == 80 and not aliases & {variable for _, variable in variables}
    false = of(records, "x1", "definition", "d2_incons")
    assert false and all(one.completion.strip() != one.entity for one in false)


def test_a_question_has_all_values_of_its_group_for_options_or_the_right_one_and_others() -> None:
    for one in of(build(TASK, 0), "test", "qa"):
        assert one.answers[0] in one.options and len(set(one.options)) == len(one.options)
    few = build(load_task("world", ["source_args.num_entities=20", "evaluate.options=4"]), 0)
    drawn = of(few, "test", "qa")
    assert all(len(one.options) == 4 and one.answers[0] in one.options for one in drawn)
    assert len({one.options for one in drawn if one.group == "home"}) > 10
    assert all(not one.options for one in few if one.split != "test")
    none = load_task("attributes", ["evaluate.options=null"])
    assert [one for one in build(none, 0) if one.options] == []


def test_no_option_is_another_right_answer() -> None:
    answers = {
        one.id: (one.answers, one.options) for one in build(load_task("cvdb_sample"), 0) if one.group == "nationality"
    }
    several = {own: options for own, options in answers.values() if len(own) > 1 and options}
    assert several
    for own, options in several.items():
        assert [option for option in options if option in own] == [own[0]]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("stages=[{name: x1, train: [x1], replay: {x1/qa: 1}}]", "'x1/qa' is in train or replay twice; leave one out"),
        ("stages=[{name: x1, train: [x1], replay: {x9: 1}}]", "unknown training data 'x9'"),
        ("stages=[{name: x1, train: [x1], replay: {x0: 0}}]", "greater than 0"),
        ("design.x0=null", "'x0' trains on 'x0', but no subset of design.fractions provides it"),
        ("design.x0.aliases=0", "greater than or equal to 1"),
        ("seeds=1000000000000", "seeds: input should be less than or equal to 1000"),
        ("design.variables_per_entity=1000000000", "less than or equal to 1000"),
        ("design.x0.tags=1000000000", "less than or equal to 1000"),
        ("stages=[{name: x1, train: [x1], replay: {x0: 1e9}}]", "less than or equal to 1000"),
        ("evaluate.options=1", "greater than or equal to 2"),
        ("recipe.learning_rate=[1e-3]", "unknown key 'recipe.learning_rate'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(OclBenchError) as caught:
        load_task("world", [override])
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
