"""Send only chosen positions through a model's output layer.

The output layer is most of a small model's work, and most positions of a batch carry no label. The selection is a hook
on the layer that `get_output_embeddings()` returns, so it holds for every architecture, with whatever scaling the model
applies before or after that layer.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class LabelledPositions:
    """Computes logits of chosen positions of one model.

    Args:
        model: a causal or seq2seq language model of transformers.
    """

    def __init__(self, model: Any) -> None:
        self._positions: Tensor | None = None
        self._selected = False
        head = model.get_output_embeddings()
        self._handle = head.register_forward_pre_hook(self._select) if isinstance(head, nn.Module) else None

    def logits(self, model: Any, inputs: Mapping[str, Any], positions: Tensor) -> Tensor:
        """Run `model` and return logits of shape (number of positions, vocabulary), of the type it computes them in.

        Args:
            model: the model given to the constructor, or a wrapper around it (for data parallelism).
            inputs: its inputs, batch first; nothing is cached unless they say so.
            positions: indices into the flattened (batch × sequence) positions of the output layer's input.
        """
        self._positions, self._selected = positions, False
        try:
            logits: Tensor = model(**{"use_cache": False, **inputs}).logits
        finally:
            self._positions = None
        if self._selected:
            return logits.squeeze(0)
        return logits.flatten(0, 1)[positions]

    def close(self) -> None:
        """Remove the hook from the model."""
        if self._handle is not None:
            self._handle.remove()

    def _select(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        hidden, *rest = arguments
        # A layer that is also the input embedding is called with token ids first.
        if self._positions is None or not hidden.is_floating_point():
            return None
        self._selected = True
        return (torch.index_select(hidden.flatten(0, 1), 0, self._positions).unsqueeze(0), *rest)
