"""Where entities and their questions come from. A source knows facts; it knows nothing of subsets, tags or splits."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ocl_bench.contract import Contract
from ocl_bench.registry import Registry

if TYPE_CHECKING:
    from ocl_bench.tasks.schema import Task
    from ocl_bench.tasks.sources.published import PublishedData


@dataclass(frozen=True)
class Question:
    """A question about an entity.

    Attributes:
        group: which fact it asks for, such as `colour`.
        template: its text, with `{entity}` where the entity, or the variable that replaces it, is named.
        answers: accepted answers; the first is the one trained on.
        chance: how often guessing without knowing the entity is right, at best.
        held_out: whether this question is the test of an entity that is also trained on; None where the source leaves
            that open, and one question of the entity is held out at random.
    """

    group: str
    template: str
    answers: tuple[str, ...]
    chance: float
    held_out: bool | None = None


@dataclass(frozen=True)
class Entity:
    """An entity as definitions name it, and everything that can be asked about it."""

    name: str
    questions: tuple[Question, ...]


class Source(Protocol):
    """Provides the entities of a task. Its arguments are a contract of its own, so that wrong ones are refused.

    A source that reads files of the user's has a method `read` too: arguments → the same with what the files hold in
    place of their paths. It is called when a task is loaded, so that the task holds all that it is made from.
    """

    Args: type[Contract]

    def entities(self, args: Any) -> list[Entity]:
        """All entities, in an order that depends on the arguments alone."""
        ...


SOURCES = Registry(
    "source",
    {
        "attributes": "ocl_bench.tasks.sources.attributes:AttributesSource",
        "cvdb": "ocl_bench.tasks.sources.cvdb:CvdbSource",
        "cvdb_sample": "ocl_bench.tasks.sources.cvdb:CvdbSampleSource",
        "digit_grid": "ocl_bench.tasks.sources.digit_grid:DigitGridSource",
        "people": "ocl_bench.tasks.sources.people:PeopleSource",
        "set_inclusion": "ocl_bench.tasks.sources.set_inclusion:SetInclusionSource",
        "table": "ocl_bench.tasks.sources.table:TableSource",
        "trex": "ocl_bench.tasks.sources.trex:TrexSource",
    },
    needs=("Args", "entities"),
)


def published_data(task: "Task") -> "PublishedData | None":
    """The published data that training on a task needs, which have to be fetched; None if it needs none."""
    if task.design.picture is not None and task.design.picture.scans == "mnist":
        from ocl_bench.tasks.sources.mnist import Mnist

        return Mnist()
    return published_source(task.source)


def published_source(name: str) -> "PublishedData | None":
    """The source of this name if it is made from published data; None if it needs none."""
    source = SOURCES.load(name)()
    # by what it can do, so that a task that needs no published data needs no import of what reads such
    return source if hasattr(source, "fetch") else None
