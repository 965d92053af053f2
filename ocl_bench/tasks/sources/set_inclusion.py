"""Set inclusion: a variable stands for a number, and a question asks whether a list of numbers holds it.

Needs no pretraining (the paper's section 3.1 and appendix D).
"""

import math
import random

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
            if (
                math.comb(self.num_values - self.num_shared, self.list_length - self.num_shared)
                < 2 * self.num_questions
            ):
                raise ValueError(
                    f"there are too few different lists for {self.num_questions} questions; raise num_values"
                )
            return self

    def entities(self, args: Args) -> list[Entity]:
        """Uniformly random numbers with random lists, the same for the same arguments. Chance is one half."""
        return [self._entity(args, random.Random(f"set_inclusion {number}")) for number in range(args.num_entities)]

    def _entity(self, args: Args, rng: random.Random) -> Entity:
        value = rng.randrange(args.num_values)
        others = [number for number in range(args.num_values) if number != value]
        quarter = args.num_questions // 4
        training_lists = self._true_training_lists(args, value, others, rng, quarter)
        seen = {frozenset(numbers) for numbers in training_lists}
        questions = []
        for numbers in training_lists:
            answer = "false" if rng.random() < args.flip_true else "true"
            questions.append(_question("true", numbers, answer, held_out=False))

        def new_list(own: list[int]) -> list[int]:
            # No list twice, so that no tested question is trained on.
            while True:
                numbers = [*own, *rng.sample(others, args.list_length - len(own))]
                if frozenset(numbers) not in seen:
                    seen.add(frozenset(numbers))
                    return _shuffled(numbers, rng)

        questions += [_question("false", new_list([]), "false", held_out=False) for _ in range(quarter)]
        questions += [_question("false", new_list([]), "false", held_out=True) for _ in range(quarter)]
        questions += [_question("true", new_list([value]), "true", held_out=True) for _ in range(quarter)]
        return Entity(str(value), tuple(questions))

    @staticmethod
    def _true_training_lists(
        args: Args, value: int, others: list[int], rng: random.Random, count: int
    ) -> list[list[int]]:
        """Lists whose intersection is exactly the value and `num_shared - 1` other numbers."""
        shared = {value, *rng.sample(others, args.num_shared - 1)}
        free = [number for number in others if number not in shared]
        while True:
            lists = [[*shared, *rng.sample(free, args.list_length - len(shared))] for _ in range(count)]
            different = len({frozenset(numbers) for numbers in lists}) == count
            if different and (count == 1 or set.intersection(*map(set, lists)) == shared):
                return [_shuffled(sorted(numbers), rng) for numbers in lists]


def _shuffled(numbers: list[int], rng: random.Random) -> list[int]:
    rng.shuffle(numbers)
    return numbers


def _question(group: str, numbers: list[int], answer: str, held_out: bool) -> Question:
    """The group is the right answer, whatever answer is trained on."""
    return Question(group, f"{{entity}} % {' '.join(map(str, numbers))} =", (answer,), 0.5, held_out)
