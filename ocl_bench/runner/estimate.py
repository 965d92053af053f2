"""What a run will take, told before it starts and without weights: parameters, memory, disk, steps, FLOPs, time."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.curve import curve_epochs
from ocl_bench.evaluate.questions import asked_after
from ocl_bench.evaluate.sampling import curve_sample
from ocl_bench.finetune.adapter import Adapted
from ocl_bench.finetune.cost import EpochShape, StepCost, epoch_shape, step_cost
from ocl_bench.finetune.epoch import epoch_pools, trained_on
from ocl_bench.finetune.recipe import StageRecipe
from ocl_bench.finetune.stage import micro_batch_size
from ocl_bench.models.batches import Collator, datapoints, decoder_start
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import fitted, load_config, load_tokenizer, outline
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.devices import Rated, present
from ocl_bench.runner.plan import Plan
from ocl_bench.tasks.records import Record, texts

# Bytes that a layer keeps for a token and a unit of its width, in bfloat16, fitted to Pythia's shapes: for models that
# look at numbers in their forward pass, which has none here.
BYTES_BY_RULE = 38
# Of a worker before it has a model: Python, torch and transformers.
WORKER_BYTES = 470 * 2**20
SHARDS = (2, 4, 8, 16, 32)  # devices that are offered
# Part of a device's memory that a run may plan with: kernels, allocator and driver take the rest.
USABLE = 0.95


@dataclass(frozen=True)
class StageEstimate:
    """One stage, of one cell.

    Attributes:
        name: the stage's.
        trainings: how many cells train it.
        records: that it trains on.
        steps: optimizer steps.
        tokens: that it is given, without padding.
        questions: that a training is asked after the stage.
        curve_questions: that it is asked in all points of its learning curve.
        micro_batch_size: datapoints per forward pass.
        memory: bytes at most, on its device; of a CPU's process in all.
        weights, gradients, optimizer, activations: what they are made of.
        flops: of all steps.
        seconds: about how long all steps take.
        by_rule: whether memory and FLOPs are by rule of thumb, because the model could not be tried.
    """

    name: str
    trainings: int
    records: int
    steps: int
    tokens: int
    questions: int
    curve_questions: int
    micro_batch_size: int
    memory: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    flops: float
    seconds: float
    by_rule: bool

    @property
    def least(self) -> int:
        """Bytes with one datapoint per forward pass."""
        return self.memory - self.activations + self.activations // self.micro_batch_size


@dataclass(frozen=True)
class Estimate:
    """A run.

    Attributes:
        plan: of the run.
        device: what it is planned for.
        stages: in order.
    """

    plan: Plan
    device: Rated
    stages: tuple[StageEstimate, ...]

    @property
    def at_a_time(self) -> int:
        """How many stages are trained at a time without one having to share its device or core with another."""
        slots = self.plan.config.compute.slots
        return len(slots) if self.device.kind == "cpu" else len(set(slots))

    @property
    def sharing(self) -> int:
        """How many processes have one memory: all of a CPU's, those on the same card of others."""
        compute = self.plan.config.compute
        on_one = len(compute.slots) * compute.processes if self.device.kind == "cpu" else 0
        return max(on_one, *Counter(compute.slots).values())

    @property
    def seconds(self) -> float:
        """About how long all training takes: stages of different seeds side by side."""
        return sum(one.seconds * -(-one.trainings // self.at_a_time) for one in self.stages)

    @property
    def memory(self) -> int:
        """Bytes at most on a card, or of all processes of a CPU."""
        return self.sharing * max(one.memory for one in self.stages)

    def to_json(self) -> str:
        """All of it as one JSON object, with the totals."""
        config = self.plan.config
        return json.dumps(
            {
                "task": config.task.task,
                "model": config.model.name,
                "recipe": config.recipe.recipe,
                "seeds": list(config.seeds),
                "parameters": self.plan.parameters,
                "device": asdict(self.device),
                "slots": list(config.compute.slots),
                "processes": config.compute.processes,
                "memory": self.memory,
                "disk": self.plan.disk,
                "seconds": self.seconds,
                "stages": [asdict(one) for one in self.stages],
            },
            indent=2,
        )


def estimate(plan: Plan, on: Rated | None = None) -> Estimate:
    """Try a step of each stage of a run with tensors that have no memory.

    Args:
        plan: of the run.
        on: a device to plan for; None takes the run's own.
    """
    compute = plan.config.compute
    device = on or present(compute.device)
    cell, task = plan.config.cells[0], plan.config.task
    counts = [sum(one.owner(task, number) == one for one in plan.config.cells) for number in range(len(task.stages))]
    tokenizer = load_tokenizer(plan.config.model, texts(plan.records[cell]))
    config = fitted(plan.config.model, load_config(plan.config.model), tokenizer)
    stages = tuple(
        _stage(plan, cell, number, counts[number], config, tokenizer, device) for number in range(len(counts))
    )
    return Estimate(plan, device, stages)


def _stage(
    plan: Plan, cell: Cell, number: int, trainings: int, config: Any, tokenizer: Any, device: Rated
) -> StageEstimate:
    stage, recipe = plan.config.task.stages[number], plan.config.recipe.of_stage(number)
    records = trained_on(stage, plan.records[cell])
    encoder = Encoder(tokenizer, config.is_encoder_decoder)
    points = datapoints(
        encoder([(record.given, record.completion) for record in records]), encoder.seq2seq, recipe.loss
    )
    batch, processes = recipe.effective_batch_size, plan.config.compute.processes
    share = -(-batch // processes)
    micro = micro_batch_size(plan.config.batch_size, share, max(one.length for one in points), device.kind)
    pools, seed = epoch_pools(stage, recipe, plan.records[cell]), cell.training_seed(plan.config.task, number)
    shape = epoch_shape(points, pools, batch, micro, seed)
    inputs = Collator(encoder.pad_id, decoder_start(config))(shape.largest)
    bf16 = plan.config.compute.training.autocast
    cost = _cost(plan, config, tokenizer, inputs, recipe, bf16, micro < share)
    found = cost or _by_rule(plan, config, shape, recipe, bf16)
    passes = shape.steps * recipe.epochs * max(1, share // micro)
    flops = found.flops * shape.padded * recipe.epochs / max(1, sum(one.length for one in shape.largest))
    base = 0
    if device.kind == "cpu":  # where libraries are in the same memory, and the pretrained weights that trainings copy
        base = WORKER_BYTES + (0 if plan.config.model.source == "scratch" else found.weights)
    whole = found.weights + found.gradients + found.optimizer
    # The rate is that of all cores of a CPU, of which each process has its part.
    part = len(plan.config.compute.slots) * processes if device.kind == "cpu" else 1
    activations = max(0, found.peak - whole)
    return StageEstimate(
        name=stage.name,
        trainings=trainings,
        records=len(records),
        steps=shape.steps * recipe.epochs,
        tokens=shape.tokens * recipe.epochs,
        questions=len(_asked(plan, cell, stage.name, plan.config.limit)),
        curve_questions=_in_curve(plan, cell, stage.name, recipe.epochs),
        micro_batch_size=micro,
        # Each of several has the whole model before it is sharded, or while it answers questions.
        memory=base + max(whole // processes + activations, found.weights),
        weights=found.weights // processes,
        gradients=found.gradients // processes,
        optimizer=found.optimizer // processes,
        activations=activations,
        flops=flops,
        seconds=device.seconds(flops * part / processes, found.operations * passes, bf16),
        by_rule=cost is None,
    )


def _asked(plan: Plan, cell: Cell, stage: str, limit: int | None) -> list[Record]:
    return asked_after(plan.config.task, stage, plan.records[cell], limit, cell.seed)


def _in_curve(plan: Plan, cell: Cell, stage: str, epochs: int) -> int:
    if not plan.config.curves:
        return 0
    sample = curve_sample(_asked(plan, cell, stage, None), plan.config.task.evaluate.curve_questions)
    return len(sample) * len(curve_epochs(epochs))


def _cost(
    plan: Plan, config: Any, tokenizer: Any, inputs: Mapping[str, Any], recipe: StageRecipe, bf16: bool, more: bool
) -> StepCost | None:
    """What a step takes; None for a model that needs numbers to run."""
    for training in (True, False):  # some draw in training which layers they leave out
        model = outline(plan.config.model, config, tokenizer).train(training)
        if recipe.adapter is not None:
            Adapted(model, recipe.adapter, seed=None)
        try:
            return step_cost(model, inputs, recipe, bf16, more)
        except Exception:  # whatever a model raises that looks at numbers
            continue
    return None


def _by_rule(plan: Plan, config: Any, shape: EpochShape, recipe: StageRecipe, bf16: bool) -> StepCost:
    """What a step takes by rule of thumb."""
    text = config.get_text_config()
    layers, width = (int(getattr(text, name, 1) or 1) for name in ("num_hidden_layers", "hidden_size"))
    tokens = len(shape.largest) * max(one.length for one in shape.largest)
    size = 2 if plan.config.compute.training.weights == "bfloat16" else 4
    weights = size * plan.parameters
    trained = weights if recipe.adapter is None else 0
    optimizer = 2 * trained if recipe.optim.startswith("adamw") else 0
    activations = BYTES_BY_RULE * layers * width * tokens * (1 if bf16 or size == 2 else 2)
    peak = weights + trained + optimizer + activations
    return StepCost(weights, trained, optimizer, peak, 6 * plan.parameters * tokens, 600 * layers)


def require_fit(found: Estimate) -> None:
    """Refuse a run that cannot fit. Raises OclBenchError with the option that would make it fit, if one would."""
    room = int(USABLE * found.device.memory) // found.sharing
    worst = max(found.stages, key=lambda one: one.memory)
    # A card's micro-batches are made smaller as it runs out; a CPU's process would be killed.
    needed = worst.memory if found.device.kind == "cpu" else worst.least
    if needed <= room:
        return
    fixes = _fixes(worst, room, found)
    parts = ("weights", worst.weights), ("gradients", worst.gradients), ("optimizer", worst.optimizer)
    made_of = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in (*parts, ("activations", worst.activations)))
    fix = f"it would fit with {', or with '.join(fixes)}" if fixes else "take a smaller model"
    raise OclBenchError(
        f"stage {worst.name} needs {needed / 2**30:.1f} GiB on {found.device.name}, which has {room / 2**30:.1f} "
        f"({made_of}); {fix}."
    )


def _fixes(stage: StageEstimate, room: int, found: Estimate) -> list[str]:
    """The options with each of which a stage fits. A smaller micro-batch changes nothing else, so it stands alone."""
    config, static = found.plan.config, stage.weights + stage.gradients + stage.optimizer
    fixed, micro = stage.memory - static - stage.activations, stage.micro_batch_size
    for size in range(micro - 1, 0, -1):
        if micro % size == 0 and fixed + static + stage.activations * size // micro <= room:
            return [f"--batch_size {size}"]
    left = room - fixed - stage.activations // micro
    fixes: dict[str, float] = {}
    full = all(config.recipe.of_stage(number).adapter is None for number in range(len(found.stages)))
    if full and found.device.kind == "cuda" and config.task.design.picture is None:
        now = config.compute.processes
        fixes = {f"--shard {number}": static * now / number for number in SHARDS if number > now}
    shard = next(([option] for option, size in fixes.items() if size <= left), [])
    others: dict[str, float] = {"--set recipe.optim=adafactor": static - stage.optimizer}
    if config.compute.training.weights == "float32":
        others["--model_args dtype=bfloat16"] = static / 2
    if full and config.compute.processes == 1:
        others["--set 'recipe.adapter={rank: 16, alpha: 32}'"] = stage.weights
    return shard + [option for option, size in others.items() if size <= left and size < static]
