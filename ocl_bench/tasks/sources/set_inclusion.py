"""Set inclusion: a variable stands for a number, and a question asks whether a list of numbers holds it.

Needs no pretraining (the paper's section 3.1 and appendix D).
"""

import math
import random
from functools import lru_cache

from pydantic import Field, model_validator

from ocl_bench.contract import Contract
from ocl_bench.tasks.sources import Entity, Question


class SetInclusionSource:
    """Entities such as `5`, questions such as `{entity} % 4 17 52 5 =` with the answer `true`."""

    class Args(Contract):
        num_entities: int = Field(8000, ge=2, description="entities; several may be the same number")
        num_values: int = Field(99, ge=3, description="numbers go from 0 to num_values - 1")
        list_length: int = Field(8, ge=1, description="different numbers in a question's list")
        num_questions: int = Field(
            24, ge=4, multiple_of=4, description="questions of an entity: half train, half test, half of each true"
        )
        num_shared: int = Field(
            1, ge=1, description="numbers, the entity's own among them, that all its true training lists share"
        )
        flip_true: float = Field(
            0.0, ge=0, le=1, description="share of the true training answers that are flipped to false"
        )

        @model_validator(mode="after")
        def _lists_can_be_made(self) -> "SetInclusionSource.Args":
            if self.list_length >= self.num_values:
                raise ValueError(f"list_length has to be below num_values, {self.num_values}")
            if self.num_shared >= self.list_length:
                raise ValueError(f"num_shared has to be below list_length, {self.list_length}")
            quarter = self.num_questions // 4
            # Every other number has to be missing from some true training list, and not only just so.
            if quarter > 1 and quarter * (self.num_values - self.list_length) < 2 * (self.num_values - self.num_shared):
                raise ValueError("the true training lists would share other numbers; lower list_length")
            # False lists, and true ones, are drawn until they differ: there have to be plenty.
            lists = (
                math.comb(self.num_values - 1, self.list_length),
                math.comb(self.num_values - 1, self.list_length - 1),
            )
            if min(lists) < 2 * self.num_questions:
                raise ValueError(
                    f"there are too few different lists for {self.num_questions} questions; raise num_values"
                )
            return self

    def entities(self, args: Args) -> list[Entity]:
        """Uniformly random numbers with random lists, the same for the same arguments. Chance is one half."""
        return list(_entities(args))


@lru_cache(maxsize=2)  # every seed of a run asks for the same ones
def _entities(args: SetInclusionSource.Args) -> tuple[Entity, ...]:
    return tuple(_entity(args, random.Random(f"set_inclusion {number}")) for number in range(args.num_entities))


def _entity(args: SetInclusionSource.Args, rng: random.Random) -> Entity:
    value = rng.randrange(args.num_values)
    others = [number for number in range(args.num_values) if number != value]
    quarter = args.num_questions // 4
    training_lists = _true_training_lists(args, value, others, rng, quarter)
    # No list comes twice, so that no tested question is trained on.
    seen = {frozenset(numbers) for numbers in training_lists}
    true_tests = _new_lists(quarter, [value], args, others, seen, rng)
    false_lists = _new_lists(2 * quarter, [], args, others, seen, rng)
    answers = ["false" if rng.random() < args.flip_true else "true" for _ in training_lists]
    questions = [
        *(_question("true", numbers, answer, False) for numbers, answer in zip(training_lists, answers, strict=True)),
        *(_question("false", numbers, "false", held_out=False) for numbers in false_lists[:quarter]),
        *(_question("false", numbers, "false", held_out=True) for numbers in false_lists[quarter:]),
        *(_question("true", numbers, "true", held_out=True) for numbers in true_tests),
    ]
    return Entity(str(value), tuple(questions))


def _new_lists(
    count: int,
    own: list[int],
    args: SetInclusionSource.Args,
    others: list[int],
    seen: set[frozenset[int]],
    rng: random.Random,
) -> list[list[int]]:
    """Lists of `own` and random other numbers in random order, none of them `seen`."""
    lists: list[list[int]] = []
    while len(lists) < count:
        numbers = [*own, *rng.sample(others, args.list_length - len(own))]
        if frozenset(numbers) in seen:
            continue
        seen.add(frozenset(numbers))
        if own:  # the others are in random order as they come
            rng.shuffle(numbers)
        lists.append(numbers)
    return lists


def _true_training_lists(
    args: SetInclusionSource.Args, value: int, others: list[int], rng: random.Random, count: int
) -> list[list[int]]:
    """Lists whose intersection is exactly the value and `num_shared - 1` other numbers."""
    shared = [value, *rng.sample(others, args.num_shared - 1)]
    free = [number for number in others if number not in shared]
    while True:
        lists = [[*shared, *rng.sample(free, args.list_length - len(shared))] for _ in range(count)]
        different = len({frozenset(numbers) for numbers in lists}) == count
        if different and (count == 1 or set.intersection(*map(set, lists)) == set(shared)):
            break
    for numbers in lists:
        rng.shuffle(numbers)
    return lists


def _question(group: str, numbers: list[int], answer: str, held_out: bool) -> Question:
    """The group is the right answer, whatever answer is trained on."""
    return Question(group, f"{{entity}} % {' '.join(map(str, numbers))} =", (answer,), 0.5, held_out)
