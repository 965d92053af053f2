"""The cell: one chain of trainings of a run, and which of its stages are its own.

A stage-1 seed is trained through all stages once, with the run's first stage-2 seed. Each further stage-2 seed repeats
only the stages from the first that trains on X2, because those before do not depend on it. The stages that train on X0
alone depend on no seed but X0's own: the run's first cell trains them for all, unless each seed is to have its own.
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
        x0: the run's first cell, whose stages of X0 this one goes on from; None if it is that, or all train their own.
        x0_seed: the seed of X0.
    """

    seed: int
    stage2_seed: int
    shares: "Cell | None" = None
    x0: "Cell | None" = None
    x0_seed: int = 0

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"seed-{self.seed}" if self.stage2_seed == 0 else f"seed-{self.seed}-stage2-{self.stage2_seed}"

    def owned(self, task: Task) -> tuple[Stage, ...]:
        """The stages that it trains itself."""
        return tuple(stage for number, stage in enumerate(task.stages) if self.owner(task, number) == self)

    def owner(self, task: Task, number: int) -> "Cell":
        """The cell that trains its stage of this number."""
        if self.x0 is not None and number < task.shared_stages:
            return self.x0
        return self if self.shares is None or number >= task.first_x2_stage else self.shares

    def init_seed(self, task: Task) -> int:
        """The seed of random weights: that of X0 where the first stage trains on it alone."""
        return self.x0_seed if task.shared_stages else self.seed

    def training_seed(self, task: Task, number: int) -> int:
        """The training seed of one stage: a 32-bit number that differs for every seed, stage and stage-2 seed."""
        seed = self.x0_seed if number < task.shared_stages else self.seed
        stage2_seed = self.stage2_seed if number >= task.first_x2_stage else 0
        return int(sha256(f"{seed} {number} {stage2_seed}")[:8], 16)


def cells_of(seeds: Sequence[int], stage2_seeds: Sequence[int], own_x0: bool = False) -> tuple[Cell, ...]:
    """All cells of a run, in order of seed and stage-2 seed.

    Args:
        seeds, stage2_seeds: of the run.
        own_x0: whether each seed trains an X0 of its own, with that seed, instead of sharing the one of seed 0.
    """
    cells: list[Cell] = []
    for seed in seeds:
        x0 = None if own_x0 or not cells else cells[0]
        x0_seed = seed if own_x0 else 0
        first = Cell(seed, stage2_seeds[0], None, x0, x0_seed)
        cells += [first, *(Cell(seed, stage2_seed, first, x0, x0_seed) for stage2_seed in stage2_seeds[1:])]
    return tuple(cells)


def stage_folder(run: Path, cell: Cell, stage: str) -> Path:
    """Where a run folder has a stage of a cell."""
    return run / cell.name / stage
