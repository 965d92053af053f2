"""What a run will take, as text."""

from typing import TYPE_CHECKING

from tabulate import tabulate

from ocl_bench.errors import counted
from ocl_bench.runner.compute import advice

if TYPE_CHECKING:
    from ocl_bench.runner.estimate import Estimate

HEADERS = ("stage", "trainings", "records", "steps", "tokens", "FLOPs", "batch", "memory", "time", "questions")


def estimate_table(found: "Estimate") -> str:
    """A line for each stage, and the totals."""
    config, device = found.plan.config, found.device
    recipes = {stage.name: config.recipe.of_stage(number) for number, stage in enumerate(config.task.stages)}
    rows = [
        [
            one.name, one.trainings, one.records, one.steps, _count(one.tokens), f"{one.flops:.1e}",
            f"{one.micro_batch_size} of {recipes[one.name].effective_batch_size}",
            f"{gib(one.memory)}{' *' if one.by_rule else ''}", duration(one.seconds),
            f"{_count(one.questions)} + {_count(one.curve_questions)}",
        ]
        for one in found.stages
    ]  # fmt: skip
    worst = max(found.stages, key=lambda one: one.memory)
    parts = ", ".join(
        f"{name} {gib(size)}"
        for name, size in (
            ("weights", worst.weights), ("gradients", worst.gradients), ("optimizer", worst.optimizer),
            ("activations", worst.activations),
        )
    )  # fmt: skip
    precision = str(config.compute.training)
    lines = [
        f"{config.task.task} (version {config.task.version}) · {config.model.name} · recipe {config.recipe.recipe} · "
        f"{counted(len(config.seeds), 'seed')}",
        "",
        tabulate(rows, headers=HEADERS, tablefmt="simple", disable_numparse=True, colalign=("left", *["right"] * 9)),
        "",
        f"parameters  {_count(found.plan.parameters)}, trained in {precision} by {config.recipe.optim}",
        f"memory      {gib(found.memory)} at most of {gib(device.memory)} on {device.name}: {parts}",
        f"disk        {found.plan.disk / 1e9:.2g} GB at most for weights",
        f"device      {found.at_a_time} stage{'s' * (found.at_a_time > 1)} at a time on {_times(found)}{device.name} "
        f"({device.bf16 / 1e12:.3g} TFLOP/s in bfloat16, {device.fp32 / 1e12:.3g} in float32; {device.source})",
        f"time        about {duration(found.seconds)} of training if nothing else runs there; questions come on top",
        "questions   of each training: after the stage + in its learning curve, which --no_curves leaves out",
    ]
    if faster := advice(config.compute):
        lines.append(f"faster      {faster}")
    if any(one.by_rule for one in found.stages):
        lines.append("* by rule of thumb: this model looks at numbers, so that a step cannot be tried without weights")
    return "\n".join(lines)


def _times(found: "Estimate") -> str:
    processes = found.plan.config.compute.processes
    return f"{processes} × " if processes > 1 else ""


def gib(size: float) -> str:
    """Bytes as GiB, or MiB where they are few."""
    if size < 2**30:
        return f"{size / 2**20:.0f} MiB"
    return f"{size / 2**30:.1f} GiB" if size < 10 * 2**30 else f"{size / 2**30:.0f} GiB"


def _count(count: float) -> str:
    for unit, size in ((" G", 10**9), (" M", 10**6), (" k", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def duration(seconds: float) -> str:
    """Such as 40 s, 12 min or 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
