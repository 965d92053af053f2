"""Batches of a causal model whose key-value cache is kept.

What sequences share at their beginning is computed once, and an answer goes on from the pass that scored it.

Questions of a task come from a few templates, so most of a prompt is shared with many others.
"""

import copy
import inspect
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from ocl_bench.evaluate.forced import likeliest
from ocl_bench.models.encoding import Encoded
from ocl_bench.models.labelled_positions import LabelledPositions


def keeps_plain_cache(model: Any) -> bool:
    """Whether the model caches keys and values of every position, and takes positions as they are given.

    Recurrent models do not, nor do layers that forget what is outside a window.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if model.config.is_encoder_decoder or "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    with torch.no_grad():
        output = model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=True)
    cache = getattr(output, "past_key_values", None)
    return isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers)


def shared_length(first: Encoded, second: Encoded) -> int:
    """Tokens at the beginning of two prompts that a cache may hold once for both; none where their media differ."""
    pairs = zip(first.prefix_key, second.prefix_key, strict=False)
    # The media are the key's first part, and no token.
    return max(0, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) - 1)


class CachedBatch:
    """One batch.

    Args:
        model: its model, for which `keeps_plain_cache` holds.
        labelled: what sends only some positions through its output layer.
        rows: prompts with completions, in an order in which all share what the first and the last share.
        pad_id: fills up the shorter ones.
    """

    def __init__(self, model: Any, labelled: LabelledPositions, rows: Sequence[Encoded], pad_id: int) -> None:
        self.model, self.labelled, self.rows, self.pad_id = model, labelled, rows, pad_id
        self.prompts = [len(one.prompt) for one in rows]
        # A prompt's last token predicts something.
        self.shared = min(shared_length(rows[0], rows[-1]), min(self.prompts) - 1)
        self.cache: Any = None

    def logits(self) -> Tensor:
        """Logits, shape (labels, vocabulary), of every token that completes a prompt, sequence after sequence."""
        from transformers.cache_utils import DynamicCache

        self.cache = DynamicCache()
        if self.shared:
            beginning = torch.tensor([self.rows[0].prompt[: self.shared]], device=self.model.device)
            self.model.base_model(input_ids=beginning, past_key_values=self.cache, use_cache=True)
            self.cache.batch_repeat_interleave(len(self.rows))
        # The last token is only predicted.
        rests = [(one.prompt + one.completion)[self.shared : -1] for one in self.rows]
        begun = torch.full((len(rests),), self.shared, device=self.model.device)
        return self.read(
            self.cache, _ones(begun, self.shared), begun, rests, [len(one.completion) for one in self.rows]
        )

    def read(
        self, cache: Any, mask: Tensor, begun: Tensor, texts: Sequence[Sequence[int]], labels: Sequence[int]
    ) -> Tensor:
        """Read on: logits, shape (labels, vocabulary), of what follows the last tokens of each text.

        Args:
            cache: what was read before, in which `mask`, of shape (texts, slots), says what is not padding.
            begun: tokens of each sequence that were read before.
            texts: the tokens to read, of each sequence.
            labels: after how many of its last tokens the logits of a text are wanted.
        """
        ids, own = _padded(texts, self.pad_id, self.model.device)
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.cat([mask, own], dim=1),
            "position_ids": begun[:, None] + torch.arange(ids.shape[1], device=ids.device),
            "past_key_values": cache,
            "use_cache": True,
        }
        positions = [
            row * ids.shape[1] + place
            for row, (text, count) in enumerate(zip(texts, labels, strict=True))
            for place in range(len(text) - count, len(text))
        ]
        return self.labelled.logits(self.model, inputs, torch.tensor(positions, device=ids.device))

    def _prompts_of(self, rows: Sequence[int]) -> tuple[Any, Tensor, Tensor]:
        """Cache, mask and lengths of the prompts of some sequences; the batch's own cache stays as it is."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        cache.crop(max(self.prompts) - cache.get_seq_length())
        cache.batch_select_indices(torch.tensor(rows, device=self.model.device))
        begun = torch.tensor([self.prompts[row] for row in rows], device=self.model.device)
        return cache, _ones(begun, max(self.prompts)), begun

    def continued(
        self, rows: Sequence[int], completions: Sequence[tuple[int, ...]]
    ) -> Iterator[tuple[Tensor, list[tuple[int, ...]]]]:
        """What follows the first tokens of other completions, and its logits, shape (labels, vocabulary).

        Args:
            rows: the sequence whose prompt each completes; a sequence may be there many times.
            completions: of two tokens or more.

        Yields:
            Of as many completions at a time as the batch has sequences.
        """
        size = len(self.rows)
        for start in range(0, len(rows), size):
            part = completions[start : start + size]
            texts, rests = [one[:-1] for one in part], [one[1:] for one in part]
            yield self.read(*self._prompts_of(rows[start : start + size]), texts, list(map(len, rests))), rests

    def go_on(
        self, rows: Sequence[int], begins: Sequence[Sequence[int]], limits: Sequence[int], stops: Collection[int]
    ) -> list[list[int]]:
        """Greedy answers of some sequences' prompts, after `logits`.

        Args:
            rows: which sequences.
            begins: how their answers begin, each by a token or more.
            limits: longest answers, in tokens, of which none is reached yet.
            stops: token ids that end an answer.
        """
        answers = [list(one) for one in begins]
        active = list(range(len(answers)))
        cache, mask, begun = self._prompts_of(rows)
        texts = answers
        while active:
            tokens = likeliest(self.read(cache, mask, begun, texts, [1] * len(texts))).tolist()
            width, counts = max(map(len, texts)), torch.tensor([len(text) for text in texts], device=begun.device)
            mask, begun = torch.cat([mask, _ones(counts, width)], dim=1), begun + counts
            for n, token in zip(active, tokens, strict=True):
                answers[n].append(token)
            kept = [
                place for place, n in enumerate(active) if len(answers[n]) < limits[n] and answers[n][-1] not in stops
            ]
            if len(kept) < len(active):
                still = torch.tensor(kept, dtype=torch.long, device=mask.device)
                mask, begun = mask[still], begun[still]
                cache.batch_select_indices(still)
                active = [active[place] for place in kept]
            texts = [answers[n][-1:] for n in active]
        return answers


def _padded(texts: Sequence[Sequence[int]], pad_id: int, device: Any) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of texts, each filled up on the right."""
    lengths = torch.tensor([len(text) for text in texts])
    mask = _ones(lengths, int(lengths.max()))
    ids = torch.full_like(mask, pad_id)
    ids[mask.bool()] = torch.tensor([token for text in texts for token in text])
    return ids.to(device), mask.to(device)


def _ones(counts: Tensor, width: int) -> Tensor:
    """Rows that begin with as many ones as is said of each, followed by zeros, shape (counts, width)."""
    return (torch.arange(width, device=counts.device) < counts[:, None]).long()
