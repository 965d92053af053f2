"""A made-up world: an entity is one value for each attribute, and a question asks for one of them.

Nothing has to be known beforehand, so the phenomenon can be seen in a model trained from random weights
(the paper's section 3.1 has the same aim). An entity is called by its values, so that a definition lists the answers,
or it has a name of its own, so that a definition only names it.
"""

import math
import random
import sys
from dataclasses import replace

from pydantic import Field, field_validator

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.sources import Entity, Question

MAX_NAMED = 100_000  # there are 343,000 names of three syllables


class AttributesSource:
    """Entities such as `red square tiny north`, questions such as `colour red square tiny north`."""

    class Args(Contract):
        num_entities: int = Field(ge=2, description="entities, all different")
        attributes: dict[str, tuple[str, ...]] = Field(
            min_length=2, description="attribute → its values, each one word"
        )

        named: bool = Field(False, description="call entities by invented names instead of by their values")

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
        if args.named and args.num_entities > MAX_NAMED:
            raise OclBenchError(f"source_args.num_entities is {args.num_entities}; at most {MAX_NAMED} have names.")
        if args.num_entities > combinations:
            raise OclBenchError(
                f"source_args.num_entities is {args.num_entities}, but the attributes have only {combinations} "
                "combinations; lower it or add values."
            )
        drawn = random.Random("attributes").sample(range(combinations), args.num_entities)
        entities = [self._entity(names, self._combination(number, values)) for number in drawn]
        if not args.named:
            return entities
        taken = {*names, *(value for options in values for value in options)}
        return [
            replace(entity, name=name)
            for entity, name in zip(entities, _invented_names(len(entities), taken), strict=True)
        ]

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


def _invented_names(count: int, taken: set[str]) -> list[str]:
    """Different names such as `Bekiro`, none of which is one of the words taken."""
    rng = random.Random("names of entities")
    found: dict[str, None] = {}
    while len(found) < count:
        name = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3)).capitalize()
        if name.lower() not in taken:
            found[name] = None
    return list(found)
