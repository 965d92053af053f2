"""What the manifest says of the training fits the recipe, the data and itself."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from ocl_bench.finetune.recipe import StageRecipe
from ocl_bench.leaderboard.checks.consistency import is_word_level
from ocl_bench.leaderboard.checks.data import Dataset
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.submission import MANIFEST
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.compute import training_precision
from ocl_bench.runner.identity import BaseIdentity, content_key
from ocl_bench.runner.jobs import stage_identity
from ocl_bench.runner.manifest import Manifest, StageRecord
from ocl_bench.runner.store import is_weights


def check_stages(checked: Checked, manifest: Manifest) -> None:
    """Weights chain from stage to stage, and no two trainings end in the same."""
    config = manifest.config
    names = [cell.name for cell in config.cells]
    told: dict[str, Mapping[str, Mapping[str, object]]] = {
        "stages": manifest.stages,
        "evaluations": manifest.evaluations,
    }
    for key, found in told.items():
        if sorted(found) != sorted(names):
            checked.add(MANIFEST, key, f"has not exactly the cells {', '.join(names)}")
            return
    for cell in config.cells:
        expected = [stage.name for stage in cell.owned(config.task)]
        for key, found in told.items():
            if list(found[cell.name]) != expected:
                checked.add(MANIFEST, f"{key}.{cell.name}", f"has not exactly the stages {', '.join(expected)}")
                return
    ends: Counter[str] = Counter()
    starts: dict[int, str] = {}
    for cell, number, record in stages_of(manifest):
        where = f"stages.{cell.name}.{config.task.stages[number].name}"
        if number:
            before = _stage(manifest, cell.owner(config.task, number - 1), number - 1).weights_after
            if record.weights_before != before:
                checked.add(MANIFEST, f"{where}.weights_before", "are not those that the stage before ended with")
        elif cell.shares is None:
            starts[cell.seed] = record.weights_before
        if record.weights_after == record.weights_before:
            checked.add(MANIFEST, f"{where}.weights_after", "are those that the stage began with")
        ends[record.weights_after] += 1
        if not any(map(is_weights, record.files)):
            checked.add(MANIFEST, f"{where}.files", "has no weights")
    if any(count > 1 for count in ends.values()):
        checked.add(MANIFEST, "stages", "two trainings ended with the same weights")
    if config.model.source == "scratch" and len(set(starts.values())) < len(starts):
        checked.add(MANIFEST, "stages", "two seeds began with the same random weights")
    if config.model.source != "scratch" and len(set(starts.values())) > 1:
        checked.add(MANIFEST, "stages", "seeds began with different weights, though the model is pretrained")


def stages_of(manifest: Manifest) -> Iterator[tuple[Cell, int, StageRecord]]:
    """Every stage that a cell trains itself: the cell, the stage's number, and what it did."""
    task = manifest.config.task
    for cell in manifest.config.cells:
        for stage in cell.owned(task):
            if stage.name in manifest.stages.get(cell.name, {}):
                yield cell, task.stages.index(stage), manifest.stages[cell.name][stage.name]


def _stage(manifest: Manifest, cell: Cell, number: int) -> StageRecord:
    return manifest.stages[cell.name][manifest.config.task.stages[number].name]


def check_keys(checked: Checked, manifest: Manifest, datasets: Mapping[Cell, Dataset]) -> None:
    """Every stage is found by the key that its data, parent and recipe give, and no other."""
    config = manifest.config
    if config.compute.training != training_precision(config.model, config.recipe):
        checked.add(MANIFEST, "config.compute.training", "is not what model and recipe give")
    for cell, number, record in stages_of(manifest):
        where = f"stages.{cell.name}.{config.task.stages[number].name}"
        parent: BaseIdentity | str = record.weights_before
        if number == 0:
            if not isinstance(record.identity.parent, BaseIdentity):
                checked.add(MANIFEST, f"{where}.identity.parent", "is not a model, though it is the first stage")
                continue
            parent = record.identity.parent
            _check_base(checked, manifest, parent, cell, datasets[cell], f"{where}.identity.parent")
        data = datasets[cell]
        _, dataset = data.trained_on(config.task.stages[number])
        own = stage_identity(config, cell, number, dataset, parent)
        for key in type(own).model_fields:
            if getattr(record.identity, key) != getattr(own, key):
                checked.add(MANIFEST, f"{where}.identity.{key}", "is not what task, recipe and seeds give")
        if record.key != content_key(record.identity):
            checked.add(MANIFEST, f"{where}.key", "is not the sha256 of the identity")


