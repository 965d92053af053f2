"""Creative works: triples of T-REx (Elsahar et al. 2018) about them, as questions (the paper's appendix A.2)."""

import random
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import yaml
from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.sources import Entity, Question
from ocl_bench.tasks.sources.published import PublishedData, RemoteFile
from ocl_bench.tasks.sources.years import year_text

if TYPE_CHECKING:
    import pyarrow as pa

ENTITIES = 6900
QUESTIONS = 4
TABLE_2 = Path(__file__).parent / "trex_questions.yaml"

SHARD = re.compile(r"(?:.*/)?re-nlg_(\d+)-\d+\.json")
PARENTHESES = re.compile(r"\s*\([^()]*\)")
YEAR = re.compile(r"(?<!\d)\d{4}(?!\d)")
PRONOUNS = frozenset(
    {"he", "she", "it", "they", "we", "i", "you", "him", "her", "them", "this", "that", "who", "which"}
)


class Template(Contract):
    """A row of Table 2."""

    predicate: str = Field(pattern=r"^P\d+$", description="Wikidata's id of the predicate")
    group: str = Field(description="the question's name")
    question: str = Field(description="the question, with {entity}")
    answer: Literal["text", "year", "first_name"] = Field(description="what of the object is the answer")


def table_2() -> dict[str, Template]:
    """Predicate → its question, in the order of the paper's table."""
    rows = yaml.safe_load(TABLE_2.read_text(encoding="utf-8"))
    templates = [Template.parse(row, str(TABLE_2)) for row in rows]
    return {template.predicate: template for template in templates}


class TrexSource(PublishedData):
    """Works such as `The Hunting Party`, questions such as `First name of the author of The Hunting Party?`."""

    name = "trex"
    # No digest that we could check is known to us; the shards' own structure is checked.
    files = (RemoteFile("https://figshare.com/ndownloader/files/8760241", "TREx_json.zip"),)
    table_version = 2
    small = "cvdb_sample"

    class Args(Contract):
        num_entities: int = Field(ENTITIES, ge=2, le=ENTITIES, description="works, those found first")
        # Not the dataset's seed: what is known of the works is the same for all of a task's seeds.
        question_seed: int = Field(0, description="decides which four questions a work with more of them keeps")

    def prepare(self, *raw: Path) -> "pa.Table":
        """The first 6900 works that have four questions, with all of their questions."""
        return works(raw[0], ENTITIES)

    def entities(self, args: Args) -> list[Entity]:
        """Works in the order in which the corpus names them. Chance is the share of a question's commonest answer."""
        works = self.table().slice(0, args.num_entities).to_pylist()
        rows = [row | {"questions": _four(row["name"], row["questions"], args.question_seed)} for row in works]
        questions = {template.group: template.question for template in table_2().values()}
        first = Counter((one["group"], one["answers"][0]) for row in rows for one in row["questions"])
        asked = Counter(one["group"] for row in rows for one in row["questions"])
        best: Counter[str] = Counter()
        for (group, _), times in first.items():
            best[group] = max(best[group], times)

        def question(one: dict[str, Any]) -> Question:
            group = one["group"]
            return Question(group, questions[group], tuple(one["answers"]), best[group] / asked[group])

        return [Entity(row["name"], tuple(map(question, row["questions"]))) for row in rows]


class _Node(msgspec.Struct):
    surfaceform: str | None
    uri: str | None = None


class _Triple(msgspec.Struct):
    subject: _Node
    predicate: _Node
    object: _Node


class _Document(msgspec.Struct):
    triples: list[_Triple]


