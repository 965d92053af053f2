"""Turn a request into a checked configuration. Everything that can be refused is refused here, before any training."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.evaluate.ability import task_manager
from ocl_bench.evaluate.engines import Work, check_engine_args, choose_engine
from ocl_bench.finetune.recipe import Recipe, load_recipe, recipe_files
from ocl_bench.models.spec import ModelArgs, ModelSpec, parse_model
from ocl_bench.runner.devices import pick_device
from ocl_bench.runner.manifest import RunConfig, available_cores
from ocl_bench.tasks.build import build, load_entities
from ocl_bench.tasks.load import load_task, task_files
from ocl_bench.tasks.records import Record, answer_text, texts
from ocl_bench.tasks.schema import Recipes, Task
from ocl_bench.tasks.subsets import subset_sizes

# Bytes per parameter of training in fp32 with Adam: weight, gradient and two moments.
TRAINING_BYTES_PER_PARAMETER = 16
MAX_SEEDS = 1000


@dataclass(frozen=True)
class Plan:
    """A run that can start.

    Attributes:
        config: the resolved configuration.
        records: cell → its dataset.
        model_revision: commit of a hub model.
        parameters: the model's parameters.
        engine_defaults: vLLM's arguments as they are without those that the user passed.
    """

    config: RunConfig
    records: dict[str, list[Record]]
    model_revision: str | None
    parameters: int
    engine_defaults: dict[str, Any]


def cell_name(seed: int, stage2_seed: int) -> str:
    """Folder of one stage-1 seed with one stage-2 seed."""
    return f"seed-{seed}" if stage2_seed == 0 else f"seed-{seed}-stage2-{stage2_seed}"


def parse_seeds(text: str, option: str) -> tuple[int, ...]:
    """`3` → 0, 1, 2; `4,7` → 4, 7; `4,` → 4."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part and not part.removeprefix("-").isdecimal():
            raise OclBenchError(f"{option}: '{part}' is not a number; write 5 for five seeds, or 0,1,2.")
    numbers = [int(part) for part in parts if part]
    return check_seeds(numbers if "," in text else sum(numbers), option)


def check_seeds(seeds: int | Sequence[int], option: str) -> tuple[int, ...]:
    """Seeds as a tuple; a single number is a count. Raises OclBenchError unless they are different 32-bit numbers."""
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 0 < seeds <= MAX_SEEDS:
        return tuple(range(seeds))
    chosen = () if isinstance(seeds, (int, str)) else tuple(seeds)
    sound = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**32 for seed in chosen)
    if not sound or not 0 < len(chosen) <= MAX_SEEDS or len(set(chosen)) < len(chosen):
        raise OclBenchError(
            f"{option} {seeds}: give 1 to {MAX_SEEDS} different seeds from 0 to 4294967295, or how many."
        )
    return chosen


@dataclass(frozen=True)
class Choice:
    """What a request names, loaded.

    Attributes:
        modified: whether anything differs from the suite's own task and the recipe that it names.
    """

    model: ModelSpec
    task: Task
    recipe: Recipe
    modified: bool


def choose(
    model: str | None,
    task: str,
    *,
    model_args: ModelArgs | None = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    include_path: Sequence[Path] = (),
    trust_remote_code: bool = False,
) -> Choice:
    """Resolve names and overrides. Raises OclBenchError for whatever cannot be found or does not fit together."""
    of_recipe = [text.removeprefix("recipe.") for text in overrides if _is_of_recipe(text)]
    of_task = [text for text in overrides if not _is_of_recipe(text)]
    chosen = load_task(task, of_task, include_path)
    args = model_args or ModelArgs()
    if trust_remote_code:
        args = args.model_copy(update={"trust_remote_code": True})
    spec = parse_model(chosen.model if model is None else model, args)
    default = default_recipe(spec, chosen)
    loaded = load_recipe(recipe or default, of_recipe, include_path)
    check_recipe(loaded, chosen)
    return Choice(spec, chosen, loaded, not is_standard(spec, chosen, loaded))


