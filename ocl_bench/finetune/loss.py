"""Cross-entropy on labelled positions, a few of them at a time where their logits are many.

With a vocabulary of fifty thousand a micro-batch's logits are hundreds of megabytes. Autograd writes five such tables
(logits, their copy in float32, log-probabilities, gradients of these and of the logits), each into memory that is new
to the process: on a CPU that took longer than the output layer's matrix products. Here a few rows at a time stay in the
cache, and their gradient takes the place of their logits. It has the same bits.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss

from ocl_bench.models.group import processes
from ocl_bench.models.labelled_positions import LabelledPositions

MANY = 2**22  # logits; tables of fewer are not new to the process each time
AT_ONCE = 2**20  # logits, 4 MiB in float32
# What stands between the output layer and the logits of a model that does nothing to them, under autocast.
NOTHING_DONE = {"ToCopyBackward0", "SqueezeBackward1"}
_log_softmax_backward = torch.ops.aten._log_softmax_backward_data.out


class LabelledLoss(LabelledPositions):
    """Cross-entropy of one model over chosen positions.

    Args:
        model: a causal or seq2seq language model of transformers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        head = model.get_output_embeddings()
        # A linear layer's gradient does not need its output, which may be overwritten. A sharded model's weights are
        # gathered when a gradient comes to the model's output.
        self._head = head if type(head) is nn.Linear and processes() == 1 else None
        self._keeps = False
        self._kept: tuple[Tensor, Tensor] | None = None
        self._hook = None if self._head is None else self._head.register_forward_hook(self._keep)

    def loss(self, model: Any, inputs: Mapping[str, Any], positions: Tensor, targets: Tensor, count: Tensor) -> Tensor:
        """Sum over the positions, divided by `count`.

        Args:
            model, inputs, positions: as for `logits`.
            targets: the token that belongs to each position.
            count: a number.
        """
        if self._head is not None and positions.is_cpu and len(positions) * self._head.out_features > MANY:
            given = self._one_column(model, inputs, positions)
            kept, self._kept = self._kept, None
            if kept is not None and _nothing_done(kept[1], given):
                return _InPlace.apply(kept[0].squeeze(0), targets, count)  # type: ignore[no-any-return, no-untyped-call]
            self._head = None  # from now on all at once
        logits = self.logits(model, inputs, positions)
        return cross_entropy(logits.float(), targets, reduction="sum") / count

    def close(self) -> None:
        """Remove the hooks from the model."""
        super().close()
        if self._hook is not None:
            self._hook.remove()

    def _one_column(self, model: Any, inputs: Mapping[str, Any], positions: Tensor) -> Tensor:
        """What the model gives if it gets one column of its logits, which are kept."""
        self._keeps = True
        try:
            return self.logits(model, inputs, positions)
        finally:
            self._keeps = False

    def _keep(self, module: nn.Module, arguments: tuple[Any, ...], logits: Tensor) -> Tensor | None:
        """Keep the logits from the model, which gets one column of them to show what it does to logits."""
        if not self._keeps:
            return None
        self._kept = logits, logits[..., :1]
        return self._kept[1]


def _nothing_done(before: Tensor, after: Tensor) -> bool:
    """Whether a tensor is what became of another by changes of its dtype and shape alone."""
    step: Any = after.grad_fn
    while step is not None and step is not before.grad_fn and step.name() in NOTHING_DONE:
        step = step.next_functions[0][0]
    return step is not None and step is before.grad_fn


class _InPlace(torch.autograd.Function):
    """Cross-entropy of logits, which are overwritten by their gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, count: Tensor) -> Tensor:
        rows = min(len(logits), max(1, AT_ONCE // logits.shape[1]))
        # Autograd would take new memory for each of these tables, and write zeros into the last, for every few rows.
        exact, log_likelihoods = (torch.empty(rows, logits.shape[1]) for _ in range(2))
        outer = torch.zeros(rows, logits.shape[1])  # gradient of the log-likelihoods, zero but at the targets
        each, total = -float(torch.ones(()) / count), torch.zeros(())
        for some, own in zip(torch.split(logits, rows), torch.split(targets, rows), strict=True):
            log_p, at_targets = log_likelihoods[: len(some)], outer[: len(some)]
            x = some if some.dtype == torch.float32 else exact[: len(some)].copy_(some)
            torch.log_softmax(x, dim=1, out=log_p)
            total += nll_loss(log_p, own, reduction="sum") / count
            at_targets.scatter_(1, own.unsqueeze(1), each)
            _log_softmax_backward(at_targets, log_p, 1, x.dtype, out=x)
            at_targets.scatter_(1, own.unsqueeze(1), 0.0)
            if x is not some:
                some.copy_(x)
        ctx.save_for_backward(logits)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient if outer[0] == 1 else gradient * outer[0], None, None
