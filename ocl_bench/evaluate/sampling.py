"""Which questions are asked where not all are: fixed random samples."""

import random
from collections import defaultdict
from collections.abc import Sequence

from ocl_bench.tasks.records import Record

CURVE_SEED = 0


def subset_sample(records: Sequence[Record], per_subset: int, seed: int) -> list[int]:
    """Numbers of a fixed random sample of at most `per_subset` records of each subset and kind."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, record in enumerate(records):
        numbers[record.subset, record.kind].append(number)
    rng = random.Random(f"questions {seed}")
    return sorted(n for group in numbers.values() for n in rng.sample(group, min(per_subset, len(group))))


def curve_sample(records: Sequence[Record], per_subset: int) -> list[int]:
    """What a learning curve shows: a sample of the source's questions, or without any, of the first other set.

    Args:
        records: the questions that are asked after the stage.
        per_subset: questions of each subset.
    """
    if not records:
        return []
    sets = [record.set for record in records]
    shown = "qa" if "qa" in sets else min(sets)
    numbers = [number for number, name in enumerate(sets) if name == shown]
    return [numbers[n] for n in subset_sample([records[number] for number in numbers], per_subset, CURVE_SEED)]
