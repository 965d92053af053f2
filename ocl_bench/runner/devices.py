"""Devices: which one a run uses, and how a process is kept to it."""

import os

from ocl_bench.errors import OclBenchError

_DISTRIBUTED = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


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