def _check_base(
    checked: Checked, manifest: Manifest, base: BaseIdentity, cell: Cell, records: Dataset, where: str
) -> None:
    spec = manifest.config.model
    scratch, hub = spec.source == "scratch", spec.source == "hub"
    expected: dict[str, object] = {
        "source": spec.source,
        "name": spec.location if hub else None,
        "revision": manifest.model_revision if hub else None,
        "dtype": spec.args.dtype,
        "attn_implementation": spec.args.attn_implementation,
        "init_seed": cell.init_seed(manifest.config.task) if scratch else None,
    }
    if scratch and checked.submission is not None and checked.submission.division == "standard":
        expected["tokenizer"] = records.vocabulary
    for key, value in expected.items():
        if getattr(base, key) != value:
            checked.add(MANIFEST, f"{where}.{key}", "is not that of the model")


def check_training(checked: Checked, manifest: Manifest, datasets: Mapping[Cell, Dataset]) -> None:
    """Each stage had the data that the task gives it, and took the steps that the recipe takes on them."""
    config, recipe = manifest.config, manifest.config.recipe
    for cell, number, record in stages_of(manifest):
        stage, where = config.task.stages[number], f"stages.{cell.name}.{config.task.stages[number].name}"
        records, _ = datasets[cell].trained_on(stage)
        if number >= len(recipe.epochs):
            continue  # said already
        own = recipe.of_stage(number)
        pools = datasets[cell].pools(stage, own)
        expected = {"records": len(records), "effective_batch_size": recipe.effective_batch_size}
        expected["epochs"] = own.epochs
        expected["optimizer_steps"] = own.epochs * _steps(sum(pool.per_epoch for pool in pools), record)
        for key, value in expected.items():
            if getattr(record, key) != value:
                checked.add(MANIFEST, f"{where}.{key}", f"is {getattr(record, key)}; data and recipe give {value}")
        _check_rates(checked, own, record, where)
        word_level = is_word_level(manifest, cell, datasets[cell])
        least, most = datasets[cell].token_range(stage, own, record.epochs, word_level)
        if not least <= record.real_tokens <= most:
            range_text = f"{least}" if least == most else f"{least} to {most}"
            checked.add(MANIFEST, f"{where}.real_tokens", f"is {record.real_tokens}; the data have {range_text}")


def _steps(drawn: int, record: StageRecord) -> int:
    """Optimizer steps of an epoch: micro-batches are gathered to the effective batch."""
    micro = max(1, record.micro_batch_size)
    return math.ceil(math.ceil(drawn / micro) / max(1, record.effective_batch_size // micro))


def _check_rates(checked: Checked, recipe: StageRecipe, record: StageRecord, where: str) -> None:
    """The learning rates are those of the recipe's schedule over the stage's steps."""
    if record.micro_batch_size < 1 or recipe.effective_batch_size % max(1, record.micro_batch_size):
        checked.add(MANIFEST, f"{where}.micro_batch_size", "does not divide the effective batch size")
    last = max(0, record.optimizer_steps - 1)
    # It rises over the warm-up, and does not rise after it.
    at = {"first": 0, "peak": min(recipe.warmup_steps, last), "last": last}
    for name, step in at.items():
        rate = recipe.learning_rate * _factor(recipe, step, record.optimizer_steps)
        given = getattr(record, f"learning_rate_{name}")
        if not math.isclose(given, rate, rel_tol=1e-6, abs_tol=1e-12 * recipe.learning_rate):
            checked.add(MANIFEST, f"{where}.learning_rate_{name}", f"is {given:g}; the recipe gives {rate:g}")


def _factor(recipe: StageRecipe, step: int, steps: int) -> float:
    """Learning rate of a step, from 0, as a share of the recipe's: transformers' schedules of these names."""
    kind, warmup = recipe.lr_scheduler_type, recipe.warmup_steps
    if kind == "constant":
        return 1.0
    if step < warmup:
        return step / max(1, warmup)
    if kind == "constant_with_warmup":
        return 1.0
    progress = (step - warmup) / max(1, steps - warmup)
    return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)) if kind == "cosine" else 1 - progress)
