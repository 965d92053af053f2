"""Batches of a causal model whose key-value cache is kept.

What sequences share at their beginning is computed once, and an answer goes on from the pass that scored it.

Questions of a task come from a few templates, so most of a prompt is shared with many others.
"""

import inspect
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

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
        rows: prompts with completions, in an order in which all share what the first and the last share.
        pad_id: fills up the shorter ones.
    """

    def __init__(self, model: Any, rows: Sequence[Encoded], pad_id: int) -> None:
        self.model, self.prompts = model, [len(one.prompt) for one in rows]
        # A prompt's last token predicts something.
        self.shared = min(shared_length(rows[0], rows[-1]), min(self.prompts) - 1)
        sequences = [one.prompt + one.completion for one in rows]
        rests = [sequence[self.shared :] for sequence in sequences]
        self.width = max(map(len, rests))
        ids = [[*rest, *[pad_id] * (self.width - len(rest))] for rest in rests]
        self.beginning = torch.tensor([list(sequences[0][: self.shared])], device=model.device)
        self.ids = torch.tensor(ids, device=model.device)
        self.lengths = [self.shared + len(rest) for rest in rests]
        self.cache: Any = None

    def logits(self, labelled: LabelledPositions) -> Tensor:
        """Logits, shape (labels, vocabulary), of every token that completes a prompt, sequence after sequence."""
        from transformers.cache_utils import DynamicCache

        self.cache = DynamicCache()
        if self.shared:
            self.model.base_model(input_ids=self.beginning, past_key_values=self.cache, use_cache=True)
            self.cache.batch_repeat_interleave(len(self.ids))
        inputs = {
            "input_ids": self.ids,
            "attention_mask": self._mask(self.lengths),
            "position_ids": torch.arange(self.shared, self.shared + self.width, device=self.ids.device)[None],
            "past_key_values": self.cache,
            "use_cache": True,
        }
        positions = [
            row * self.width + place - 1 - self.shared
            for row, (prompt, length) in enumerate(zip(self.prompts, self.lengths, strict=True))
            for place in range(prompt, length)
        ]
        return labelled.logits(self.model, inputs, torch.tensor(positions, device=self.ids.device))

    def go_on(
        self, rows: Sequence[int], begins: Sequence[Sequence[int]], limits: Sequence[int], stops: Collection[int]
    ) -> list[list[int]]:
        """Greedy answers of some sequences' prompts, after `logits`; can be called once.

        Args:
            rows: which sequences.
            begins: how their answers begin: tokens of the completion, and one that may differ from it.
            limits: longest answers, in tokens.
            stops: token ids that end an answer.
        """
        answers = [list(one) for one in begins]
        prompts = [self.prompts[row] for row in rows]
        # What the cache holds of a completion after the tokens that the answer shares with it is masked.
        mask = self._mask([prompt + len(one) - 1 for prompt, one in zip(prompts, answers, strict=True)])
        self.cache.batch_select_indices(torch.tensor(rows, device=self.ids.device))
        active = list(range(len(answers)))
        while active:
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            last = [[answers[n][-1]] for n in active]
            places = [[prompts[n] + len(answers[n]) - 1] for n in active]
            logits = self.model(
                input_ids=torch.tensor(last, device=mask.device),
                attention_mask=mask,
                position_ids=torch.tensor(places, device=mask.device),
                past_key_values=self.cache,
                use_cache=True,
            ).logits[:, -1]
            for n, token in zip(active, logits.argmax(dim=-1).tolist(), strict=True):
                answers[n].append(token)
            kept = [
                place for place, n in enumerate(active) if len(answers[n]) < limits[n] and answers[n][-1] not in stops
            ]
            if len(kept) < len(active):
                still = torch.tensor(kept, dtype=torch.long, device=mask.device)
                mask = mask[still]
                self.cache.batch_select_indices(still)
                active = [active[place] for place in kept]
        return answers

    def _mask(self, lengths: Sequence[int]) -> Tensor:
        slots = torch.arange(self.shared + self.width, device=self.ids.device)
        return (slots[None] < torch.tensor(lengths, device=self.ids.device)[:, None]).long()
