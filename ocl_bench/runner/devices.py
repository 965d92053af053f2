"""Devices whose speed and memory are known beforehand, and what training reaches on them."""

import re
import time
from dataclasses import dataclass

from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.runner.compute import TRAINING_BYTES_PER_PARAMETER, available_cores, has_bf16

# What a training step reaches of the rate of matrix products, and the time of an operation, forward and backward: on a
# GPU fitted to benchmarks/results/gpu-h200.json (70 M to 2.8 B parameters; the data sheet's rate), on a CPU by hand to
# benchmarks/results/plan.json (14 M to 410 M; the rate measured there) and to `world` and `attributes`.
REACHED = {"cuda": 0.287, "cpu": 0.95}
SECONDS_PER_OPERATION = {"cuda": 5.5e-6, "cpu": 20e-6}
# Bytes a parameter for which nobody need try: four times those of training with Adam.
LARGE = 4 * TRAINING_BYTES_PER_PARAMETER
EMULATED = 0.25  # of the rate in float32


@dataclass(frozen=True)
class Rated:
    """A kind of device.

    Attributes:
        name: as its driver calls it, or part of that.
        bf16, fp32: FLOP/s of dense matrix products in bfloat16 and in float32.
        memory: bytes.
        source: where the figures come from.
    """

    name: str
    bf16: float
    fp32: float
    memory: int
    source: str

    @property
    def kind(self) -> str:
        """cuda or cpu."""
        return "cpu" if self.name == "cpu" else "cuda"

    def seconds(self, flops: float, operations: float, bf16: bool) -> float:
        """About how long training work takes: what it computes, and the time that calling so many operations takes.

        A CPU does one after the other. A GPU computes while the next operations are called, so the longer counts.
        """
        computing = flops / (REACHED[self.kind] * (self.bf16 if bf16 else self.fp32))
        calling = SECONDS_PER_OPERATION[self.kind] * operations
        return computing + calling if self.kind == "cpu" else max(computing, calling)


def _rated(name: str, bf16: float, fp32: float, gigabytes: int) -> Rated:
    return Rated(name, bf16 * 1e12, fp32 * 1e12, gigabytes * 10**9, "NVIDIA's data sheet")


# Tensor cores without sparsity. Of two that fit a driver's name the first is taken.
KNOWN = (
    _rated("H200", 989, 67, 141),
    _rated("H100 PCIe", 756, 51, 80),
    _rated("H100", 989, 67, 80),
    _rated("A100", 312, 19.5, 80),
    _rated("L40S", 362, 91.6, 48),
    _rated("RTX A6000", 155, 38.7, 48),
    _rated("L4", 121, 30.3, 24),
    _rated("A10", 125, 31.2, 24),
    _rated("RTX 4090", 165, 82.6, 24),
)


def named(name: str) -> Rated:
    """A device of the table. Raises OclBenchError if it has none of this name."""
    found = next((one for one in KNOWN if one.name.lower() == name.lower()), None)
    if found is None:
        raise OclBenchError(f"--on {name}: no such device in the table; {did_you_mean(name, [k.name for k in KNOWN])}")
    return found


def of_driver(name: str) -> Rated | None:
    """The device of the table that a driver calls so, such as NVIDIA H100 80GB HBM3; None if it has none."""
    return next((one for one in KNOWN if re.search(rf"\b{re.escape(one.name)}\b", name)), None)


def present(device: str) -> Rated:
    """The device of this machine: a card by its driver's name, with the memory that it has; a CPU is measured.

    A card that the table does not have is taken for the slowest that it has.
    """
    import torch

    memory = memory_of(device)
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(torch.device(device))
        found = of_driver(name) or min(KNOWN, key=lambda one: one.bf16)
        return Rated(name, found.bf16, found.fp32, memory, found.source)
    rate = _measured(torch.float32)
    # Without units for it bfloat16 is emulated.
    bf16 = _measured(torch.bfloat16) if has_bf16(device) else rate * EMULATED
    return Rated("cpu", bf16, rate, memory, f"measured now, on all {available_cores()} cores")


def memory_of(device: str) -> int:
    """Bytes of a card, or of this machine: what others take of it now they may give back."""
    import psutil
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(torch.device(device)).total_memory)
    return int(psutil.virtual_memory().total)


def is_large_for(device: str, parameters: int) -> bool:
    """Whether a model is so large for a device that it has to be tried whether it can be trained there."""
    return LARGE * parameters > memory_of(device)


def _measured(dtype: object, size: int = 1024) -> float:
    """FLOP/s of a matrix product on the CPU, the best of a quarter of a second."""
    import torch

    left = torch.ones(size, size, dtype=dtype)  # type: ignore[call-overload]
    best, start = 0.0, time.perf_counter()
    while time.perf_counter() - start < 0.25 or not best:
        begun = time.perf_counter()
        left @ left
        best = max(best, 2 * size**3 / (time.perf_counter() - begun))
    return best
