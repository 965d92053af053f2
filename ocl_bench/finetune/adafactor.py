"""Adafactor (arXiv 1804.04235) over many parameters at once.

transformers' takes each parameter by itself, some twenty kernels for each: on a GPU that was two thirds of a training
step of a Pythia-410m. State and update are its own, so that the one goes on from a checkpoint of the other.

Of parameters that are sharded over processes (by their first dimension) each process updates its part. Means over rows
and columns are small, so every process has them whole: they are summed up over processes, as are lengths of updates.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers.optimization import Adafactor

from ocl_bench.finetune.sharding import first_row, local

# Numbers of the parameters that are taken at once: what is computed on the way takes as much memory again.
CHUNK = 2**26


class ForeachAdafactor(Adafactor):  # type: ignore[misc]
    """transformers' Adafactor with a learning rate from outside and no first moment, as its Trainer sets it up."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One optimizer step."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            if group["relative_step"] or group["scale_parameter"] or group["beta1"] is not None:
                raise NotImplementedError("relative steps, scaling by parameters, and a first moment")
            parameters = [one for one in group["params"] if one.grad is not None]
            for factored in (True, False):
                own = [one for one in parameters if (one.dim() >= 2) == factored]
                for chunk in _chunks(own):
                    self._update(group, chunk, factored)
        return loss

    def _update(self, group: dict[str, Any], parameters: list[Tensor], factored: bool) -> None:
        """Update parameters that all have matrices, or none of which has."""
        gradients = [_precise(one.grad) for one in parameters if one.grad is not None]
        if any(one.is_sparse for one in gradients):
            raise RuntimeError("Adafactor does not support sparse gradients.")
        states = [self.state[one] for one in parameters]
        for state, gradient in zip(states, gradients, strict=True):
            if not state:
                state |= {"step": 0, "RMS": 0, **_moments(gradient, factored)}
            # Loading a state has cast it to what the weights are.
            state |= {name: value.to(gradient.dtype) for name, value in state.items() if isinstance(value, Tensor)}
            state["step"] += 1
        # All steps are one number, but after parameters without a gradient.
        decays = [1.0 - state["step"] ** group["decay_rate"] for state in states]
        parts = _Parts(parameters)
        own = [local(one) for one in gradients]
        if factored:
            updates = _factored(own, states, decays, group["eps"][0], parts)
        else:
            updates = _plain(own, states, decays, group["eps"][0])
        lengths = parts.lengths(updates)
        torch._foreach_div_(lengths, [one.numel() ** 0.5 * group["clip_threshold"] for one in parameters])
        scales = -group["lr"] / torch.stack(lengths).clamp_(min=1.0)
        for parameter, update, scale in zip(map(local, parameters), updates, scales.unbind(), strict=True):
            weights = _precise(parameter)
            if group["weight_decay"]:
                weights.mul_(1 - group["weight_decay"] * group["lr"])
            weights.addcmul_(update, scale)
            if weights is not parameter:
                parameter.copy_(weights)


