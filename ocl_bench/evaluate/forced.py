"""Forced scoring: what one forward pass over a prompt and a completion says of the completion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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


def score(
    logits: Tensor, logprobs: Tensor, completions: Sequence[Sequence[int]], at_once: bool = False
) -> list[Forced]:
    """Score completions.

    Args:
        logits: of each token of the completions, one after the other, shape (labels, vocabulary).
        logprobs: their log-softmax.
        completions: token ids.
        at_once: whether the tokens of a completion do not follow one another, so that a wrong one hides nothing.

    Raises:
        Diverged: if the logits are not numbers.
    """
    targets = np.array([token for one in completions for token in one])
    own = logprobs.gather(1, torch.from_numpy(targets).to(logits.device)[:, None]).squeeze(1).cpu().numpy()
    best = logits.argmax(dim=-1).cpu().numpy()
    ends = np.cumsum([len(one) for one in completions])
    starts = np.concatenate([[0], ends[:-1]])
    totals = np.add.reduceat(own, starts)
    if not np.isfinite(totals).all():
        raise Diverged("the model's outputs are no longer numbers: training diverged; lower recipe.learning_rate.")
    places = np.arange(len(best))
    first_wrong = np.minimum.reduceat(np.where(best == targets, len(best), places), starts)
    greedy = first_wrong >= ends
    shown = ends if at_once else np.minimum(first_wrong + 1, ends)
    tokens = best.tolist()
    return [
        # Rounding may put a sure answer a hair above probability 1.
        Forced(min(0.0, total), right, tuple(tokens[start:end]))
        for total, right, start, end in zip(
            totals.tolist(), greedy.tolist(), starts.tolist(), shown.tolist(), strict=True
        )
    ]
