"""Forced scoring: what one forward pass over a prompt and a completion says of the completion."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocl_bench.errors import Diverged
from ocl_bench.models.batches import Collator, datapoints
from ocl_bench.models.encoding import Encoded
from ocl_bench.models.labelled_positions import LabelledPositions

AT_ONCE = 2**20  # logits, 4 MiB in float32


class Forced(msgspec.Struct, frozen=True, gc=False):
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
    logits: Tensor,
    completions: Sequence[Sequence[int]],
    also: tuple[Sequence[int], Sequence[int]] = ((), ()),
    at_once: bool = False,
) -> tuple[list[Forced], list[float]]:
    """Score completions.

    Args:
        logits: of each token of the completions, one after the other, shape (labels, vocabulary).
        completions: token ids.
        also: rows of `logits`, and of each a token, whose log-probability is wanted besides.
        at_once: whether the tokens of a completion do not follow one another, so that a wrong one hides nothing.

    Returns:
        What is said of each completion, and those further log-probabilities.

    Raises:
        Diverged: if the logits are not numbers.
    """
    targets = np.array([token for one in completions for token in one])
    rows = np.concatenate([np.arange(len(targets)), np.array(also[0], dtype=np.int64)])
    best, logprobs = _read(logits, rows, np.concatenate([targets, np.array(also[1], dtype=np.int64)]))
    ends = np.cumsum([len(one) for one in completions])
    starts = np.concatenate([[0], ends[:-1]])
    totals = np.add.reduceat(logprobs[: len(targets)], starts)
    if not np.isfinite(totals).all():
        raise Diverged("the model's outputs are no longer numbers: training diverged; lower recipe.learning_rate.")
    places = np.arange(len(best))
    first_wrong = np.minimum.reduceat(np.where(best == targets, len(best), places), starts)
    greedy = first_wrong >= ends
    shown = ends if at_once else np.minimum(first_wrong + 1, ends)
    tokens = best.tolist()
    forced = [
        # Rounding may put a sure answer a hair above probability 1.
        Forced(min(0.0, total), right, tuple(tokens[start:end]))
        for total, right, start, end in zip(
            totals.tolist(), greedy.tolist(), starts.tolist(), shown.tolist(), strict=True
        )
    ]
    return forced, logprobs[len(targets) :].tolist()


def likeliest(logits: Tensor) -> NDArray[np.int64]:
    """The likeliest token of each row of logits; the first of several. On a CPU by numpy: ten times as fast."""
    return logits.float().numpy().argmax(axis=-1) if logits.is_cpu else logits.argmax(dim=-1).cpu().numpy()


def _read(logits: Tensor, rows: NDArray[np.int64], tokens: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The likeliest token of each row of logits, and the log-probability of some tokens, by a softmax in float32.

    A CPU takes as many rows at a time as stay in its cache: with a vocabulary of fifty thousand, bf16 and two threads
    all at once made evaluation a tenth slower (docs/performance.md).
    """
    size = max(1, AT_ONCE // logits.shape[1]) if logits.is_cpu else len(logits)
    best, logprobs = [], np.empty(len(rows), dtype=np.float32)
    order = np.argsort(rows, kind="stable")
    ends = np.searchsorted(rows[order], np.arange(0, len(logits) + size, size))
    for number, some in enumerate(torch.split(logits, size)):
        some = some.float()
        best.append(likeliest(some))
        own = order[ends[number] : ends[number + 1]]
        places = (torch.from_numpy(one).to(some.device) for one in (rows[own] - number * size, tokens[own]))
        logprobs[own] = torch.log_softmax(some, dim=-1)[tuple(places)].cpu().numpy()
    return np.concatenate(best), logprobs
