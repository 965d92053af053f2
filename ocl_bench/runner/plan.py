"""Turn a request into a checked configuration. Everything that can be refused is refused here, before any training."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from ocl_bench.collection import without_collection
from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.evaluate.ability import require_tasks
from ocl_bench.evaluate.engines import Work, choose_engine, require_engine
from ocl_bench.evaluate.gradient_checks import check_epochs, check_memory, check_variables
from ocl_bench.evaluate.questions import asked_after
from ocl_bench.files import sha256
from ocl_bench.finetune.epoch import epoch_pools
from ocl_bench.finetune.recipe import Recipe, load_recipe, recipe_files
from ocl_bench.models.spec import ModelArgs, ModelSpec, parse_model
from ocl_bench.runner.cells import Cell, cells_of
from ocl_bench.runner.compute import (
    TRAINING_BYTES_PER_PARAMETER,
    Compute,
    available_cores,
    evaluation_precision,
    job_slots,
    pick_device,
    pick_devices,
    sharded_over,
    training_precision,
)
from ocl_bench.runner.devices import memory_of
from ocl_bench.runner.identity import content_key
from ocl_bench.runner.manifest import RunConfig
from ocl_bench.runner.request import AUTO_BYTES, RunRequest
from ocl_bench.tasks.build import build, load_entities, require_cells, require_questions
from ocl_bench.tasks.load import load_task, task_files
from ocl_bench.tasks.records import Record, answer_text, texts
from ocl_bench.tasks.schema import Recipes, Task
from ocl_bench.tasks.subsets import subset_sizes

BYTES_PER_WEIGHT = 4


class RunIdentity(Contract):
    """What decides a run's numbers, and so which folder it has: the same command finds it again."""

    schema_version: int = Field(1, description="version of this format")
    model: ModelSpec = Field(description="the model")
    task: Task = Field(description="the task")
    recipe: Recipe = Field(description="the recipe")
    seeds: tuple[int, ...] = Field(description="stage-1 seeds")
    stage2_seeds: tuple[int, ...] = Field(description="stage-2 seeds")
    own_x0: bool = Field(False, exclude_if=lambda own: not own, description="whether each seed has an X0 of its own")
    precision: tuple[str, str] = Field(description="of training and of evaluation")
    engine: str = Field(description="what generates answers")
    engine_args: dict[str, Any] = Field(description="arguments of vLLM")
    also_tasks: tuple[str, ...] = Field(description="tasks of lm-eval")
    limit: int | None = Field(description="questions per subset")
    curves: bool = Field(description="whether learning curves are recorded")
    processes: int = Field(1, exclude_if=lambda count: count == 1, description="processes that train a stage together")


@dataclass(frozen=True)
class Plan:
    """A run that can start.

    Attributes:
        config: the resolved configuration.
        records: cell → its dataset.
        model_revision: commit of a hub model.
        parameters: the model's parameters.
        engine_defaults: vLLM's arguments as they are without those that the user passed.
        disk: bytes that its weights may take.
    """

    config: RunConfig
    records: dict[Cell, list[Record]]
    model_revision: str | None
    parameters: int
    engine_defaults: dict[str, Any]
    disk: int

    @cached_property
    def key(self) -> str:
        """Hex SHA-256 of what decides the run's numbers."""
        config, compute = self.config, self.config.compute
        return content_key(
            RunIdentity(
                model=config.model,
                task=config.task,
                recipe=config.recipe,
                seeds=config.seeds,
                stage2_seeds=config.stage2_seeds,
                own_x0=config.own_x0,
                precision=(str(compute.training), str(compute.evaluation)),
                engine=compute.engine,
                engine_args=compute.engine_args,
                also_tasks=config.also_tasks,
                limit=config.limit,
                curves=config.curves,
                processes=compute.processes,
            )
        )


@dataclass(frozen=True)
class Choice:
    """What a request names, loaded.

    Attributes:
        seeds: stage-1 seeds.
        modified: whether anything differs from the suite's own task and the recipe that it names.
    """

    model: ModelSpec
    task: Task
    recipe: Recipe
    seeds: tuple[int, ...]
    modified: bool


