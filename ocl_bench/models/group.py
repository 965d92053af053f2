"""The processes that work on one model together: how many they are, and what they agree on.

One process alone is a group too. Every function but `processes`, `rank` and `in_turn` has to be called by all of them.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

# Of a process that waits for the others: one may write a large checkpoint, or answer questions.
PATIENCE = timedelta(hours=6)


def join_group(device: str) -> None:
    """Join the group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT speak of; on CUDA, take device LOCAL_RANK."""
    if device == "cpu":
        dist.init_process_group("gloo", timeout=PATIENCE)
    else:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)


def processes() -> int:
    """How many processes train one model together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def total(count: int) -> int:
    """Sum over processes."""
    return _reduced(count, dist.ReduceOp.SUM)


def smallest(number: int) -> int:
    """Smallest over processes."""
    return _reduced(number, dist.ReduceOp.MIN)


def _reduced(number: int, how: Any) -> int:
    if processes() == 1:
        return number
    tensor = torch.tensor(number, dtype=torch.int64)
    dist.all_reduce(tensor, how)
    return int(tensor)


def of_first(make: Callable[[], T]) -> T:
    """What the first process makes of it, in every process."""
    if processes() == 1:
        return make()
    made = [make() if rank() == 0 else None]
    dist.broadcast_object_list(made, device=torch.device("cpu"))
    return made[0]  # type: ignore[return-value]


def in_turn(items: Sequence[T]) -> Sequence[T]:
    """Of a list, what falls to this process: item `rank`, `rank + processes`, …"""
    return items[rank() :: processes()]


def in_order(items: Sequence[T]) -> list[T]:
    """What all processes made of what fell to them, in the order of the list that `in_turn` was given."""
    if processes() == 1:
        return list(items)
    gathered: list[Any] = [None] * processes()
    dist.all_gather_object(gathered, list(items))
    return [part[place] for place in range(len(gathered[0])) for part in gathered if place < len(part)]
