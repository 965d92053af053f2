"""X0: what a model learns before X1, so that later definitions only have to name an entity.

Facts about every entity under its own name, and aliases of it, each with definitions and with questions, all but one of
which are trained on. The last asks for two steps: from the alias to the name, and from the name to the fact.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ocl_bench.tasks.members import Member, held_out
from ocl_bench.tasks.names import Names
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import X0, Task
from ocl_bench.tasks.sources import Entity
from ocl_bench.tasks.subsets import X0_SUBSETS


def names_after_x0(pool: Names, x0: X0, variables: int, seed: int) -> Names:
    """What X1 and X2 use of a pool of names, of which X0 uses the rest.

    Args:
        pool: the same for every seed, so that one model after X0 knows every word of all of them.
        x0: the task's.
        variables: how many X1 and X2 need.
        seed: decides which variable stands for which entity, and which of the three tags is which.
    """
    rng = random.Random(f"names {seed}")
    after, tags, spare = pool.variables[:variables], list(pool.tags), pool.random_tags[x0.tags :]
    rng.shuffle(after)
    rng.shuffle(tags)
    return Names(after, tags, spare)


def x0_records(
    task: Task, entities: Sequence[Entity], pool: Names, x0_seed: int, values: Mapping[str, tuple[str, ...]]
) -> Iterator[Record]:
    """The records of X0, and the questions that show whether it was learned.

    Args:
        task: a task with an X0.
        entities: those of the source, each as often as it has variables.
        pool: names; X0 has those that X1 and X2 leave.
        x0_seed: decides tags and held-out questions.
        values: group of a question → every value that its answers have.
    """
    x0 = task.design.x0
    assert x0 is not None
    rng = random.Random(f"x0 {x0_seed}")
    own = entities[: len(entities) // task.design.variables_per_entity]
    aliases, tags = pool.variables[len(entities) :], pool.random_tags[: x0.tags]
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
                own_tags=tuple(rng.choices(tags, k=x0.definitions)),
                held_out=held_out(entity, rng),
            )
            yield from member.records()
