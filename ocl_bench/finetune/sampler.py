"""Which datapoints a training epoch uses, and which of them share an optimizer step."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from ocl_bench.finetune.epoch import Pool

NOTHING = -1  # in place of a datapoint, where another process has one more of the same effective batch


class EpochSampler(Sampler[int]):
    """Random order of the datapoints, sorted by length inside each effective batch.

    Which datapoints share an optimizer step is uniformly random, as in the paper, because what a step contains decides
    the effect that is measured; the order inside it only decides how much padding its micro-batches need.

    Of several processes each gets its share of every effective batch, all shares of one length.

    Args:
        lengths: tokens of each datapoint.
        batch_size: datapoints per optimizer step, over all processes.
        pools: what an epoch has; together they are all datapoints.
        seed: decides the order of all epochs.
        rank, processes: which of how many processes this is.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        pools: Sequence[Pool],
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._rank, self._processes = rank, processes
        self._lengths = lengths
        self._batch_size = batch_size
        self._pools = pools
        self._generator = torch.Generator().manual_seed(seed)
        self._decks: list[list[int]] = [[] for _ in pools]

    def __len__(self) -> int:
        batches, rest = divmod(sum(pool.per_epoch for pool in self._pools), self._batch_size)
        return batches * self._share(self._batch_size) + self._share(rest)

    def __iter__(self) -> Iterator[int]:
        epoch = self._epoch()
        for start in range(0, len(epoch), self._batch_size):
            batch = sorted(epoch[start : start + self._batch_size], key=lambda number: self._lengths[number])
            own = batch[self._rank :: self._processes]
            yield from own
            yield from [NOTHING] * (self._share(len(batch)) - len(own))

    def _share(self, batch: int) -> int:
        """How many of so many datapoints a process gets."""
        return -(-batch // self._processes)

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
