"""Where entities and their questions come from. A source knows facts; it knows nothing of subsets, tags or splits."""

from dataclasses import dataclass
from typing import Any, Protocol

from ocl_bench.contract import Contract
from ocl_bench.registry import Registry


@dataclass(frozen=True)
class Question:
    """A question about an entity.

    Attributes:
        group: which fact it asks for, such as `colour`.
        template: its text, with `{entity}` where the entity, or the variable that replaces it, is named.
        answers: accepted answers; the first is the one trained on.
        chance: how often guessing without knowing the entity is right, at best.
    """

    group: str
    template: str
    answers: tuple[str, ...]
    chance: float


@dataclass(frozen=True)
class Entity:
    """An entity as definitions name it, and everything that can be asked about it."""

    name: str
    questions: tuple[Question, ...]


class Source(Protocol):
    """Provides the entities of a task. Its arguments are a contract of its own, so that wrong ones are refused."""

    Args: type[Contract]

    def entities(self, args: Any) -> list[Entity]:
        """All entities, in an order that depends on the arguments alone."""
        ...


SOURCES = Registry("source", {"attributes": "ocl_bench.tasks.sources.attributes:AttributesSource"})
