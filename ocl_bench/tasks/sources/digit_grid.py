"""Digit grids: an entity is a digit for each cell of a grid, and a question asks for that of one cell.

The paper's section 3.2, where a grid of handwritten digits stands for it. An answer is written for all cells, with a
dash for each that is not asked about, because that is what the model has to say there.
"""

import random

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.sources import Entity, Question

NO_ANSWER = "-"


class DigitGridSource:
    """Entities such as `9 2 6 5`, questions such as `cell-2 {entity}` with the answer `- - 6 -`; cells count from 0."""

    class Args(Contract):
        num_entities: int = Field(ge=2, description="entities, all different")
        cells: int = Field(ge=2, le=100, description="digits of an entity: rows times columns of the grids")

    def entities(self, args: Args) -> list[Entity]:
        """Different grids of digits, drawn uniformly. Chance is one tenth."""
        if args.num_entities > 10**args.cells // 2:
            raise OclBenchError(
                f"source_args.num_entities is {args.num_entities}, and half of the {10**args.cells:,} grids of "
                f"{args.cells} digits is the most; lower it or add cells."
            )
        rng, found = random.Random("digit_grid"), dict[tuple[str, ...], None]()
        while len(found) < args.num_entities:
            found[tuple(rng.choices("0123456789", k=args.cells))] = None
        return [_entity(digits) for digits in found]


def _entity(digits: tuple[str, ...]) -> Entity:
    questions = []
    for cell, digit in enumerate(digits):
        answer = [NO_ANSWER] * len(digits)
        answer[cell] = digit
        questions.append(Question(f"cell-{cell}", f"cell-{cell} {{entity}}", (" ".join(answer),), chance=0.1))
    return Entity(" ".join(digits), tuple(questions))
