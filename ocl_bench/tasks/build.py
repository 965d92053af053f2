"""Build a task's records: a pure function of the task file, the source's data, the seed and the stage-2 seed."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.evaluation_sets import asked_about, swapped
from ocl_bench.tasks.load import source_args
from ocl_bench.tasks.names import Names, draw_names
from ocl_bench.tasks.records import Kind, Record, answer_text
from ocl_bench.tasks.schema import Design, Task
from ocl_bench.tasks.sources import SOURCES, Entity, Question
from ocl_bench.tasks.subsets import SUBSETS, Split, Subset, deal, derangement, subset_sizes


def build(task: Task, seed: int, stage2_seed: int = 0) -> list[Record]:
    """Build every record of `task`, in an order that depends on nothing but the arguments.

    Args:
        task: a validated task.
        seed: decides variables, tags, subsets, held-out questions and inconsistent definitions.
        stage2_seed: re-deals the entities of the X2 subsets; everything else stays as it is.

    Raises:
        OclBenchError: if a subset would be empty, or trains on questions that the source does not have.
    """
    entities = load_entities(task)
    sizes = subset_sizes(task.design.fractions, task.design.alpha, len(entities))
    _require_questions(task, sizes, entities)
    names = draw_names(
        seed, len(entities), task.design.variable_style, task.design.tag_style, _texts(task.design, entities)
    )
    records: list[Record] = []
    for subset_name, numbers in deal(sizes, seed, stage2_seed).items():
        members = _members(task.design, SUBSETS[subset_name], numbers, entities, names, seed)
        for member in members:
            records.extend(member.records())
            records.extend(asked_about(task, member))
        if "swapped" in task.evaluate.sets:
            records.extend(swapped(task, members))
    return sorted(records, key=lambda record: ("x1", "x2", "test").index(record.split))


def load_entities(task: Task) -> list[Entity]:
    """The source's entities. Raises OclBenchError if the source cannot provide what the task asks for."""
    entities: list[Entity] = SOURCES.load(task.source)().entities(source_args(task))
    return entities


def _require_questions(task: Task, sizes: dict[str, int], entities: list[Entity]) -> None:
    least = min(len(entity.questions) for entity in entities)
    for name in sizes:
        if SUBSETS[name].qa and least < 2:
            raise OclBenchError(
                f"design.fractions: '{name}' trains on questions and holds some out, but source '{task.source}' has "
                f"an entity with {least}; set its fraction to 0."
            )


def _texts(design: Design, entities: list[Entity]) -> Iterator[str]:
    """Everything that a variable or tag must not occur in."""
    yield design.question_format
    for wording in (design.wording or {}).values():
        yield from (*wording.templates, *wording.sources, *wording.phrases)
    for entity in entities:
        yield entity.name
        for question in entity.questions:
            yield question.template
            yield from question.answers


@dataclass(frozen=True)
class Member:
    """An entity in a subset: its variable, what its definition says, and which of its questions are the test.

    Attributes:
        number: of the entity in its source.
        named: the entity that the definition names; another than `entity` where definitions are inconsistent.
        tag: the text of its own define tag; empty where the subset has no definitions.
        tags: the texts of the dataset's three define tags.
    """

    design: Design
    subset: Subset
    number: int
    entity: Entity
    named: Entity
    variable: str
    tag: str
    tags: list[str]
    held_out: frozenset[int]
    seed: int

    @cached_property
    def definitions(self) -> list[tuple[str, str]]:
        """Prompt and completion of each of its definitions."""
        if self.subset.tag is None:
            return []
        rng = random.Random(f"wording {self.subset.id} {self.number} {self.seed}")
        wording = self.design.wording_of(self.subset.tag)
        return wording.texts(self.tag, self.variable, self.named.name, rng, self.design.phrasings)

    def context(self, number: int) -> str:
        """What stands in front of its `number`-th question."""
        if not self.design.in_context or not self.definitions:
            return ""
        return "".join(self.definitions[number % len(self.definitions)])

    def records(self) -> Iterator[Record]:
        """Its definitions, then its questions: all but the held-out ones are trained on, or, without training, none."""
        if not self.design.in_context:
            for number, (prompt, completion) in enumerate(self.definitions):
                suffix = f"/{number}" if len(self.definitions) > 1 else ""
                yield self.record("definition", prompt, completion, (self.named.name,), suffix=suffix)
        seen: Counter[str] = Counter()  # a source may ask several questions of one group
        for number, question in enumerate(self.entity.questions):
            tested = not self.subset.qa or number in self.held_out
            repeated = f"/{seen[question.group]}" if seen[question.group] else ""
            seen[question.group] += 1
            yield self.question(question, number, self.subset.split if not tested else "test", repeated)

    def question(self, question: Question, number: int, split: Split, suffix: str = "") -> Record:
        """One of its questions, with its variable in place of the entity."""
        mention = self.variable if self.subset.replaced else self.entity.name
        text = question.template.replace("{entity}", mention)
        prompt = self.context(number) + self.design.question_format.replace("{question}", text)
        completion = answer_text(question.answers[0])
        return self.record("qa", prompt, completion, question.answers, question.group, split, suffix)

    def record(
        self,
        kind: Kind,
        prompt: str,
        completion: str,
        answers: tuple[str, ...],
        group: str = "",
        split: Split | None = None,
        suffix: str = "",
    ) -> Record:
        """A record about this member."""
        return Record(
            id=f"{self.subset.id}/{kind}/{self.number}{'/' if group else ''}{group}{suffix}",
            subset=self.subset.id,
            split=split or self.subset.split,
            kind=kind,
            prompt=prompt,
            completion=completion,
            answers=answers,
            entity=self.entity.name,
            variable=self.variable,
            group=group,
        )


def _members(
    design: Design, subset: Subset, numbers: list[int], entities: list[Entity], names: Names, seed: int
) -> list[Member]:
    rng = random.Random(f"{subset.id} {seed}")
    named = numbers if subset.consistent else derangement(numbers, [entities[n].name for n in numbers], rng)
    members = []
    for number, named_number in zip(numbers, named, strict=True):
        tag = ""
        if subset.tag is not None:
            tag = names.random_tags[number] if subset.tag == "random" else names.tags[subset.tag - 1]
        held_out = _held_out(entities[number], rng) if subset.qa else frozenset()
        members.append(
            Member(
                design=design,
                subset=subset,
                number=number,
                entity=entities[number],
                named=entities[named_number],
                variable=names.variables[number],
                tag=tag,
                tags=names.tags,
                held_out=held_out,
                seed=seed,
            )
        )
    return members


def _held_out(entity: Entity, rng: random.Random) -> frozenset[int]:
    """Numbers of the questions that are the test: those that the source marks, or one at random."""
    marked = frozenset(number for number, question in enumerate(entity.questions) if question.held_out)
    return marked or frozenset({rng.randrange(len(entity.questions))})


def chance_levels(task: Task) -> dict[tuple[str, str], float]:
    """Kind and group of a question → accuracy of the best guess that does not look at the entity."""
    entities = load_entities(task)
    levels = {("qa", question.group): question.chance for entity in entities for question in entity.questions}
    guess = max(Counter(entity.name for entity in entities).values()) / len(entities)
    for kind in ("attribution", "attribution_qa"):
        levels |= {(kind, name): guess for name in task.evaluate.attribution}
    levels |= {("cloze", f"d{tag}"): guess for tag in (1, 2, 3)}
    return levels | {("bare_variable", ""): guess}
