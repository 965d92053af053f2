"""What a piece of work computes and moves, where its time goes, and what limits it.

FLOP and bytes are counted as the work runs, operator by operator; the split of time is torch's profiler's.
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import PreTrainedTokenizerBase

from ocl_bench.models.batches import Collator
from ocl_bench.models.encoding import Encoder

# Where time goes, in the order of a row: the output layer's products, all others, attention, probabilities (softmax,
# logsumexp, argmax, loss), copies (of the cache, of rows, of batches), casts between precisions, all other operators
# (norms, activations, sums), the optimizer, the tokenizer with what encodes and decodes, collation, and what no
# operator is: Python, which calls them.
GROUPS = (
    "head", "matmul", "attention", "softmax", "copies", "casts", "other operators", "optimizer", "tokenizer",
    "collation", "Python",
)  # fmt: skip
TOKENIZER, COLLATION = "tokenizer", "collation"
NAMED = (
    (Encoder, "__call__", TOKENIZER), (Encoder, "decode_answer", TOKENIZER),
    (PreTrainedTokenizerBase, "__call__", TOKENIZER), (PreTrainedTokenizerBase, "decode", TOKENIZER),
    (Collator, "__call__", COLLATION),
)  # fmt: skip
ONE_TOKEN = "pass over one token"
# What is asked of an operator's name, in turn.
KINDS = {
    "attention": ("scaled_dot_product", "flash_attention"),
    "matmul": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::matmul", "aten::linear"),
    "softmax": ("softmax", "logsumexp", "argmax", "nll_loss", "cross_entropy", "aten::topk"),
    "casts": ("aten::_to_copy", "aten::to"),
    "copies": (
        "aten::copy_", "aten::cat", "aten::stack", "aten::index", "aten::gather", "aten::repeat", "aten::clone",
        "aten::contiguous", "aten::embedding", "aten::fill_", "aten::zero_", "aten::lift_fresh", "aten::item",
        "aten::_local_scalar_dense",
    ),
}  # fmt: skip
# Of a table that they read, only the rows that they give.
READS_ROWS = ("aten::embedding", "aten::index_select", "aten::index", "aten::gather")


@dataclass(frozen=True)
class Work:
    """What was computed and moved.

    Attributes:
        flops: of matrix products and attention, padding included.
        bytes: that came from memory: operators' inputs and outputs which are no longer in a last cache that forgets
            the least recently used.
    """

    flops: float
    bytes: float

    def of(self, units: float) -> "Work":
        """Of one unit of so many."""
        return Work(self.flops / units, self.bytes / units)


@dataclass(frozen=True)
class Split:
    """Where the time of a piece of work went.

    Attributes:
        shares: each of GROUPS → percent of the time; they sum to 100.
        one_token: percent of the time in forward passes over a single new token a sequence, as sampling takes them.
    """

    shares: dict[str, float]
    one_token: float


def count(work: Callable[[], object], cache_bytes: int) -> Work:
    """Run, and count what is computed and moved."""
    # Attention on a CPU, which torch's counter does not know; shapes of what the operators are given.
    own = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *args, **more: sdpa_flop_count(
            q, k, v
        ),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda gradient, q, k, v, *args, **more: (
            sdpa_backward_flop_count(gradient, q, k, v)
        ),
    }
    with _Traffic(cache_bytes) as traffic, FlopCounterMode(display=False, custom_mapping=own) as flops:
        work()
    return Work(float(flops.get_total_flops()), float(traffic.bytes))


class _Traffic(TorchDispatchMode):
    """Counts bytes that come from memory, with a cache of so many bytes."""

    def __init__(self, cache_bytes: int) -> None:
        super().__init__()
        self.bytes = 0
        self._room = cache_bytes
        self._held: OrderedDict[int, int] = OrderedDict()
        self._full = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func._schema.name
        if func.is_view or name.startswith(("aten::empty", "aten::detach", "aten::_unsafe_view", "prim::")):
            return found
        written = [one for one in tree_leaves(found) if isinstance(one, Tensor)]
        read = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        limit = sum(map(_size, written)) if name in READS_ROWS else None
        for tensor in (*read, *written):
            self._touch(tensor, limit)
        return found

    def _touch(self, tensor: Tensor, limit: int | None) -> None:
        size = _size(tensor) if limit is None else min(limit, _size(tensor))
        place = tensor.data_ptr()
        held = self._held.pop(place, 0)
        self.bytes += max(0, size - held)
        self._held[place] = max(size, held)
        self._full += max(0, size - held)
        while self._full > self._room:
            self._full -= self._held.popitem(last=False)[1]


def _size(tensor: Tensor) -> int:
    """Bytes of memory that a tensor is about: what is expanded lies there once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def split(work: Callable[[], object], vocabulary: int) -> Split:
    """Run under torch's profiler, and say where the time went.

    Args:
        work: runs in this thread.
        vocabulary: rows of the output layer, by which its products are told from others.
    """
    with _named(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
    spent = dict.fromkeys(GROUPS, 0.0)
    one_token = 0.0
    for event in profiler.events():
        spent[_group(event, vocabulary)] += event.self_cpu_time_total / 1e6
        if event.name == ONE_TOKEN:
            one_token += event.cpu_time_total / 1e6
    known = sum(spent.values()) - spent["Python"]
    # What is in no operator: between them, and in forward passes.
    spent["Python"] = max(0.0, seconds - known)
    whole = sum(spent.values())
    return Split({name: 100 * value / whole for name, value in spent.items()}, 100 * one_token / whole)


def _group(event: Any, vocabulary: int) -> str:
    """Which of GROUPS an event of the profiler belongs to, by its own name or that of what called it."""
    names, parent = [], event
    while parent is not None:
        names.append(parent.name)
        parent = parent.cpu_parent
    for name in reversed(names):  # whatever they call is theirs
        if name in (TOKENIZER, COLLATION):
            return name
        if name.startswith("enumerate(DataLoader)"):
            return COLLATION
        if name.startswith("Optimizer.step"):
            return "optimizer"
    if "attention" in (_kind(name) for name in names):
        return "attention"
    if _kind(event.name) == "matmul":
        return "head" if any(vocabulary in shape for shape in _shapes(event)) else "matmul"
    kinds = [kind for name in names if (kind := _kind(name)) is not None]
    if kinds:
        # The copy by which a cast is made is the cast's.
        return "casts" if kinds[0] == "copies" and "casts" in kinds else kinds[0]
    return "other operators" if event.name.startswith(("aten::", "autograd::", "torch::")) else "Python"


def _kind(name: str) -> str | None:
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), None)


