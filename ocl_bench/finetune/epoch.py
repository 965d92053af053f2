"""What an epoch of a stage is made of. Needs no torch, so that a check of a run can count what it trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ocl_bench.collection import without_collection
from ocl_bench.finetune.recipe import StageRecipe
from ocl_bench.tasks.parts import members_of
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Stage


@dataclass(frozen=True)
class Pool:
    """Some of a stage's datapoints, and how many of them an epoch has.

    Attributes:
        numbers: which datapoints.
        per_epoch: how many an epoch has; if that is not all of them, each is used equally often over the epochs, plus
            or minus one.
    """

    numbers: tuple[int, ...]
    per_epoch: int

    @property
    def drawn(self) -> bool:
        """Whether an epoch has another number of them than there are."""
        return self.per_epoch != len(self.numbers)


def everything(count: int) -> list[Pool]:
    """Every one of so many datapoints, once an epoch."""
    return [Pool(tuple(range(count)), count)]


def mixed(recipe: StageRecipe, is_definition: Sequence[bool]) -> list[Pool]:
    """All questions once an epoch, and as many definitions as the recipe's `definition_share` says."""
    definitions = tuple(number for number, flag in enumerate(is_definition) if flag)
    questions = tuple(number for number, flag in enumerate(is_definition) if not flag)
    drawn = recipe.definitions_per_epoch(len(definitions), len(questions))
    if drawn == len(definitions):
        return everything(len(is_definition))
    return [Pool(questions, len(questions)), Pool(definitions, drawn)]


def drawn_evenly(recipe: StageRecipe, records: Sequence[Record], own: Sequence[int]) -> list[Pool]:
    """As many datapoints of each subset, and among them the recipe's share of definitions, or half of them.

    Args:
        recipe: how to train; it has `draws_per_epoch`.
        records, own: all records, and the numbers of those to draw from.
    """
    assert recipe.draws_per_epoch is not None
    found: dict[str, dict[bool, list[int]]] = {}
    for number in own:
        one = records[number]
        found.setdefault(one.subset, {}).setdefault(one.kind == "definition", []).append(number)
    pools = []
    for place, kinds in enumerate(found.values()):
        # Whole numbers that sum to all draws.
        before, after = (recipe.draws_per_epoch * end // len(found) for end in (place, place + 1))
        share = 0.5 if recipe.definition_share is None else recipe.definition_share
        definitions = round((after - before) * share) if len(kinds) == 2 else (after - before) * (True in kinds)
        counts = {True: definitions, False: after - before - definitions}
        pools += [Pool(tuple(numbers), counts[kind]) for kind, numbers in kinds.items()]
    return pools


def trained_on(stage: Stage, records: Sequence[Record]) -> list[Record]:
    """The records of a dataset that a stage trains on, what it replays included, in their order."""
    return [record for record, _ in chosen(stage, records)]


def epoch_pools(stage: Stage, recipe: StageRecipe, records: Sequence[Record]) -> list[Pool]:
    """What an epoch of a stage has of the datapoints that `trained_on` gives of the same records; see `pools_of`."""
    return pools_of(stage, recipe, chosen(stage, records))


def pools_of(stage: Stage, recipe: StageRecipe, selected: Sequence[tuple[Record, str]]) -> list[Pool]:
    """What an epoch of a stage has of what `chosen` gives for it.

    All own datapoints, or with a `definition_share` all questions and a number of definitions; and for each that it has
    of these, as many replayed ones as the stage's `replay` says.
    """
    own = [number for number, (_, selector) in enumerate(selected) if selector in stage.train]
    if recipe.draws_per_epoch is not None:
        pools = drawn_evenly(recipe, [record for record, _ in selected], own)
    else:
        places = mixed(recipe, [selected[number][0].kind == "definition" for number in own])
        pools = [Pool(tuple(own[place] for place in pool.numbers), pool.per_epoch) for pool in places]
    total = sum(pool.per_epoch for pool in pools)
    for replayed, each in stage.replay.items():
        numbers = tuple(number for number, (_, selector) in enumerate(selected) if selector == replayed)
        pools.append(Pool(numbers, round(each * total)))
    return pools


@without_collection()
def chosen(stage: Stage, records: Sequence[Record]) -> list[tuple[Record, str]]:
    """The records of a dataset that a stage's `train` or `replay` selects, each with the selector."""

    @cache  # a few kinds, of very many records
    def selectors(split: str, kind: str) -> list[tuple[str, str]]:
        return [(selector, selector.partition("@")[2]) for selector in stage.selectors(split, kind)]

    @cache
    def members(subset: str, part: str) -> frozenset[str]:
        return members_of(records, f"{subset}@{part}")

    found = []
    for record in records:
        for selector, part in selectors(record.split, record.kind):
            if not part or record.variable in members(record.subset, part):
                found.append((record, selector))
    return found