def works(raw: Path, count: int) -> "pa.Table":
    """Read T-REx (its zip of JSON shards) and choose works with four questions or more.

    Shards are read one after the other, without unpacking the archive.

    Returns:
        A table of `count` rows in order of first appearance: name, and a list of questions in the order of the
        paper's table, each with its group and its answers.

    Raises:
        OclBenchError: if the file is damaged or not T-REx, or has too few such works.
    """
    found: dict[str, dict[str, list[str]]] = {}
    templates = table_2()
    for subject, predicate, thing in _triples(raw, frozenset(templates)):
        name = _plain(subject)
        template = templates[predicate]
        answer = _answer(thing, template.answer)
        if not _is_name(name) or answer is None:
            continue
        answers = found.setdefault(name, {}).setdefault(template.group, [])
        if answer not in answers:
            answers.append(answer)
    order = list(dict.fromkeys(template.group for template in templates.values()))
    rows, taken = [], set()
    for name, groups in found.items():
        questions = _questions(groups, order)
        # The paper also drops subjects that are named once, which can have no four questions.
        if len(questions) >= QUESTIONS and name.lower() not in taken:
            taken.add(name.lower())
            rows.append({"name": name, "questions": questions})
    if len(rows) < count:
        raise OclBenchError(
            f"{raw}: only {len(rows)} works have {QUESTIONS} questions, and {count} are needed; "
            "the file is not complete."
        )
    import pyarrow as pa

    question = pa.struct([("group", pa.string()), ("answers", pa.list_(pa.string()))])
    schema = pa.schema([("name", pa.string()), ("questions", pa.list_(question))])
    return pa.Table.from_pylist(rows[:count], schema=schema)


def _triples(raw: Path, predicates: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    """Subject, predicate and object of every triple with one of the predicates, shard by shard."""
    decoder = msgspec.json.Decoder(list[_Document])
    try:
        with zipfile.ZipFile(raw) as archive:
            shards = sorted((int(match[1]), name) for name in archive.namelist() if (match := SHARD.fullmatch(name)))
            if not shards:
                raise OclBenchError(f"{raw}: no shard re-nlg_….json is in it; give T-REx's JSON archive.")
            for _, shard in shards:
                try:
                    documents = decoder.decode(archive.read(shard))
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise OclBenchError(f"{raw}: shard {shard} is not T-REx's JSON ({error}).") from None
                for document in documents:
                    for triple in document.triples:
                        predicate = (triple.predicate.uri or "").rpartition("/")[2]
                        if predicate in predicates and triple.subject.surfaceform and triple.object.surfaceform:
                            yield triple.subject.surfaceform, predicate, triple.object.surfaceform
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise OclBenchError(f"{raw}: the archive is damaged ({error}); fetch it again.") from None
    except OSError as error:
        raise OclBenchError(f"{raw}: cannot be read ({error.strerror or error}).") from None


def _plain(text: str) -> str:
    """Without parentheses and extra white space."""
    return " ".join(PARENTHESES.sub("", text).split())


def _is_name(name: str) -> bool:
    return bool(name) and name.lower() not in PRONOUNS and "<|" not in name


def _answer(thing: str, kind: str) -> str | None:
    """The answer that an object gives; None if it gives none."""
    text = _plain(thing)
    if text.lower() in PRONOUNS:
        return None
    if kind == "year":
        match = YEAR.search(text)
        return year_text(int(match[0])) if match else None
    if kind == "first_name":
        first, _, last = text.partition(" ")
        # A name of one word may be a surname, or a band's; one letter is an initial.
        return first if last and len(first) > 1 else None
    return text or None


def _questions(groups: dict[str, list[str]], order: list[str]) -> list[dict[str, Any]]:
    """A work's questions in the table's order, none with the first answer of an earlier one."""
    chosen: list[dict[str, Any]] = []
    for group in order:
        answers = groups.get(group)
        if answers and answers[0] not in [one["answers"][0] for one in chosen]:
            chosen.append({"group": group, "answers": answers})
    return chosen


def _four(name: str, questions: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Four questions of a work, drawn by seed and name so that the other works do not matter; in the table's order."""
    drawn = random.Random(f"trex {seed} {name}").sample(range(len(questions)), QUESTIONS)
    return [questions[number] for number in sorted(drawn)]
