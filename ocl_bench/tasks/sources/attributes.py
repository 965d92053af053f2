"""A made-up world: an entity is one value for each attribute, and a question asks for one of them.

Nothing has to be known beforehand, so the phenomenon can be seen in a model trained from random weights
(the paper's section 3.1 has the same aim).
"""

import math
import random
import sys

from pydantic import Field, field_validator

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.sources import Entity, Question


class AttributesSource:
    """Entities such as `red square tiny north`, questions such as `colour red square tiny north`."""

    class Args(Contract):
        num_entities: int = Field(ge=2, description="entities, all different")
        attributes: dict[str, tuple[str, ...]] = Field(
            min_length=2, description="attribute → its values, each one word"
        )

        @field_validator("attributes")
        @classmethod
        def _words(cls, attributes: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
            words = [value for values in attributes.values() for value in values]
            for word in [*attributes, *words]:
                if not word.isalnum():
                    raise ValueError(f"'{word}' is not one word of letters and digits")
            repeated = sorted({word for word in words if words.count(word) > 1})
            if repeated:
                raise ValueError(f"value '{repeated[0]}' is there twice; a value belongs to one attribute only")
            short = [name for name, values in attributes.items() if len(values) < 2]
            if short:
                raise ValueError(f"attribute '{short[0]}' needs at least two values")
            return attributes

    def entities(self, args: Args) -> list[Entity]:
        """Different random combinations of values, drawn uniformly. Chance is one over the number of values."""
        names, values = list(args.attributes), list(args.attributes.values())
        combinations = math.prod(len(options) for options in values)
        if combinations > sys.maxsize:
            raise OclBenchError("source_args.attributes have more combinations than can be numbered; leave some out.")
        if args.num_entities > combinations:
            raise OclBenchError(
                f"source_args.num_entities is {args.num_entities}, but the attributes have only {combinations} "
                "combinations; lower it or add values."
            )
        drawn = random.Random("attributes").sample(range(combinations), args.num_entities)
        return [self._entity(names, self._combination(number, values)) for number in drawn]

    @staticmethod
    def _combination(number: int, values: list[tuple[str, ...]]) -> list[tuple[str, float]]:
        """The values of combination `number`, each with its chance level."""
        chosen = []
        for options in values:
            number, index = divmod(number, len(options))
            chosen.append((options[index], 1 / len(options)))
        return chosen

    @staticmethod
    def _entity(names: list[str], chosen: list[tuple[str, float]]) -> Entity:
        questions = tuple(
            Question(name, f"{name} {{entity}}", (value,), chance)
            for name, (value, chance) in zip(names, chosen, strict=True)
        )
        return Entity(" ".join(value for value, _ in chosen), questions)