def choose(request: RunRequest) -> Choice:
    """Resolve names and overrides. Raises OclBenchError for whatever cannot be found or does not fit together."""
    of_recipe = [text.removeprefix("recipe.") for text in request.overrides if _is_of_recipe(text)]
    of_task = [text for text in request.overrides if not _is_of_recipe(text)]
    for text in of_task:
        key = text.partition("=")[0].partition(".")[0]
        if key not in Task.model_fields and key in Recipe.model_fields:
            raise OclBenchError(f"--set {text}: '{key}' is the recipe's; write recipe.{text}")
    chosen = load_task(request.task, of_task, request.include_path)
    args = request.model_args
    if request.trust_remote_code:
        args = args.model_copy(update={"trust_remote_code": True})
    spec = parse_model(chosen.model if request.model is None else request.model, args)
    default = default_recipe(spec, chosen)
    loaded = load_recipe(default if request.recipe is None else request.recipe, of_recipe, request.include_path)
    check_recipe(loaded, chosen)
    seeds = request.seeds if request.seeds is not None else chosen.standard_seeds
    return Choice(spec, chosen, loaded, seeds, not is_standard(spec, chosen, loaded))


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
    return plain and task.scored == load_task(task.task).scored and recipe == load_recipe(own_recipe)


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
    entities = load_entities(task)
    sizes = subset_sizes(task.design.fractions, task.design.alpha, len(entities))
    require_questions(task, sizes, entities)
    require_cells(task, entities)
    for name in (task.recipe.scratch, task.recipe.pretrained):
        check_recipe(load_recipe(name, include_path=include_path), task)
    return task


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


class Fit:
    """Whether a model fits datasets, which are shown to it one after the other, and the recipe fits the model.

    Args:
        choice: the model, its task and recipe.
        there: whether it is for another machine.

    Raises:
        OclBenchError: if it cannot be had, or is none that can be trained on the task.
    """

    def __init__(self, choice: Choice, there: bool) -> None:
        from transformers.utils import logging

        from ocl_bench.models.load import hub_commit, load_config, require_decoder, require_weights

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.choice, self.there, self.spec = choice, there, choice.model
        self.revision = hub_commit(self.spec)
        if self.revision is not None:
            args = self.spec.args.model_copy(update={"revision": self.revision})
            self.spec = self.spec.model_copy(update={"args": args})
        require_weights(self.spec)
        self.config = load_config(self.spec)
        require_decoder(self.spec, self.config)
        self.parameters = 0
        self._sizes: set[int] = set()
        self._longest = 0
        self._vocabularies: set[str] = set()
        self._seen: set[int] = set()  # seeds may share records, and then their tokenizer is the same, or refused below

    def add(self, records: list[Record]) -> None:
        """Show a cell's dataset. Raises OclBenchError if it does not fit."""
        from ocl_bench.models.encoding import Encoder
        from ocl_bench.models.load import check_fit, fitted, load_tokenizer

        spec, task = self.spec, self.choice.task
        tokenizer = load_tokenizer(spec, texts(records))
        encoder = Encoder(tokenizer, self.config.is_encoder_decoder)
        new = [one for one in records if id(one) not in self._seen]
        self._seen |= set(map(id, new))
        trained = encoder([(record.given, record.completion) for record in new if record.split != "test"])
        tests = [one for one in new if one.split == "test"]
        asked = encoder([(one.given, answer_text(answer)) for one in tests for answer in one.answers])
        answer = task.evaluate.max_new_tokens
        own = fitted(spec, self.config, tokenizer)
        check_fit(spec, own, encoder.pad_id, asked, trained, answer)
        if spec.source == "scratch" and task.shared_stages:
            self._vocabularies.add(sha256("\n".join(sorted(tokenizer.get_vocab()))))
        if len(self._vocabularies) > 1:
            raise OclBenchError(
                f"task '{task.task}': the seeds' datasets have different words, so no X0 fits them all; let every "
                "variable occur in each, as by leaving qa_unreplaced out of design.fractions, or pass --own_x0."
            )
        self._sizes.add(own.get_text_config().vocab_size)
        self._longest = max(self._longest, *(len(one.prompt) + max(len(one.completion), answer) for one in asked))
        self._read(records, tokenizer, encoder)

    def _read(self, records: list[Record], tokenizer: Any, encoder: Any) -> None:
        """Check what is trained and read of the model's insides: of the first dataset also whether it has them."""
        from ocl_bench.evaluate.probe_checks import check_layers, check_probes
        from ocl_bench.models.load import outline

        name, task, probes = self.spec.name, self.choice.task, self.choice.task.evaluate.probes
        looks = 0 if probes is None else check_probes(probes, task, name, encoder, records)
        if self.parameters:
            return
        model = outline(self.spec, self.config, tokenizer)
        for number in range(len(task.stages)):
            if (adapter := self.choice.recipe.of_stage(number).adapter) is not None:
                from ocl_bench.finetune.adapter import adaptable  # imports peft, and that Trainer

                adaptable(model, adapter, f"--model {name}")
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        if probes is not None:
            picture = next((one.picture for one in records), None)
            check_layers(probes, name, model, picture, looks, room=not self.there)

    def model(self) -> CheckedModel:
        """The model, once all datasets were shown."""
        return CheckedModel(
            self.spec,
            self.revision,
            self.parameters,
            self.config.is_encoder_decoder,
            frozenset(self._sizes),
            self._longest,
        )


