"""Turn a request into a checked configuration. Everything that can be refused is refused here, before any training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.finetune.recipe import Recipe, load_recipe
from ocl_bench.models.spec import ModelSpec, parse_model
from ocl_bench.runner.manifest import RunConfig, available_cores
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task

# Bytes per parameter of training in fp32 with Adam: weight, gradient and two moments.
TRAINING_BYTES_PER_PARAMETER = 16


@dataclass(frozen=True)
class Plan:
    """A run that can start.

    Attributes:
        config: the resolved configuration.
        records: cell → its dataset.
        model_revision: commit of a hub model.
        parameters: the model's parameters.
    """

    config: RunConfig
    records: dict[str, list[Record]]
    model_revision: str | None
    parameters: int


def cell_name(seed: int, stage2_seed: int) -> str:
    """Folder of one stage-1 seed with one stage-2 seed."""
    return f"seed-{seed}" if stage2_seed == 0 else f"seed-{seed}-stage2-{stage2_seed}"


def parse_seeds(text: str, option: str) -> tuple[int, ...]:
    """`3` → 0, 1, 2; `4,7` → 4, 7; `4,` → 4."""
    parts = [part.strip() for part in text.split(",")]
    try:
        numbers = [int(part) for part in parts if part]
    except ValueError:
        wrong = next(part for part in parts if part and not part.lstrip("-").isdigit())
        raise OclBenchError(f"{option}: '{wrong}' is not a number; write 5 for five seeds, or 0,1,2.") from None
    seeds = numbers if "," in text else list(range(*numbers))
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise OclBenchError(f"{option} {text}: give at least one seed, none negative and none twice.")
    return tuple(seeds)


def choose(
    model: str,
    task: str,
    *,
    model_args: str = "",
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    include_path: Sequence[Path] = (),
    trust_remote_code: bool = False,
) -> tuple[ModelSpec, Task, Recipe, bool]:
    """Resolve names and overrides: model, task, recipe, and whether anything differs from what the task file names."""
    spec = parse_model(model, model_args, trust_remote_code)
    of_recipe = [text.removeprefix("recipe.") for text in overrides if text.startswith("recipe.")]
    of_task = [text for text in overrides if not text.startswith("recipe.")]
    chosen = load_task(task, of_task, include_path)
    default = chosen.recipe.scratch if spec.source == "scratch" else chosen.recipe.pretrained
    loaded = load_recipe(recipe or default, of_recipe, include_path)
    if len(loaded.epochs) != len(chosen.stages):
        raise OclBenchError(
            f"recipe '{loaded.recipe}' has epochs for {len(loaded.epochs)} stages, task '{chosen.task}' has "
            f"{len(chosen.stages)}; set them with --set 'recipe.epochs=[…]'."
        )
    return spec, chosen, loaded, bool(overrides) or loaded.recipe != default


def make_plan(
    spec: ModelSpec,
    task: Task,
    recipe: Recipe,
    overridden: bool,
    *,
    seeds: tuple[int, ...],
    stage2_seeds: tuple[int, ...],
    device: str | None,
    batch_size: int | None,
    limit: int | None,
    curves: bool,
    report_to: tuple[str, ...],
    on_built: Callable[[], None],
) -> Plan:
    """Build the data, load configuration and tokenizer, and check that they fit together.

    Args:
        device: None takes CUDA, then MPS, then the CPU.
        on_built: called after each dataset.

    Raises:
        OclBenchError: for anything that would fail later.
    """
    records = {}
    for seed in seeds:
        for stage2_seed in stage2_seeds:
            records[cell_name(seed, stage2_seed)] = build(task, seed, stage2_seed)
            on_built()
    model_config, parameters = _check_model(spec, task, records[cell_name(seeds[0], stage2_seeds[0])])
    _check_trackers(report_to)
    device = _device(device)
    workers = _workers(device, len(seeds), parameters)
    config = RunConfig(
        model=spec,
        task=task,
        recipe=recipe,
        seeds=seeds,
        stage2_seeds=stage2_seeds,
        device=device,
        workers=workers,
        threads=max(1, available_cores() // workers),
        batch_size=batch_size,
        limit=limit,
        curves=curves,
        report_to=report_to,
        overridden=overridden,
    )
    return Plan(config, records, getattr(model_config, "_commit_hash", None), parameters)


def _check_model(spec: ModelSpec, task: Task, records: Sequence[Record]) -> tuple[Any, int]:
    from transformers.utils import logging

    from ocl_bench.models.encoding import Encoder
    from ocl_bench.models.load import check_fit, load_config, load_tokenizer, parameter_count

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = load_config(spec)
    tokenizer = load_tokenizer(spec, [record.prompt + record.completion for record in records])
    encoder = Encoder(tokenizer, config.is_encoder_decoder)
    encoded = encoder([(record.prompt, record.completion) for record in records])
    check_fit(spec, config, tokenizer, encoded, task.evaluate.max_new_tokens)
    return config, parameter_count(spec, config, tokenizer)


def _check_trackers(names: Sequence[str]) -> None:
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise OclBenchError(f"--report_to: unknown tracker '{name}'; {did_you_mean(name, INTEGRATION_TO_CALLBACK)}")
        if name not in get_available_reporting_integrations():
            raise OclBenchError(f"--report_to {name}: the tracker's package is not installed; pip install {name}.")


def _device(requested: str | None) -> str:
    import torch

    kinds = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if requested is None:
        return next((kind for kind in ("cuda", "mps") if kinds[kind]), "cpu")
    kind, _, number = requested.partition(":")
    if kind not in kinds or (number and not (kind == "cuda" and number.isdigit())):
        raise OclBenchError(f"--device {requested}: give cpu, cuda, cuda:N or mps.")
    if not kinds[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise OclBenchError(f"--device {requested}: this machine has no such device.")
    return requested


def _workers(device: str, seeds: int, parameters: int) -> int:
    """On a CPU, seeds side by side on one core each beat one seed on all cores, as long as memory allows."""
    import psutil

    if device != "cpu":
        return 1
    fitting = psutil.virtual_memory().available // (2 * TRAINING_BYTES_PER_PARAMETER * max(parameters, 1))
    return max(1, min(seeds, available_cores(), fitting))
