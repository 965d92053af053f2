"""The member: an entity in a subset, and the records about it."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from msgspec.structs import replace

from ocl_bench.tasks.pictures import Picture
from ocl_bench.tasks.records import Kind, Record, answer_text
from ocl_bench.tasks.schema import Design
from ocl_bench.tasks.sources import Entity, Question
from ocl_bench.tasks.subsets import Split, Subset


@dataclass(frozen=True)
class Member:
    """An entity in a subset: its variable, what its definition says, and which of its questions are the test.

    Attributes:
        number: of the entity in its source.
        named: the entity that the definition names; another than `entity` where definitions are inconsistent.
        own_tags: the texts of the define tags of its own definitions; none where the subset has no definitions.
        tags: the texts of the dataset's three define tags.
        values: group of a question → every value that its answers have.
    """

    design: Design
    subset: Subset
    number: int
    entity: Entity
    named: Entity
    variable: str
    own_tags: tuple[str, ...]
    tags: list[str]
    held_out: frozenset[int]
    seed: int
    values: Mapping[str, tuple[str, ...]]
    options: int | None

    @cached_property
    def definitions(self) -> list[tuple[str, str]]:
        """Prompt and completion of each of its definitions."""
        if self.subset.tag is None:
            return []
        rng = random.Random(f"wording {self.subset.id} {self.number} {self.seed}")
        wording = self.design.wording_of(self.subset.tag)
        return [
            text
            for tag in self.own_tags
            for text in wording.texts(tag, self.variable, self.named.name, rng, self.design.phrasings)
        ]

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
                picture = self.picture(self.subset.split, tag=self.own_tags[0])
                yield self.record("definition", prompt, completion, (self.named.name,), suffix=suffix, picture=picture)
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
        options = self._options(question, number) if split == "test" else ()
        picture = self.picture(split, cell=number)
        return self.record("qa", prompt, completion, question.answers, question.group, split, suffix, options, picture)

    def asked_again(self, record: Record, number: int) -> Record:
        """Its `number`-th question, which is trained on, as a test of whether it was learned."""
        return replace(
            record,
            id=record.id.replace("/qa/", "/recall/"),
            kind="recall",
            split="test",
            options=self._options(self.entity.questions[number], number),
        )

    def picture(self, split: Split, tag: str = "", cell: int | None = None) -> Picture | None:
        """What a model sees of its definition behind a tag, or of the question about a cell; None if that is text."""
        if self.design.picture is None:
            return None
        seed = None
        if split == "test":
            seed = random.Random(f"picture {self.subset.id} {self.number} {tag} {cell} {self.seed}").getrandbits(32)
        return Picture(**dict(self.design.picture), digits=self.variable, tag=tag, cell=cell, seed=seed)

    def _options(self, question: Question, number: int) -> tuple[str, ...]:
        """What the answer to its `number`-th question is chosen from, in the order of the alphabet."""
        wrong = [value for value in self.values.get(question.group, ()) if value not in question.answers]
        if self.options is None or not wrong:
            return ()
        if len(wrong) >= self.options:
            rng = random.Random(f"options {self.subset.id} {self.number} {number} {self.seed}")
            wrong = rng.sample(wrong, self.options - 1)
        return tuple(sorted([question.answers[0], *wrong]))

    def record(
        self,
        kind: Kind,
        prompt: str,
        completion: str,
        answers: tuple[str, ...],
        group: str = "",
        split: Split | None = None,
        suffix: str = "",
        options: tuple[str, ...] = (),
        picture: Picture | None = None,
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
            options=options,
            picture=picture,
        )


def held_out(entity: Entity, rng: random.Random) -> frozenset[int]:
    """Numbers of the questions that are the test: those that the source marks, or one at random."""
    marked = frozenset(number for number, question in enumerate(entity.questions) if question.held_out)
    return marked or frozenset({rng.randrange(len(entity.questions))})
