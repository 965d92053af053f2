"""Definitions in natural language and in context: exact texts, distinct phrasings, and refusals."""

import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.wording import Wording, split_text, tag_wording

VALUES = {
    "tag": "<|tttttt|>",
    "source": "the Post",
    "phrase": "is",
    "variable": "<|abcde|>",
    "entity": "red cube {entity}",
}
SAYS = (
    "{d1: {templates: ['According to {source}, {variable} {phrase} {entity}.'], sources: [the Post, the Times], "
    "phrases: [is, means]}, d2: {templates: ['{source} says that {variable} {phrase} {entity}.'], "
    "sources: [a stranger], phrases: [is, means, denotes]}}"
)
SMALL = "source_args.num_entities=60"
NO_D3 = "design.fractions={d1_cons_qa: .25, d2_incons_qa: .25, d1_cons: .2, d2_cons: .2, unseen: .1}"


@pytest.mark.parametrize(
    ("template", "prompt", "completion"),
    [
        ("{tag} {variable} {entity}", "<|tttttt|> <|abcde|>", " red cube {entity}\n"),
        ("{entity} {variable} {tag}", "red cube {entity} <|abcde|>", " <|tttttt|>\n"),
        (
            "According to {source}, {variable} {phrase} {entity}.",
            "According to the Post, <|abcde|> is",
            " red cube {entity}.\n",
        ),
        ("{variable} {phrase} {entity}, says {source}.", "<|abcde|> is", " red cube {entity}, says the Post.\n"),
        ("{tag} {variable} % {entity}", "<|tttttt|> <|abcde|> %", " red cube {entity}\n"),
    ],
)
def test_a_template_is_split_before_its_last_element_to_the_byte(template: str, prompt: str, completion: str) -> None:
    assert split_text(template, VALUES) == (prompt, completion)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"templates": ["{variable} is"]}, "needs {entity} exactly once"),
        ({"templates": ["{variable} {variable} {entity}"]}, "needs {variable} exactly once"),
        ({"templates": ["{variable} {verb} {entity}"]}, "a template knows tag, source"),
        ({"templates": ["{variable} {phrase} {entity}"]}, "there are no phrases"),
        ({"templates": ["{variable}{entity}"]}, "a space before its last"),
        ({"templates": []}, "at least 1"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused_with_the_reason(data: dict[str, list[str]], message: str) -> None:
    with pytest.raises(OclBenchError, match=message.replace("{", r"\{")):
        Wording.parse(data, "wording")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_each_tag_keeps_to_its_own_sources_and_phrasings_differ(seed: int) -> None:
    task = load_task("attributes", (SMALL, NO_D3, f"design.wording={SAYS}", "design.phrasings=3"))
    texts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in build(task, seed):
        if record.kind == "definition":
            assert record.completion == f" {record.answers[0]}.\n"
            assert record.variable in record.prompt
            texts[record.subset, record.variable].add(record.prompt + record.completion)
    assert all(len(found) == 3 for found in texts.values())
    for (subset, _), found in texts.items():
        reliable = subset.startswith("d1")
        assert all(text.startswith("According to the") == reliable for text in found)


def test_definitions_stand_in_front_of_their_questions_and_are_not_trained_on_alone() -> None:
    one_stage = "stages=[{name: x1, train: [x1]}]"
    plain = load_task("attributes", (SMALL, "evaluate.sets=[]"))
    task = load_task("attributes", (SMALL, "evaluate.sets=[]", "design.in_context=true", one_stage))
    definitions = {r.variable: r.prompt + r.completion for r in build(plain, 0) if r.kind == "definition"}
    questions = {r.id: r for r in build(plain, 0) if r.kind == "qa"}
    records = build(task, 0)
    assert {record.kind for record in records} == {"qa"}
    assert len(records) == len(questions)
    for record in records:
        assert record.prompt == definitions.get(record.variable, "") + questions[record.id].prompt
        assert record.split == questions[record.id].split
    assert not any(record.split == "x2" for record in records)


@pytest.mark.parametrize("name", ["sources", "sources_is_isnt", "sources_sample"])
def test_a_fifth_of_the_people_teach_how_questions_are_answered_and_the_rest_have_ten_definitions(name: str) -> None:
    assert load_task("sources").source_args == {"num_entities": 1000}
    task = load_task(name, ("source=cvdb_sample", "source_args={num_entities: 200}"))
    assert [stage.train for stage in task.stages] == [("x1", "x2")]
    asked, told = defaultdict(set), defaultdict(set)
    for record in build(task, 0):
        if record.split == "test":
            continue
        trained_on = asked if record.kind == "qa" else told
        trained_on[record.subset, record.variable].add(record.prompt + record.completion)
    assert Counter(subset for subset, _ in asked) == {"qa_only": 20, "qa_unreplaced": 20}
    assert {len(questions) for questions in asked.values()} == {5}
    assert Counter(subset for subset, _ in told) == {"d1_cons": 80, "d2_cons": 80}
    assert {len(definitions) for definitions in told.values()} == {10}


def test_is_and_is_not_differ_in_the_phrase_alone() -> None:
    task = load_task("sources_is_isnt", ("source=cvdb_sample", "source_args.num_entities=200"))
    one, two = (task.design.wording_of(tag) for tag in (1, 2))
    assert (one.templates, one.sources) == (two.templates, two.sources)
    assert len(one.phrases) == len(two.phrases)
    assert not any(" not" in phrase for phrase in one.phrases)
    assert all(" not" in phrase for phrase in two.phrases)
    for record in build(task, 0):
        if record.kind == "definition":
            assert record.entity in record.completion, "the person is named, and denied to be it"
            assert (" not" in record.prompt) == (record.subset == "d2_cons")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((f"design.wording={SAYS}",), "wording has no 'd3', which 'd3_cons' needs"),
        ((NO_D3, f"design.wording={SAYS}", "design.phrasings=5"), "phrasings is 5, but 'd1_cons_qa' has 4 wordings"),
        (
            (
                "design.fractions={random_tag_qa: .5, d2_cons: .5}",
                "design.wording={d2: {templates: ['{variable} {entity}']}}",
            ),
            "wording has no 'd1', which 'random_tag_qa' needs",
        ),
        (("design.phrasings=2",), "phrasings is 2, but 'd1_cons_qa' has 1 wordings"),
        (("design.in_context=true", "evaluate.sets=[]"), "'x2' trains on 'x2', but no subset"),
        (
            ("design.fractions={random_tag_qa: .5, d1_cons: .5}", f"design.wording={SAYS}"),
            "'random_tag_qa' needs texts with {tag}",
        ),
        (("design.question_format=Q",), "needs {question} exactly once"),
        (("design.variable_style=letters",), "set tag_style to define"),
        (("design.variable_style=short",), "design.variable_style"),
        (("evaluate.sets=[swapped, swapped]",), "a set is there twice"),
        (("evaluate.attribution.who=Who?",), "a question with {variable} once"),
        (("evaluate.sets=[atribution]",), "evaluate.sets"),
    ],
)
def test_a_design_that_does_not_fit_together_is_refused_with_the_reason(
    overrides: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(OclBenchError, match=message.replace("{", r"\{").replace("[", r"\[")):
        load_task("attributes", overrides)


def test_what_introduces_a_variable_is_found_in_every_text_that_was_made() -> None:
    rng = random.Random(0)
    for order in ("tve", "evt", "vte"):
        (text,) = tag_wording(order).texts("<|abcdef|>", "<|xyz|>", "Ada (of) Lovelace", rng, 1)
        assert tag_wording(order).introduction("".join(text), "<|xyz|>", "Ada (of) Lovelace") == "<|abcdef|>"
    wording = Wording(
        templates=("According to {source}, {variable} {phrase} {entity}.", '{source} has "{entity}" for {variable}'),
        sources=("a fortune cookie", "a fortune cookie factory"),
        phrases=("is", "is not"),
    )
    for template, source, phrase in wording.combinations():
        made = split_text(template, {"source": source, "phrase": phrase, "variable": "xyz", "entity": "Ada"})
        assert wording.introduction("".join(made), "xyz", "Ada") == source
    phrased = Wording(templates=("{entity} {phrase} {variable}",), phrases=("is", "became"))
    assert phrased.introduction("Ada became xyz\n", "xyz", "Ada") == "became"
    assert phrased.introduces and not Wording(templates=("{variable} is {entity}",)).introduces
