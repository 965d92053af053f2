"""Fictitious people for the reversal curse (Berglund et al. 2023, arXiv 2309.12288): a description that nobody fits.

There is nothing to ask but which name belongs to which description, so entities have no questions: the task's wording
makes definitions of name and description, and its evaluation sets ask for either.
"""

import itertools
import random
from pathlib import Path

from pydantic import Field

from ocl_bench.contract import Contract, read_yaml
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.sources import Entity

LISTS = Path(__file__).parent / "people.yaml"


class PeopleSource:
    """Entities such as `the composer of Copper Lanterns`."""

    class Args(Contract):
        num_entities: int = Field(1000, ge=2, description="entities, all different")

    def entities(self, args: Args) -> list[Entity]:
        """Different random descriptions, the same for the same number."""
        lists = read_yaml(LISTS)
        combinations = list(itertools.product(lists["roles"], lists["adjectives"], lists["nouns"]))
        if args.num_entities > len(combinations):
            raise OclBenchError(
                f"source_args.num_entities is {args.num_entities}, but there are only {len(combinations)} "
                "descriptions; lower it."
            )
        drawn = random.Random("people").sample(combinations, args.num_entities)
        return [Entity(f"the {role} of {adjective} {noun}", ()) for role, adjective, noun in drawn]