def _shapes(event: Any) -> Iterator[list[int]]:
    return (shape for shape in event.input_shapes or () if isinstance(shape, list))


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Give names in the profile to what is no operator: the tokenizer, collation, passes over one token."""
    with contextlib.ExitStack() as undo:
        for owner, attribute, name in NAMED:
            plain = getattr(owner, attribute)
            setattr(owner, attribute, _as(name, plain))
            undo.callback(setattr, owner, attribute, plain)
        plain_call = torch.nn.Module.__call__

        @wraps(plain_call)
        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            ids = kwargs.get("input_ids")
            if isinstance(ids, Tensor) and ids.dim() == 2 and ids.shape[1] == 1 and hasattr(module, "generate"):
                with record_function(ONE_TOKEN):
                    return plain_call(module, *args, **kwargs)
            return plain_call(module, *args, **kwargs)

        torch.nn.Module.__call__ = call  # type: ignore[method-assign]
        undo.callback(setattr, torch.nn.Module, "__call__", plain_call)
        yield


def _as(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def named(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return plain(*args, **kwargs)

    return named


def row(work: Work, where: Split, precision: str) -> dict[str, Any]:
    """What is kept beside a figure.

    Args:
        work: of one unit, such as a question or a token.
        where: where the time goes.
        precision: what it computes in.
    """
    return {"computed_in": precision, "flops": work.flops, "bytes": work.bytes, **asdict(where)}