@dataclass(frozen=True)
class Checked:
    """A choice that fits together, as far as its first dataset shows.

    Attributes:
        model: how it fits the datasets that were shown to it: only the first so far.
        cells: of the run.
        first: the dataset of the first cell.
        devices: that were named; None if none was.
        device: the first device.
        processes: that train one model together.
        there: whether the run is for another machine.
    """

    model: Fit
    cells: tuple[Cell, ...]
    first: list[Record]
    devices: tuple[str, ...] | None
    device: str
    processes: int
    there: bool


def check_choice(choice: Choice, request: RunRequest, there: bool = False) -> Checked:
    """Check all that one dataset can show, what is quick to find first.

    Args:
        choice: what to run.
        request: how to run it.
        there: plan for another machine, whose GPUs are as many as asked for.

    Raises:
        OclBenchError: for anything that would fail later.
    """
    task = choice.task
    if len(request.stage2_seeds) > 1 and task.first_x2_stage == len(task.stages):
        raise OclBenchError(f"--stage2_seeds: task '{task.task}' has no stage that trains on x2; give one.")
    if request.engine_args and request.engine == "torch":
        raise OclBenchError("--engine_args are vLLM's, and --engine is torch; leave one of them out.")
    require_engine(request.engine)
    _check_place(choice, request)
    if request.also_tasks and task.design.picture is not None:
        raise OclBenchError(f"--also_tasks: lm-eval asks in text, and models of task '{task.task}' look at pictures.")
    devices = None if request.devices is None else pick_devices(request.devices, there)
    device = devices[0] if devices else "cuda" if there else pick_device(request.device)
    sharded_over(request.shard, device, 1, there)  # of a model of any size
    _check_trackers(request.report_to)
    if request.also_tasks:
        require_tasks(request.also_tasks, request.include_path)
    model = Fit(choice, there)
    cells = cells_of(choice.seeds, request.stage2_seeds, request.own_x0)
    first = build(task, cells[0].seed, cells[0].stage2_seed, cells[0].x0_seed)
    model.add(first)
    if task.evaluate.gradients is not None:
        check_variables(task.evaluate.gradients, task, first)
    processes = sharded_over(request.shard, device, model.parameters, there)
    _check_gradients(choice, processes, model.parameters, None if there else memory_of(device))
    if not there:
        stages = sum(len(cell.owned(task)) for cell in cells)
        _check_disk(request, disk_needed(request.keep, model.parameters, stages, len(cells)))
    return Checked(model, cells, first, devices, device, processes, there)


def too_large_batch(plan: Plan) -> str | None:
    """A sentence where no stage has as many datapoints as an optimizer step takes; None else."""
    task, records = plan.config.task, next(iter(plan.records.values()))
    sizes = {}
    for number, stage in enumerate(task.stages):
        recipe = plan.config.recipe.of_stage(number)
        sizes[stage.name] = sum(pool.per_epoch for pool in epoch_pools(stage, recipe, records))
        if recipe.effective_batch_size <= sizes[stage.name]:
            return None
    has = " and ".join(f"{name} has {size}" for name, size in sizes.items())
    return f"recipe.effective_batch_size: no stage has as many datapoints ({has}), so that each epoch is a single step"


