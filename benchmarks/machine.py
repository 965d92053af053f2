"""What the machine could do: its name, its peak of matrix products, and the bandwidth of its memory.

python benchmarks/machine.py
"""

import json
import re
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from tables import sentence

from ocl_bench.runner.compute import has_bf16
from ocl_bench.runner.manifest import processor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Units that decide what products cost, the fastest first: flag of /proc/cpuinfo → what a file's name calls it.
UNITS = {
    "amx_bf16": "amxbf16", "avx512_bf16": "avx512bf16", "avx512f": "avx512", "avx2": "avx2",
    "svebf16": "svebf16", "bf16": "bf16", "sve": "sve", "asimd": "neon",
}  # fmt: skip
# Where the system does not tell how large the last cache is.
LARGE_CACHE = 32 * 2**20


@dataclass(frozen=True)
class Machine:
    """A processor, as it was measured.

    Attributes:
        slug: what files are named after.
        processor: what the system calls it.
        units: the fastest that it has for products; empty where the system does not tell.
        threads: of torch.
        cache_bytes: of the last cache.
        bandwidth: bytes/s between memory and processor.
        peak: precision → FLOP/s of matrix products.
    """

    slug: str
    processor: str
    units: str
    threads: int
    cache_bytes: int
    bandwidth: float
    peak: dict[str, float]

    def sentence(self) -> str:
        """What a row can be held against."""
        return sentence(asdict(self))


def slug_of(name: str, flags: Collection[str]) -> str:
    """What files are named after: the processor's name without what all have in it, and its fastest units.

    Virtual machines often tell a make alone, so that the units are what sets one from another.
    """
    plain = re.sub(r"\((?:r|tm)\)|\b(?:cpu|processor|\d+-core)\b|@.*", " ", name.lower())
    words = re.findall(r"[a-z0-9]+", plain)
    return "-".join([*words, *([units] if (units := units_of(flags)) else [])])


def units_of(flags: Collection[str]) -> str:
    """The fastest units for products among a processor's flags; empty for none that is known."""
    return next((name for flag, name in UNITS.items() if flag in flags), "")


@cache
def flags() -> frozenset[str]:
    """What the system says that the processor has; nothing where it is silent."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    found = next((line for line in lines if re.match(r"(flags|Features)\s*:", line)), "")
    return frozenset(found.partition(":")[2].split())


def slug() -> str:
    """Of this machine."""
    return slug_of(processor(), flags())


@cache
def machine() -> Machine:
    """This one, measured in about ten seconds."""
    return Machine(
        slug=slug(), processor=processor(), units=units_of(flags()), threads=torch.get_num_threads(),
        cache_bytes=cache_bytes(), bandwidth=bandwidth(), peak={name: matmul_peak(name) for name in DTYPES},
    )  # fmt: skip


def has_units(precision: str) -> bool:
    """Whether the processor computes in a precision, and does not only emulate it."""
    return precision == "fp32" or has_bf16("cpu")


def cache_bytes() -> int:
    """Of the largest cache."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(size.rstrip("K")) * 1024 for size in sizes if size.endswith("K")), default=LARGE_CACHE)


def matmul_peak(precision: str, device: str = "cpu", seconds: float = 0.7) -> float:
    """The best measured rate of a matrix product in FLOP/s, over sizes and over both ways that weights can lie."""
    best = 0.0
    for size in (512, 1024, 2048, 4096) if device == "cpu" else (8192,):
        left = torch.randn(size, size, dtype=DTYPES[precision], device=device)
        for right in (left, left.T):
            best = max(best, 2 * size**3 / _fastest(lambda left=left, right=right: left @ right, device, seconds))
    return best


def bandwidth(seconds: float = 0.7) -> float:
    """Bytes/s of the better of STREAM's copy and triad, on arrays of several times the last cache.

    As STREAM counts: what is read and what is written, and not that a line is read before it is written.
    """
    size = max(4 * cache_bytes(), 2**28) // 4
    a, b, c = (torch.zeros(size) for _ in range(3))
    copy = 8 * size / _fastest(lambda: a.copy_(b), "cpu", seconds)
    triad = 12 * size / _fastest(lambda: torch.add(b, c, alpha=3.0, out=a), "cpu", seconds)
    return max(copy, triad)


def _fastest(work: Callable[[], object], device: str, seconds: float) -> float:
    """Seconds of the fastest call in about so many seconds, and in three calls at least."""
    best, start, calls = float("inf"), time.perf_counter(), 0
    while calls < 3 or time.perf_counter() - start < seconds:
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        best, calls = min(best, time.perf_counter() - began), calls + 1
    return best


if __name__ == "__main__":
    print(json.dumps(asdict(machine()), indent=2))
    print(machine().sentence())
