"""Build a task's records: a pure function of the task file, the source's data, the seed and the stage-2 seed."""

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass

from ocl_bench.tasks.load import source_args
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Order, Task
from ocl_bench.tasks.sources import SOURCES, Entity
from ocl_bench.tasks.subsets import SUBSETS, Subset, deal, derangement, subset_sizes


def build(task: Task, seed: int, stage2_seed: int = 0) -> list[Record]:
    """Build every record of `task`, in an order that depends on nothing but the arguments.

    Args:
        task: a validated task.
        seed: decides variables, tags, subsets, held-out questions and inconsistent definitions.
        stage2_seed: re-deals the entities of the X2 subsets; everything else stays as it is.

    Raises:
        OclBenchError: if a subset would be empty.
    """
    entities = load_entities(task)
    sizes = subset_sizes(task.design.fractions, task.design.alpha, len(entities))
    names = draw_names(seed, len(entities))
    records: list[Record] = []
    for subset_name, members in deal(sizes, seed, stage2_seed).items():
        subset = SUBSETS[subset_name]
        rng = random.Random(f"{subset_name} {seed}")
        defined_as = members if subset.consistent else derangement(members, rng)
        for index, defined_index in zip(members, defined_as, strict=True):
            entity, variable = entities[index], names.variables[index]
            if subset.tag is not None:
                tag = names.random_tags[index] if subset.tag == "random" else names.tags[subset.tag - 1]
                text = definition_text(task.design.order, tag, variable, entities[defined_index].name)
                records.append(_definition(subset, index, text, entities[defined_index].name, entity, variable))
            held_out = rng.randrange(len(entity.questions)) if subset.qa else None
            records.extend(_questions(subset, index, entity, variable, held_out))
    return sorted(records, key=lambda record: ("x1", "x2", "test").index(record.split))


def load_entities(task: Task) -> list[Entity]:
    """The source's entities. Raises OclBenchError if the source cannot provide what the task asks for."""
    entities: list[Entity] = SOURCES.load(task.source)().entities(source_args(task))
    return entities


@dataclass(frozen=True)
class Names:
    """The random names of one dataset, all different: a variable and a spare tag for each entity, and three tags."""

    variables: list[str]
    tags: list[str]
    random_tags: list[str]


def draw_names(seed: int, count: int) -> Names:
    """Draw names of the paper's form: variables `<|` + 5 letters + `|>`, tags with 6 letters.

    The brackets keep a name from occurring inside another name or inside a word of a text.
    """
    rng = random.Random(f"names {seed}")
    variables = _unique(rng, count, letters=5)
    tags = _unique(rng, 3 + count, letters=6)
    return Names(variables, tags[:3], tags[3:])


def _unique(rng: random.Random, count: int, letters: int) -> list[str]:
    names: dict[str, None] = {}  # a dict keeps the order, so that the result does not depend on hashing
    while len(names) < count:
        names[f"<|{''.join(rng.choices(string.ascii_lowercase, k=letters))}|>"] = None
    return list(names)


def definition_text(order: Order, tag: str, variable: str, entity: str) -> tuple[str, str]:
    """Prompt and completion of a definition: the first two elements, and the third."""
    elements = {"t": tag, "v": variable, "e": entity}
    first, second, third = (elements[letter] for letter in order)
    return f"{first} {second}", f" {third}\n"


def _definition(subset: Subset, index: int, text: tuple[str, str], named: str, entity: Entity, variable: str) -> Record:
    return Record(
        id=f"{subset.id}/definition/{index}",
        subset=subset.id,
        split=subset.split,
        kind="definition",
        prompt=text[0],
        completion=text[1],
        answers=(named,),
        entity=entity.name,
        variable=variable,
        group="",
    )


def _questions(subset: Subset, index: int, entity: Entity, variable: str, held_out: int | None) -> Iterator[Record]:
    """Questions about one entity: all but the held-out one are trained on; without training, all are the test."""
    for number, question in enumerate(entity.questions):
        tested = held_out is None or number == held_out
        mention = variable if subset.replaced else entity.name
        yield Record(
            id=f"{subset.id}/qa/{index}/{question.group}",
            subset=subset.id,
            split="test" if tested else subset.split,
            kind="qa",
            prompt=f"Q: {question.template.replace('{entity}', mention)}\nA:",
            completion=f" {question.answers[0]}\n",
            answers=question.answers,
            entity=entity.name,
            variable=variable,
            group=question.group,
        )


def chance_levels(task: Task) -> dict[str, float]:
    """Question group → accuracy of the best guess that does not look at the entity."""
    return {question.group: question.chance for entity in load_entities(task) for question in entity.questions}