def _is_of_recipe(override: str) -> bool:
    # recipe.scratch and recipe.pretrained are keys of the task: which recipe it names.
    key = override.partition("=")[0]
    return key.startswith("recipe.") and key.removeprefix("recipe.") not in Recipes.model_fields


def default_recipe(spec: ModelSpec, task: Task) -> str:
    """The recipe that the task names for this kind of model."""
    return task.recipe.scratch if spec.source == "scratch" else task.recipe.pretrained


def is_standard(spec: ModelSpec, task: Task, recipe: Recipe) -> bool:
    """Whether task and recipe are the suite's own, by value, and the model is loaded as it comes."""
    own_recipe = default_recipe(spec, task)
    if task.task not in task_files() or own_recipe not in recipe_files():
        return False
    plain = spec.args.dtype == ModelArgs.model_fields["dtype"].default and spec.args.tokenizer is None
    return plain and task == load_task(task.task) and recipe == load_recipe(own_recipe)


def check_recipe(recipe: Recipe, task: Task) -> None:
    """Refuse a recipe whose stages are not the task's."""
    if len(recipe.epochs) != len(task.stages):
        raise OclBenchError(
            f"recipe '{recipe.recipe}' has epochs for {len(recipe.epochs)} stages, task '{task.task}' has "
            f"{len(task.stages)}; set them with --set 'recipe.epochs=[…]'."
        )


def validate_task(path: Path, include_path: Sequence[Path] = ()) -> Task:
    """Check all of a task file that can be checked without a model. Raises OclBenchError with the first mistake."""
    task = load_task(str(path), include_path=include_path)
    subset_sizes(task.design.fractions, task.design.alpha, len(load_entities(task)))
    for name in (task.recipe.scratch, task.recipe.pretrained):
        load_recipe(name, include_path=include_path)
    return task


