"""Forced scoring: what one forward pass over a prompt and a completion says of the completion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocl_bench.errors import Diverged
from ocl_bench.models.batches import Collator, datapoints
from ocl_bench.models.encoding import Encoded
from ocl_bench.models.labelled_positions import LabelledPositions


@dataclass(frozen=True)
class Forced:
    """Outcome of teacher forcing.

    Attributes:
        logprob: natural log-probability of the completion.
        greedy: whether each token of the completion is the argmax.
        begins: what greedy decoding begins with, as far as the completion shows it: the completion's tokens up to the
            first that is not the argmax, and the argmax in its place; all of it where tokens do not follow one another.
    """

    logprob: float
    greedy: bool
    begins: tuple[int, ...]


def plain_logits(model: Any, labelled: LabelledPositions, collate: Collator, rows: Sequence[Encoded]) -> Tensor:
    """Logits, shape (labels, vocabulary), of every token that completes a prompt, row after row; nothing is cached.

    Args:
        model: a causal or seq2seq language model.
        labelled: what sends only those positions through its output layer.
        collate: pads for this model.
        rows: prompts with completions.
    """
    batch = datapoints(rows, collate.decoder_start is not None, "completion")
    inputs = {name: tensor.to(model.device) for name, tensor in collate(batch).items()}
    positions, _ = inputs.pop("positions"), inputs.pop("targets")
    return labelled.logits(model, inputs, positions)


def score(logits: Tensor, rows: Sequence[Encoded]) -> list[Forced]:
    """Score completions.

    Args:
        logits: of each token of the completions, row after row, shape (labels, vocabulary).
        rows: prompts with completions.

    Raises:
        Diverged: if the logits are not numbers.
    """
    targets = torch.tensor([token for one in rows for token in one.completion], device=logits.device)
    logprobs = logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
    best = logits.argmax(dim=-1)
    counts = [len(one.completion) for one in rows]
    columns = [torch.split(tensor.cpu(), counts) for tensor in (logprobs, best == targets, best)]
    at_once = [bool(one.media) for one in rows]
    return [_of_one(*row) for row in zip(*columns, at_once, strict=True)]


def _of_one(logprobs: Tensor, right: Tensor, best: Tensor, at_once: bool) -> Forced:
    total = float(logprobs.sum())
    if not math.isfinite(total):
        raise Diverged("the model's outputs are no longer numbers: training diverged; lower recipe.learning_rate.")
    hits = right.tolist()
    shown = hits.index(False) + 1 if False in hits and not at_once else len(hits)
    # Rounding may put a sure answer a hair above probability 1.
    return Forced(min(0.0, total), False not in hits, tuple(best[:shown].tolist()))
