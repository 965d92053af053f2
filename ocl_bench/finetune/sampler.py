"""Which datapoints a training epoch uses, and which of them share an optimizer step."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from ocl_bench.finetune.epoch import Pool


class EpochSampler(Sampler[int]):
    """Random order of the datapoints, sorted by length inside each effective batch.

    Which datapoints share an optimizer step is uniformly random, as in the paper, because what a step contains decides
    the effect that is measured; the order inside it only decides how much padding its micro-batches need.

    Args:
        lengths: tokens of each datapoint.
        batch_size: datapoints per optimizer step on this process.
        pools: what an epoch has; together they are all datapoints.
        seed: decides the order of all epochs.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        pools: Sequence[Pool],
        seed: int,
    ) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._pools = pools
        self._generator = torch.Generator().manual_seed(seed)
        self._decks: list[list[int]] = [[] for _ in pools]

    def __len__(self) -> int:
        return sum(pool.per_epoch for pool in self._pools)

    def __iter__(self) -> Iterator[int]:
        epoch = self._epoch()
        for start in range(0, len(epoch), self._batch_size):
            yield from sorted(epoch[start : start + self._batch_size], key=lambda number: self._lengths[number])

    def skip(self, epochs: int) -> None:
        """Draw this many epochs and drop them, so that the next is the one it would be after training on them."""
        for _ in range(epochs):
            self._epoch()

    def _epoch(self) -> list[int]:
        return self._shuffled([number for place in range(len(self._pools)) for number in self._draw(place)])

    def _draw(self, place: int) -> Sequence[int]:
        pool, deck = self._pools[place], self._decks[place]
        if not pool.drawn:
            return pool.numbers
        while len(deck) < pool.per_epoch:
            deck += self._shuffled(pool.numbers)
        drawn, self._decks[place] = deck[: pool.per_epoch], deck[pool.per_epoch :]
        return drawn

    def _shuffled(self, items: Sequence[int]) -> list[int]:
        order = torch.randperm(len(items), generator=self._generator).tolist()
        return [items[number] for number in order]