def make_plan(
    choice: Choice,
    *,
    seeds: tuple[int, ...],
    stage2_seeds: tuple[int, ...],
    device: str | None,
    batch_size: int | None,
    engine: str,
    engine_args: Mapping[str, Any],
    also_tasks: tuple[str, ...],
    also_path: tuple[Path, ...],
    limit: int | None,
    curves: bool,
    report_to: tuple[str, ...],
    on_built: Callable[[], None],
) -> Plan:
    """Build the data, load configuration and tokenizer, and check that they fit together.

    Args:
        choice: what to run.
        device: None takes CUDA, then MPS, then the CPU.
        engine: auto, torch or vllm.
        engine_args: arguments of `vllm.LLM`.
        also_tasks: tasks of lm-eval; `also_path`: folders with further ones.
        on_built: called after each dataset.

    Raises:
        OclBenchError: for anything that would fail later.
    """
    task = choice.task
    if len(stage2_seeds) > 1 and task.first_x2_stage == len(task.stages):
        raise OclBenchError(f"--stage2_seeds: task '{task.task}' has no stage that trains on x2; give one.")
    device = pick_device(device)
    _check_trackers(report_to)
    own_args = check_engine_args(engine_args)
    if also_tasks:
        task_manager(also_tasks, also_path)
    records = {}
    for seed in seeds:
        for stage2_seed in stage2_seeds:
            records[cell_name(seed, stage2_seed)] = build(task, seed, stage2_seed)
            on_built()
    model = _check_model(choice.model, task, records)
    workers = _workers(device, len(seeds), model.parameters)
    questions = sum(_asked(cell, limit) for cell in records.values()) * len(task.stages)
    work = Work(model.seq2seq, model.vocabulary_sizes, device, questions * task.evaluate.max_new_tokens)
    chosen, reason = choose_engine(engine, work)
    if own_args and engine == "torch":
        raise OclBenchError("--engine_args are vLLM's, and --engine is torch; leave one of them out.")
    decided = _engine_args(choice, model.longest, device) if chosen == "vllm" else {}
    config = RunConfig(
        model=model.spec,
        task=task,
        recipe=choice.recipe,
        seeds=seeds,
        stage2_seeds=stage2_seeds,
        device=device,
        workers=workers,
        threads=max(1, available_cores() // workers),
        batch_size=batch_size,
        engine=chosen,
        engine_reason=reason,
        engine_args=decided | own_args if chosen == "vllm" else {},
        also_tasks=also_tasks,
        also_path=tuple(str(path.absolute()) for path in also_path),
        limit=limit,
        curves=curves,
        report_to=report_to,
        modified=choice.modified,
    )
    return Plan(config, records, model.revision, model.parameters, decided)


def _asked(records: Sequence[Record], limit: int | None) -> int:
    """Questions that a stage of a cell is asked."""
    by_subset = Counter((record.subset, record.kind) for record in records if record.split == "test")
    return sum(count if limit is None else min(count, limit) for count in by_subset.values())


def _engine_args(choice: Choice, longest: int, device: str) -> dict[str, Any]:
    """vLLM's arguments, as far as model, task and recipe decide them."""
    bf16 = choice.recipe.precision == "bf16" or choice.model.args.dtype == "bfloat16"
    return {
        "dtype": "bfloat16" if bf16 else "float32",
        "max_model_len": longest,
        "enforce_eager": True,  # answers are short: compiling and recording graphs does not pay
        "trust_remote_code": choice.model.args.trust_remote_code,
        **({} if device == "cpu" else {"tensor_parallel_size": 1}),
    }


@dataclass(frozen=True)
class CheckedModel:
    """A model that fits its data.

    Attributes:
        spec: with a hub model's revision pinned to a commit.
        revision: that commit.
        parameters: how many it has.
        seq2seq: whether it has an encoder and a decoder.
        vocabulary_sizes: of its embedding, over all cells.
        longest: tokens of the longest prompt with its longest answer.
    """

    spec: ModelSpec
    revision: str | None
    parameters: int
    seq2seq: bool
    vocabulary_sizes: frozenset[int]
    longest: int


def _check_model(spec: ModelSpec, task: Task, records: Mapping[str, list[Record]]) -> CheckedModel:
    """Load configuration and tokenizers, and check that every dataset fits them."""
    from transformers.utils import logging

    from ocl_bench.models.encoding import Encoder
    from ocl_bench.models.load import (
        check_fit,
        hub_commit,
        load_config,
        load_tokenizer,
        parameter_count,
        require_weights,
    )

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = load_config(spec)
    require_weights(spec)
    revision = hub_commit(spec)
    if revision is not None:
        spec = spec.model_copy(update={"args": spec.args.model_copy(update={"revision": revision})})
    sizes, longest = set(), 0
    for cell in records.values():
        tokenizer = load_tokenizer(spec, texts(cell))
        encoder = Encoder(tokenizer, config.is_encoder_decoder)
        trained = encoder([(record.prompt, record.completion) for record in cell if record.split != "test"])
        asked = encoder(
            [(one.prompt, answer_text(answer)) for one in cell if one.split == "test" for answer in one.answers]
        )
        answer = task.evaluate.max_new_tokens
        check_fit(spec, config, encoder.pad_id, asked, trained, answer)
        sizes.add(len(tokenizer) if spec.source == "scratch" else config.get_text_config().vocab_size)
        longest = max(longest, *(len(one.prompt) + max(len(one.completion), answer) for one in asked))
    return CheckedModel(
        spec, revision, parameter_count(spec, config, tokenizer), config.is_encoder_decoder, frozenset(sizes), longest
    )


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


def _workers(device: str, seeds: int, parameters: int) -> int:
    """On a CPU, seeds side by side on one core each beat one seed on all cores, as long as memory allows."""
    import psutil

    if device != "cpu":
        return 1
    fitting = psutil.virtual_memory().available // (2 * TRAINING_BYTES_PER_PARAMETER * max(parameters, 1))
    return max(1, min(seeds, available_cores(), fitting))