class _Parts:
    """Which rows (of the first dimension) of parameters this process has, and what all have together.

    Args:
        parameters: all of them sharded, or none.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._whole = [one.shape for one in parameters]
        self._first = [first_row(one) for one in parameters]
        one = parameters[0]
        self._group = one.device_mesh.get_group() if isinstance(one, DTensor) else None

    def lengths(self, updates: list[Tensor]) -> list[Tensor]:
        """Euclidean length of each update, over all processes."""
        lengths = list(torch._foreach_norm(updates))
        if self._group is None:
            return lengths
        squares = torch.stack(lengths).square_()
        dist.all_reduce(squares, group=self._group)
        return list(squares.sqrt_().unbind())

    def means(self, squares: list[Tensor], dimension: int) -> list[Tensor]:
        """Sums over a dimension of what this process has → means over it of all that there is.

        For a matrix, whose rows are spread, each process has a part of every column's sum; else some of the sums.
        """
        torch._foreach_div_(squares, [float(shape[dimension]) for shape in self._whole])
        if self._group is None:
            return squares
        shapes = [shape[:dimension] + shape[dimension:][1:] for shape in self._whole]
        flat = squares[0].new_zeros(sum(shape.numel() for shape in shapes))
        pieces = torch.split(flat, [shape.numel() for shape in shapes])
        means = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        for mean, square, first in zip(means, squares, self._first, strict=True):
            place = mean if mean.shape == square.shape else mean.narrow(0, first, len(square))
            place.copy_(square)
        dist.all_reduce(flat, group=self._group)
        return means

    def own(self, factors: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """Of factors of whole gradients, the rows that belong to what this process has of them."""
        if self._group is None:
            return factors
        return [
            factor if len(factor) == 1 else factor.narrow(0, first, len(gradient))
            for factor, first, gradient in zip(factors, self._first, gradients, strict=True)
        ]


def _precise(tensor: Tensor) -> Tensor:
    """In float32 where it is in half of it, else the tensor itself."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _chunks(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters in order, so many at a time that they have CHUNK numbers or less, or are one."""
    chunk: list[Tensor] = []
    numbers = 0
    for one in parameters:
        if chunk and numbers + one.numel() > CHUNK:
            yield chunk
            chunk, numbers = [], 0
        chunk.append(one)
        numbers += one.numel()
    if chunk:
        yield chunk


def _moments(gradient: Tensor, factored: bool) -> dict[str, Tensor]:
    if not factored:
        return {"exp_avg_sq": torch.zeros_like(gradient)}
    zeros = local(gradient).new_zeros  # whole ones
    return {
        "exp_avg_sq_row": zeros(gradient.shape[:-1]),
        "exp_avg_sq_col": zeros(gradient.shape[:-2] + gradient.shape[-1:]),
    }


def _plain(
    gradients: list[Tensor], states: Sequence[dict[str, Any]], decays: Sequence[float], eps: float
) -> list[Tensor]:
    """Gradients over the root of their mean squares."""
    squares = torch._foreach_mul(gradients, gradients)
    torch._foreach_add_(squares, eps)
    averages = [local(state["exp_avg_sq"]) for state in states]
    _average(averages, list(squares), decays)
    roots = torch._foreach_sqrt(averages)
    return list(torch._foreach_div(gradients, roots))


def _factored(
    gradients: list[Tensor],
    states: Sequence[dict[str, Any]],
    decays: Sequence[float],
    eps: float,
    parts: _Parts,
) -> list[Tensor]:
    """Gradients over the root of their mean squares, as rows and columns have them."""
    rows, columns = ([state[f"exp_avg_sq_{name}"] for state in states] for name in ("row", "col"))
    for averages, dimension in ((rows, -1), (columns, -2)):
        squares = [_sum_of_squares(one, dimension) for one in gradients]
        means = parts.means(squares, dimension)
        torch._foreach_add_(means, eps)
        _average(averages, means, decays)
    shares = [(row / row.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1) for row in rows]
    scales = [column.rsqrt().unsqueeze(-2) for column in columns]
    shares, scales = parts.own(shares, gradients), parts.own(scales, gradients)
    return [(one * share).mul_(scale) for one, share, scale in zip(gradients, shares, scales, strict=True)]


def _sum_of_squares(gradient: Tensor, dimension: int) -> Tensor:
    """Over a dimension."""
    if gradient.is_cpu and dimension == -2:  # a norm's kernel goes down columns one number at a time
        sums: Tensor = torch.linalg.vecdot(gradient, gradient, dim=dimension)
    else:
        sums = torch.linalg.vector_norm(gradient, dim=dimension).square_()
    return sums


def _average(averages: list[Tensor], new: list[Tensor], decays: Sequence[float]) -> None:
    """Move averages towards new values, which are overwritten."""
    torch._foreach_mul_(averages, list(decays))
    torch._foreach_mul_(new, [1.0 - decay for decay in decays])
    torch._foreach_add_(averages, new)
