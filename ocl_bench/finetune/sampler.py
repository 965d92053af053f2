"""Which datapoints a training epoch uses, and which of them share an optimizer step."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Random order of the datapoints, sorted by length inside each effective batch.

    Which datapoints share an optimizer step is uniformly random, as in the paper, because what a step contains decides
    the effect that is measured; the order inside it only decides how much padding its micro-batches need.

    Args:
        lengths: tokens of each datapoint.
        batch_size: datapoints per optimizer step on this process.
        is_definition: which datapoints are definitions.
        definitions_per_epoch: definitions in an epoch. If that is not all of them, each is used equally often (plus or
            minus one) over the epochs; questions are used once an epoch.
        seed: decides the order of all epochs.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        is_definition: Sequence[bool],
        definitions_per_epoch: int,
        seed: int,
    ) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        definitions = [number for number, flag in enumerate(is_definition) if flag]
        questions = [number for number, flag in enumerate(is_definition) if not flag]
        if definitions_per_epoch == len(definitions):
            self._always, self._cycled, self._cycled_per_epoch = list(range(len(lengths))), [], 0
        else:
            self._always, self._cycled, self._cycled_per_epoch = questions, definitions, definitions_per_epoch
        self._generator = torch.Generator().manual_seed(seed)
        self._deck: list[int] = []

    def __len__(self) -> int:
        return len(self._always) + self._cycled_per_epoch

    def __iter__(self) -> Iterator[int]:
        epoch = self._epoch()
        for start in range(0, len(epoch), self._batch_size):
            yield from sorted(epoch[start : start + self._batch_size], key=lambda number: self._lengths[number])

    def skip(self, epochs: int) -> None:
        """Draw this many epochs and drop them, so that the next is the one it would be after training on them."""
        for _ in range(epochs):
            self._epoch()

    def _epoch(self) -> list[int]:
        return self._shuffled(self._always + self._draw(self._cycled_per_epoch))

    def _draw(self, count: int) -> list[int]:
        while len(self._deck) < count:
            self._deck += self._shuffled(self._cycled)
        drawn, self._deck = self._deck[:count], self._deck[count:]
        return drawn

    def _shuffled(self, items: list[int]) -> list[int]:
        order = torch.randperm(len(items), generator=self._generator).tolist()
        return [items[number] for number in order]
