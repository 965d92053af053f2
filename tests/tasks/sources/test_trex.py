"""T-REx: the paper's questions about creative works, from shards as they are published."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ocl_bench.cli import main
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.sources import trex
from ocl_bench.tasks.sources.trex import TrexSource, table_2, works

FACTS = [("P50", "Jane Doe"), ("P577", "12 May 1813"), ("P407", "English"), ("P136", "novel")]


def document(name: str, facts: list[tuple[str, str]]) -> dict[str, Any]:
    triples = [
        {
            "sentence_id": 0,
            "subject": {"boundaries": [0, 4], "surfaceform": name, "uri": "http://www.wikidata.org/entity/Q1"},
            "predicate": {"surfaceform": None, "uri": f"http://www.wikidata.org/prop/direct/{predicate}"},
            "object": {"boundaries": [5, 9], "surfaceform": thing, "uri": "http://www.wikidata.org/entity/Q2"},
            "annotator": "x",
        }
        for predicate, thing in facts
    ]
    return {"docid": "Q1", "title": name, "text": f"{name} …", "entities": [], "triples": triples}


def write(path: Path, *shards: list[dict[str, Any]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, documents in enumerate(shards):
            archive.writestr(f"re-nlg_{number * 10000}-{(number + 1) * 10000}.json", json.dumps(documents))
    return path


def questions(path: Path, count: int = 1) -> dict[str, dict[str, list[str]]]:
    rows = works(path, count).to_pylist()
    return {row["name"]: {one["group"]: one["answers"] for one in row["questions"]} for row in rows}


def test_table_2_is_the_papers() -> None:
    table = table_2()
    assert len(table) == 26
    assert [table[name].question for name in ("P180", "P577", "P88", "P86", "P915")] == [
        "What does {entity} depict?",
        "When was {entity} published or released?",
        "First name of the commissioner of {entity}?",
        "First name of the composer for {entity}?",
        "Where was {entity} filmed?",
    ]
    assert all(template.question.count("{entity}") == 1 for template in table.values())
    assert table["P407"].question == table["P364"].question
    assert table["P1040"].question == table["P98"].question


def test_a_work_gets_first_names_and_anonymised_years_in_the_tables_order(tmp_path: Path) -> None:
    path = write(tmp_path / "t.zip", [document("Great Book (novel)", FACTS)])
    found = questions(path)
    assert found == {
        "Great Book": {"language": ["English"], "date": ["19 century"], "author": ["Jane"], "genre": ["novel"]}
    }
    assert list(found["Great Book"]) == ["language", "date", "author", "genre"]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ([*FACTS, ("P136", "satire"), ("P136", "novel")], {"genre": ["novel", "satire"]}),  # several objects
        ([*FACTS, ("P364", "French")], {"language": ["English", "French"]}),  # two predicates, one question
        ([*FACTS, ("P31", "book"), ("P999", "x")], {}),  # not in the table
        ([*FACTS, ("P57", "Jane Roe")], {}),  # the answer of an earlier question
        ([*FACTS, ("P57", "Ann Roe")], {"author": ["Jane"], "director": ["Ann"], "genre": ["novel"]}),
        ([*FACTS, ("P57", "Sting"), ("P58", "A Roe")], {"director": None, "screenwriter": None}),  # no first names
        ([*FACTS, ("P136", "They"), ("P123", "it"), ("P86", "She")], {"genre": ["novel"], "publisher": None}),
        ([("P577", "long ago"), ("P577", "in 1923"), FACTS[0], *FACTS[2:]], {"date": ["1920s"]}),
        ([("P577", "2004"), FACTS[0], *FACTS[2:]], {"date": ["2004"]}),
    ],
)
def test_objects_become_answers(
    facts: list[tuple[str, str]], expected: dict[str, list[str] | None], tmp_path: Path
) -> None:
    (found,) = questions(write(tmp_path / "t.zip", [document("Book", facts)])).values()
    assert len(found) >= 4
    assert {group: found.get(group) for group in expected} == expected


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("It", FACTS),
        ("he", FACTS),
        ("(2004)", FACTS),
        ("A <|b|>", FACTS),
        ("Short", FACTS[:3]),
        ("Undated", [("P577", "long ago"), FACTS[0], *FACTS[2:]]),
        ("By somebody", [("P50", "Plato"), *FACTS[1:]]),
        ("By her", [("P50", "her"), *FACTS[1:]]),
    ],
)
def test_pronouns_empty_names_and_works_with_fewer_answers_are_dropped(
    name: str, facts: list[tuple[str, str]], tmp_path: Path
) -> None:
    path = write(tmp_path / "t.zip", [document(name, facts), document("Book", FACTS)])
    assert list(questions(path)) == ["Book"]
    with pytest.raises(OclBenchError, match="only 1 works have 4 questions, and 2 are needed"):
        works(path, 2)


def test_a_work_of_one_word_is_kept(tmp_path: Path) -> None:
    assert list(questions(write(tmp_path / "t.zip", [document("Hamlet", FACTS)]))) == ["Hamlet"]


def test_works_are_taken_in_the_order_of_shard_numbers_and_names_differ_in_more_than_case(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for start, name in ((20000, "Third"), (0, "First"), (100000, "Fourth"), (10000, "Second")):
            archive.writestr(f"re-nlg_{start}-{start + 9}.json", json.dumps([document(name, FACTS)]))
        archive.writestr("re-nlg_5-6.json", json.dumps([document("FIRST", FACTS)]))
        archive.writestr("readme.txt", "x")
    assert list(questions(path, 4)) == ["First", "Second", "Third", "Fourth"]


def test_facts_of_a_work_are_gathered_from_all_shards(tmp_path: Path) -> None:
    path = write(tmp_path / "t.zip", [document("Book", FACTS[:2])], [document("Book", FACTS[2:])])
    assert len(questions(path)["Book"]) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "shard re-nlg_0-1.json is not T-REx's JSON"),
        ("not json", "shard re-nlg_0-1.json is not T-REx's JSON"),
        ('[{"text": "x"}]', "missing required field `triples`"),
        ('[{"triples": [{"subject": 1}]}]', "shard re-nlg_0-1.json is not T-REx's JSON"),
        ('{"triples": []}', "shard re-nlg_0-1.json is not T-REx's JSON"),
    ],
)
def test_a_shard_that_is_not_t_rex_is_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("re-nlg_0-1.json", content)
    with pytest.raises(OclBenchError, match=message) as error:
        works(path, 1)
    assert "\n" not in str(error.value)


def test_a_damaged_archive_or_one_without_shards_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.zip", [document(f"Book {number}", FACTS) for number in range(50)])
    content = path.read_bytes()
    for spoilt in (content[:-30], content[:100] + b"damage" + content[106:], b"", b"no archive"):
        path.write_bytes(spoilt)
        with pytest.raises(OclBenchError, match=r"is damaged|not T-REx's JSON"):
            works(path, 1)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.json", "[]")
    with pytest.raises(OclBenchError, match=r"no shard re-nlg_….json is in it"):
        works(path, 1)


def test_a_local_copy_becomes_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    shards = [[document(f"Book {shard} {number}", FACTS) for number in range(10)] for shard in range(6)]
    path = write(tmp_path / "t.zip", *shards)
    refused = CliRunner().invoke(main, ["data", "fetch", "trex", "--from", str(path)])
    assert "only 60 works have 4 questions, and 6900 are needed" in refused.stderr
    assert TrexSource().state() == "absent"
    monkeypatch.setattr(trex, "ENTITIES", 60)
    result = CliRunner().invoke(main, ["data", "fetch", "trex", "--from", str(path)])
    assert result.exit_code == 0, result.stderr
    task = load_task("trex", ("source_args.num_entities=60",))
    asked = {r.prompt.replace(r.variable, "X") for r in build(task, 0) if r.kind == "qa" and r.subset == "d1_cons"}
    assert asked == {
        "Q: In which language was X published?\nA:", "Q: When was X published or released?\nA:",
        "Q: First name of the author of X?\nA:", "Q: What is the genre of X?\nA:",
    }  # fmt: skip


def test_a_work_with_more_questions_keeps_four_drawn_by_a_seed_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trex, "ENTITIES", 40)
    many = [*FACTS, ("P57", "Ann Roe"), ("P123", "A Press"), ("P840", "Rome")]
    books = [document(f"Book {number}", many if number % 2 else FACTS) for number in range(40)]
    TrexSource().fetch(str(write(tmp_path / "t.zip", books)), lambda done, total: None)

    def asked(seed: int, size: int = 40) -> dict[str, list[str]]:
        entities = TrexSource().entities(TrexSource.Args(num_entities=size, question_seed=seed))
        return {entity.name: [question.group for question in entity.questions] for entity in entities}

    order = list(dict.fromkeys(template.group for template in table_2().values()))
    for groups in asked(0).values():
        assert len(set(groups)) == 4
        assert groups == sorted(groups, key=order.index)
    few = {"language", "date", "author", "genre"}
    assert all(set(groups) == few for name, groups in asked(0).items() if int(name.split()[1]) % 2 == 0)
    assert {group for groups in asked(0).values() for group in groups} == few | {"director", "publisher", "setting"}
    assert asked(0) == asked(0) != asked(1)
    assert asked(0, 10).items() <= asked(0).items(), "a smaller task asks the same of its works"
    default = TrexSource().entities(TrexSource.Args(num_entities=40))
    assert {one.name: [question.group for question in one.questions] for one in default} == asked(0)
