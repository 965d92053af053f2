"""The cell: one chain of trainings of a run, and which of its stages are its own.

A stage-1 seed is trained through all stages once, with the run's first stage-2 seed. Each further stage-2 seed repeats
only the stages from the first that trains on X2, because those before do not depend on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ocl_bench.files import sha256
from ocl_bench.tasks.schema import Stage, Task


@dataclass(frozen=True)
class Cell:
    """A stage-1 seed with a stage-2 seed.

    Attributes:
        seed, stage2_seed: the two seeds.
        shares: the seed's first cell, whose stages before X2 this one goes on from; None if this is the first.
    """

    seed: int
    stage2_seed: int
    shares: "Cell | None" = None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"seed-{self.seed}" if self.stage2_seed == 0 else f"seed-{self.seed}-stage2-{self.stage2_seed}"

    def owned(self, task: Task) -> tuple[Stage, ...]:
        """The stages that it trains itself."""
        return task.stages if self.shares is None else task.stages[task.first_x2_stage :]

    def owner(self, task: Task, number: int) -> "Cell":
        """The cell that trains its stage of this number."""
        return self if self.shares is None or number >= task.first_x2_stage else self.shares

    def training_seed(self, task: Task, number: int) -> int:
        """The training seed of one stage: a 32-bit number that differs for every seed, stage and stage-2 seed."""
        stage2_seed = self.stage2_seed if number >= task.first_x2_stage else 0
        return int(sha256(f"{self.seed} {number} {stage2_seed}")[:8], 16)


def cells_of(seeds: Sequence[int], stage2_seeds: Sequence[int]) -> tuple[Cell, ...]:
    """All cells of a run, in order of seed and stage-2 seed."""
    cells: list[Cell] = []
    for seed in seeds:
        first = Cell(seed, stage2_seeds[0])
        cells += [first, *(Cell(seed, stage2_seed, first) for stage2_seed in stage2_seeds[1:])]
    return tuple(cells)


def stage_folder(run: Path, cell: Cell, stage: str) -> Path:
    """Where a run folder has a stage of a cell."""
    return run / cell.name / stage
