"""X0: what a model learns before X1, so that later definitions only have to name an entity.

Facts about every entity under its own name, and aliases of it, each with definitions and with questions, all but one of
which are trained on. The last asks for two steps: from the alias to the name, and from the name to the fact.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ocl_bench.tasks.members import Member, held_out
from ocl_bench.tasks.names import Names
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import X0, Design, Task
from ocl_bench.tasks.sources import Entity
from ocl_bench.tasks.subsets import X0_SUBSETS


@dataclass(frozen=True)
class Before:
    """The names that X0 alone uses."""

    aliases: list[str]
    tags: list[str]


def names_after_x0(design: Design, x0: X0, pool: Names, variables: int, seed: int) -> tuple[Names, Before]:
    """Part a pool of names: what X1 and X2 use, in an order that depends on the seed, and what X0 uses, which does not.

    Args:
        design, x0: the task's.
        pool: the same for every seed, so that one model after X0 knows every word of all of them.
        variables: how many X1 and X2 need.
        seed: decides which variable stands for which entity, and which of the three tags is which.
    """
    rng = random.Random(f"names {seed}")
    after, tags, spare = pool.variables[:variables], list(pool.tags), pool.random_tags[x0.tags :]
    rng.shuffle(after)
    rng.shuffle(tags)
    return Names(after, tags, spare), Before(pool.variables[variables:], pool.random_tags[: x0.tags])


def x0_records(
    task: Task, x0: X0, entities: Sequence[Entity], names: Before, x0_seed: int, values: Mapping[str, tuple[str, ...]]
) -> Iterator[Record]:
    """The records of X0, and the questions that show whether it was learned.

    Args:
        task, x0: the task and its X0.
        entities: those of the source, each as often as it has variables.
        names: aliases and tags.
        x0_seed: decides tags and held-out questions.
        values: group of a question → every value that its answers have.
    """
    rng = random.Random(f"x0 {x0_seed}")
    own = entities[: len(entities) // task.design.variables_per_entity]
    aliases = list(names.aliases)
    rng.shuffle(aliases)
    for number, entity in enumerate(own):
        fact = Member(
            design=task.design,
            subset=X0_SUBSETS["x0_facts"],
            number=number,
            entity=entity,
            named=entity,
            variable=entity.name,
            own_tags=(),
            tags=[],
            held_out=frozenset(),
            seed=x0_seed,
            values=values,
            options=task.evaluate.options,
        )
        for question, record in enumerate(fact.records()):
            yield record
            yield fact.asked_again(record, question)
        for alias in range(number, x0.aliases * len(own), len(own)):
            member = replace(
                fact,
                subset=X0_SUBSETS["x0_aliases"],
                number=alias,
                variable=aliases[alias],
                own_tags=tuple(rng.choices(names.tags, k=x0.definitions)),
                held_out=held_out(entity, rng),
            )
            yield from member.records()
