"""What the manifest says of the training fits the recipe, the data and itself."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ocl_bench.leaderboard.checks.data import questions_of
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.submission import MANIFEST
from ocl_bench.runner.folder import cells
from ocl_bench.runner.manifest import Manifest, StageRecord
from ocl_bench.runner.plan import cell_name
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Stage


def check_stages(checked: Checked, manifest: Manifest) -> None:
    """Weights chain from stage to stage, and no two trainings end in the same."""
    config = manifest.config
    names = cells(config)
    if sorted(manifest.stages) != sorted(names):
        checked.add(MANIFEST, "stages", f"has not exactly the cells {', '.join(names)}")
        return
    expected = {cell: [stage.name for stage in stages] for cell, stages, _ in cells_with_stages(manifest)}
    for cell in names:
        if list(manifest.stages[cell]) != expected[cell]:
            checked.add(MANIFEST, f"stages.{cell}", f"has not exactly the stages {', '.join(expected[cell])}")
            return
    for cell in names:
        if len({record.prompts_sha256 for record in manifest.stages[cell].values()}) > 1:
            checked.add(MANIFEST, f"stages.{cell}", "prompts_sha256 differs from stage to stage")
    ends: Counter[str] = Counter()
    starts: dict[int, str] = {}
    for cell, stages, seed in cells_with_stages(manifest):
        before: str | None = None
        first = cell_name(seed, config.stage2_seeds[0])
        if len(stages) < len(config.task.stages):
            before = manifest.stages[first][config.task.stages[-len(stages) - 1].name].weights_after
        else:
            starts[seed] = manifest.stages[cell][stages[0].name].weights_before
        for stage in stages:
            record, where = manifest.stages[cell][stage.name], f"stages.{cell}.{stage.name}"
            if before is not None and record.weights_before != before:
                checked.add(MANIFEST, f"{where}.weights_before", "are not those that the stage before ended with")
            if record.weights_after == record.weights_before:
                checked.add(MANIFEST, f"{where}.weights_after", "are those that the stage began with")
            before = record.weights_after
            ends[record.weights_after] += 1
            if not record.weights_sha256:
                checked.add(MANIFEST, f"{where}.weights_sha256", "is empty")
    if any(count > 1 for count in ends.values()):
        checked.add(MANIFEST, "stages", "two trainings ended with the same weights")
    if config.model.source == "scratch" and len(set(starts.values())) < len(starts):
        checked.add(MANIFEST, "stages", "two seeds began with the same random weights")
    if config.model.source != "scratch" and len(set(starts.values())) > 1:
        checked.add(MANIFEST, "stages", "seeds began with different weights, though the model is pretrained")


def cells_with_stages(manifest: Manifest) -> Iterator[tuple[str, Sequence[Stage], int]]:
    """Each cell, the stages that it trains itself, and its seed: later stage-2 seeds share those before X2."""
    config = manifest.config
    for seed in config.seeds:
        for number, stage2_seed in enumerate(config.stage2_seeds):
            shared = config.task.first_x2_stage if number else 0
            yield cell_name(seed, stage2_seed), config.task.stages[shared:], seed


def check_training(checked: Checked, manifest: Manifest, datasets: Mapping[str, list[Record]]) -> None:
    """Each stage had the data that the task gives it, and took the steps that the recipe takes on them."""
    config, recipe = manifest.config, manifest.config.recipe
    for cell, stages, _ in cells_with_stages(manifest):
        for stage in stages:
            record = manifest.stages.get(cell, {}).get(stage.name)
            if record is None:
                continue
            number = config.task.stages.index(stage)
            records = [one for one in datasets[cell] if stage.trains_on(one.split, one.kind)]
            definitions = sum(one.kind == "definition" for one in records)
            questions = len(records) - definitions
            drawn = questions + recipe.definitions_per_epoch(definitions, questions)
            expected = {"records": len(records), "effective_batch_size": recipe.effective_batch_size}
            expected["answers"] = sum(one.split == "test" for one in questions_of(datasets[cell], manifest, cell))
            if number < len(recipe.epochs):
                expected["epochs"] = recipe.epochs[number]
                expected["optimizer_steps"] = recipe.epochs[number] * _steps(drawn, record)
            for key, value in expected.items():
                if getattr(record, key) != value:
                    checked.add(
                        MANIFEST, f"stages.{cell}.{stage.name}.{key}",
                        f"is {getattr(record, key)}; data and recipe give {value}",
                    )  # fmt: skip
            _check_rates(checked, manifest, record, f"stages.{cell}.{stage.name}")


def _steps(drawn: int, record: StageRecord) -> int:
    """Optimizer steps of an epoch: micro-batches are gathered to the effective batch."""
    micro = max(1, record.micro_batch_size)
    return math.ceil(math.ceil(drawn / micro) / max(1, record.effective_batch_size // micro))


def _check_rates(checked: Checked, manifest: Manifest, record: StageRecord, where: str) -> None:
    recipe = manifest.config.recipe
    if record.micro_batch_size < 1 or recipe.effective_batch_size % max(1, record.micro_batch_size):
        checked.add(MANIFEST, f"{where}.micro_batch_size", "does not divide the effective batch size")
    peak, rate = record.learning_rate_peak, recipe.learning_rate
    if peak > rate * (1 + 1e-6) or (record.optimizer_steps > recipe.warmup_steps + 1 and peak < rate * (1 - 1e-6)):
        checked.add(MANIFEST, f"{where}.learning_rate_peak", f"is {peak:g}; the recipe's is {rate:g}")
    if not 0 <= record.learning_rate_first <= peak or not 0 <= record.learning_rate_last <= peak:
        checked.add(
            MANIFEST, f"{where}.learning_rate_first", "and learning_rate_last have to lie between 0 and the peak"
        )
    if not 0 <= record.answers_differing <= record.answers:
        checked.add(MANIFEST, f"{where}.answers_differing", "is not between 0 and answers")
