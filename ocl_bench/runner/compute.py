"""What a run computes on and in: decided once, before anything is trained, and read everywhere else."""

import os
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from ocl_bench.contract import Contract
from ocl_bench.errors import OclBenchError
from ocl_bench.finetune.recipe import Recipe
from ocl_bench.models.spec import ModelSpec
from ocl_bench.text import Device, Line

_DISTRIBUTED = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
# Bytes per parameter of training in fp32 with Adam: weight, gradient and two moments.
TRAINING_BYTES_PER_PARAMETER = 16
# How many cores a run is to use, where several share a machine. OMP_NUM_THREADS would not do: it counts the threads of
# each process, and many have it set to 1 for good.
CORES = "OCL_BENCH_CORES"


class Precision(Contract):
    """What numbers are computed in."""

    weights: Literal["float32", "bfloat16"] = Field(description="dtype of the weights")
    autocast: bool = Field(description="whether forward passes compute in bfloat16 wherever that is safe")

    def __str__(self) -> str:
        return "bfloat16 autocast" if self.autocast and self.weights == "float32" else self.weights


class Compute(Contract):
    """The machine's share in a run."""

    slots: tuple[Device, ...] = Field(min_length=1, description="device of each stage job that runs at the same time")
    processes: int = Field(
        1, ge=1, le=1024, description="processes that train one stage together, the model sharded over them"
    )
    threads: int = Field(ge=1, description="torch threads of a job; numbers depend on it in the last digits")
    training: Precision = Field(description="what training computes in")
    evaluation: Precision = Field(description="what the torch engine computes in")
    engine: Literal["torch", "vllm"] = Field(description="what was chosen to generate answers")
    engine_reason: Line = Field(description="why")
    engine_args: dict[str, Any] = Field(description="arguments of vLLM; empty for torch")

    @property
    def device(self) -> str:
        """The first device."""
        return self.slots[0]


def training_precision(spec: ModelSpec, recipe: Recipe) -> Precision:
    """What a recipe trains this model in."""
    return Precision(weights=spec.args.dtype, autocast=recipe.precision == "bf16")


def evaluation_precision(spec: ModelSpec, recipe: Recipe, device: str) -> Precision:
    """As training, but without autocast where weights are bfloat16 anyhow or bfloat16 is only emulated."""
    plain = spec.args.dtype == "bfloat16" or not has_bf16(device)
    return Precision(weights=spec.args.dtype, autocast=recipe.precision == "bf16" and not plain)


def advice(compute: Compute) -> str | None:
    """A sentence where another precision trains faster on this device; None else."""
    training = compute.training
    if not training.autocast or training.weights == "bfloat16" or has_bf16(compute.device):
        return None
    return (
        "--set recipe.precision=fp32 trains faster here: this processor has no units for bfloat16, and emulates it "
        "(another recipe, so the open division)"
    )


def job_slots(device: str, jobs: int, parameters: int) -> tuple[str, ...]:
    """Devices of the jobs that run at the same time, of at most `jobs`, where no devices are named.

    On a CPU, jobs side by side on one core each beat one job on all cores, as long as memory allows.
    """
    import psutil

    if device != "cpu":
        return (device,)
    fitting = psutil.virtual_memory().available // (2 * TRAINING_BYTES_PER_PARAMETER * max(parameters, 1))
    return ("cpu",) * max(1, min(jobs, available_cores(), fitting))


def pick_devices(requested: Sequence[int] | Literal["all"], there: bool = False) -> tuple[str, ...]:
    """The CUDA devices of these numbers, or all.

    Args:
        requested: numbers, or all.
        there: of another machine, which has them.

    Raises:
        OclBenchError: if this machine does not have them, or nobody knows how many the other has.
    """
    import torch

    if there:
        if requested == "all":
            raise OclBenchError("--devices all: say which, as 0,1,2,3, of a machine that is not this one.")
        return tuple(f"cuda:{number}" for number in requested)
    count = torch.cuda.device_count()
    if count == 0:
        raise OclBenchError("--devices: this machine has no CUDA device; leave it out to train on what there is.")
    numbers = range(count) if requested == "all" else requested
    for number in numbers:
        if number >= count:
            raise OclBenchError(
                f"--devices {number}: this machine has {count} CUDA device{'s' * (count > 1)}, numbered from 0."
            )
    return tuple(f"cuda:{number}" for number in numbers)


def sharded_over(requested: int | Literal["auto"] | None, device: str, parameters: int, there: bool = False) -> int:
    """Processes, each with a device of its own, that a model is sharded over.

    Args:
        requested: how many; auto for as few as weights, gradients and optimizer fit on; None for one.
        device: cpu (a core is a device), cuda or mps.
        parameters: of the model.
        there: of another machine, which has as many.

    Raises:
        OclBenchError: if there are fewer devices, or nobody knows how large those of the other machine are.
    """
    import torch

    if requested in (None, 1):
        return 1
    if there:
        if not isinstance(requested, int):
            raise OclBenchError("--shard auto: say over how many, of a machine that is not this one.")
        return requested
    kind, _, number = device.partition(":")
    if number:
        raise OclBenchError(f"--shard {requested}: it takes the first devices; give --device {kind}, without a number.")
    if kind == "cpu":
        devices, memory = available_cores(), 0  # which is the same memory for all: auto gains nothing
    else:
        devices = torch.cuda.device_count() if kind == "cuda" else 1
        memory = torch.cuda.get_device_properties(0).total_memory if kind == "cuda" else 0
    fits_on = max(1, -(-parameters * TRAINING_BYTES_PER_PARAMETER // memory)) if memory else 1
    processes = fits_on if requested == "auto" else requested
    assert isinstance(processes, int)
    if processes > devices:
        needs = f"{processes} devices are needed" if requested == "auto" else "each process needs a device"
        things = "core" if kind == "cpu" else f"{kind} device"
        raise OclBenchError(
            f"--shard {requested}: {needs}, and this machine has {devices} {things}{'s' if devices > 1 else ''}."
        )
    return processes


def available_cores() -> int:
    """Processor cores that this process may use: those that the system allows it, or fewer if CORES says so."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get(CORES, "")
    return min(allowed, int(told)) if told.isdecimal() and int(told) else allowed


def pick_device(requested: str | None) -> str:
    """`requested`, or the best there is. Raises OclBenchError if this machine does not have it."""
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


def device_environment(device: str, several: bool = False) -> dict[str, str]:
    """The environment of a process that works for a run: it sees one accelerator, unless `several` are wanted.

    The Trainer would spread over all that it sees.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _DISTRIBUTED}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    kind, _, index = device.partition(":")
    if kind == "cuda" and not several:
        visible = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
        number = int(index or 0)
        environment["CUDA_VISIBLE_DEVICES"] = visible[number] if number < len(visible) and visible[0] else str(number)
    return environment


def has_bf16(device: str) -> bool:
    """Whether the device has units for bfloat16; a CPU without them is slower in it than in float32."""
    import torch

    if device != "cpu":
        return True
    found = torch.cpu.get_capabilities()
    return any(found.get(unit, False) for unit in ("amx_bf16", "avx512_bf16", "bf16"))