@without_collection()
def make_plan(
    choice: Choice, request: RunRequest, on_built: Callable[[], None], jobs: int | None = None, there: bool = False
) -> Plan:
    """Build the data, load configuration and tokenizer, and check that they fit together and on the disk.

    Args:
        choice: what to run.
        request: how to run it.
        on_built: called after each dataset.
        jobs: how many of its stages are to be done at the same time here; None: one of each seed.
        there: plan for another machine, whose GPUs are as many as asked for.

    Raises:
        OclBenchError: for anything that would fail later, whatever the first dataset shows before others are built.
    """
    task, limit = choice.task, request.limit
    checked = check_choice(choice, request, there)
    on_built()
    cells, device, devices, processes = checked.cells, checked.device, checked.devices, checked.processes
    records = {cells[0]: checked.first}
    for cell in cells[1:]:
        records[cell] = build(task, cell.seed, cell.stage2_seed, cell.x0_seed)
        checked.model.add(records[cell])
        if task.evaluate.gradients is not None:
            check_variables(task.evaluate.gradients, task, records[cell])
        on_built()
    model = checked.model.model()
    stages = sum(len(cell.owned(task)) for cell in cells)
    disk = disk_needed(request.keep, model.parameters, stages, len(cells))
    if processes > 1:
        slots: tuple[str, ...] = (device,)
    else:
        jobs = len(cells) if jobs is None else jobs
        slots = devices[:jobs] if devices else job_slots(device, min(jobs, len(choice.seeds)), model.parameters)
    questions = sum(
        len(asked_after(task, stage.name, records[cell], limit, cell.seed))
        for cell in cells
        for stage in cell.owned(task)
    )
    pictures = task.design.picture is not None
    tokens, several = questions * task.evaluate.max_new_tokens, len(slots) * processes > 1
    work = Work(model.seq2seq, model.vocabulary_sizes, device, tokens, pictures, several)
    chosen, reason = choose_engine(request.engine, work)
    decided = _engine_args(choice, model.longest, device) if chosen == "vllm" else {}
    config = RunConfig(
        model=model.spec,
        task=task,
        recipe=choice.recipe,
        seeds=choice.seeds,
        stage2_seeds=request.stage2_seeds,
        own_x0=request.own_x0,
        compute=Compute(
            slots=slots,
            processes=processes,
            threads=max(1, available_cores() // (len(slots) * processes)),
            training=training_precision(choice.model, choice.recipe),
            evaluation=evaluation_precision(choice.model, choice.recipe, device),
            engine=chosen,
            engine_reason=reason,
            engine_args=decided | request.engine_args if chosen == "vllm" else {},
        ),
        batch_size=request.batch_size,
        also_tasks=request.also_tasks,
        also_path=tuple(str(path.absolute()) for path in request.include_path),
        limit=limit,
        curves=request.curves,
        report_to=request.report_to,
        checkpoint_seconds=request.checkpoint_seconds,
        modified=choice.modified,
    )
    return Plan(config, records, model.revision, model.parameters, decided, disk)


def _check_gradients(choice: Choice, processes: int, parameters: int, memory: int | None) -> None:
    """Refuse gradients that cannot be looked at; `memory` of the device in bytes, None of one that is not here."""
    task, gradients = choice.task, choice.task.evaluate.gradients
    if gradients is None:
        return
    epochs = dict(zip((stage.name for stage in task.stages), choice.recipe.epochs, strict=True))
    own_stages = [stage.name for stage in task.stages[task.shared_stages :]]
    adapted = choice.recipe.adapter is not None
    check_epochs(gradients, {name: epochs[name] for name in own_stages}, adapted, processes)
    if memory is not None:
        check_memory(parameters, TRAINING_BYTES_PER_PARAMETER if gradients.epochs else 0, memory)


def _check_place(choice: Choice, request: RunRequest) -> None:
    """Refuse options that say where to train and do not go together."""
    if request.devices is not None and request.device is not None:
        raise OclBenchError("--device and --devices both say where to train; leave one of them out.")
    if request.shard in (None, 1):
        return
    if request.devices is not None:
        raise OclBenchError(
            "--shard takes the first devices for one seed, --devices one for each; leave one of them out."
        )
    if choice.recipe.adapter is not None:
        raise OclBenchError(
            f"--shard {request.shard}: recipe '{choice.recipe.recipe}' trains an adapter, whose gradients would differ "
            "between devices; leave it out, or finetune in full with --set recipe.adapter=null."
        )
    if choice.task.design.picture is not None:
        raise OclBenchError(
            f"--shard {request.shard}: models of task '{choice.task.task}' look at pictures; leave it out."
        )


def disk_needed(keep: str, parameters: int, stages: int, cells: int) -> int:
    """Bytes of a run's weights: those kept, and the epoch checkpoints of one stage."""
    kept = {"all": stages, "last": cells + 1, "none": 2, "auto": stages}
    weights = kept[keep] * parameters * BYTES_PER_WEIGHT
    if keep == "auto":
        weights = min(weights, AUTO_BYTES + 2 * parameters * BYTES_PER_WEIGHT)
    return weights + 2 * TRAINING_BYTES_PER_PARAMETER * parameters


def _check_disk(request: RunRequest, needed: int) -> None:
    """Refuse a run whose weights the disk has no room for."""
    existing = next(path for path in (request.output_path, *request.output_path.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise OclBenchError(
            f"--output_path {request.output_path}: the run may need {needed / 1e9:.3g} GB and the disk has "
            f"{free / 1e9:.3g} GB left; free some, choose another folder, or keep fewer weights with --keep last."
        )


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


def _check_trackers(names: Sequence[str]) -> None:
    if not names:
        return  # what follows imports much
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise OclBenchError(f"--report_to: unknown tracker '{name}'; {did_you_mean(name, INTEGRATION_TO_CALLBACK)}")
        if name not in get_available_reporting_integrations():
            raise OclBenchError(f"--report_to {name}: the tracker's package is not installed; pip install {name}.")
