"""From encoded datapoints to batches: which datapoints, in what order, padded how, with loss on which positions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler

from ocl_bench.models.encoding import Encoded


@dataclass(frozen=True)
class Datapoint:
    """One training sequence. `label_start`: the first position of `target` that carries loss."""

    source: tuple[int, ...]
    target: tuple[int, ...]
    label_start: int

    @property
    def length(self) -> int:
        """Tokens that the model has to process."""
        return max(len(self.source), len(self.target))

    @property
    def real_tokens(self) -> int:
        """Tokens of the datapoint itself, without padding."""
        return len(self.source) if self.source is self.target else len(self.source) + len(self.target)


def datapoint(encoded: Encoded, seq2seq: bool, loss: str) -> Datapoint:
    """A causal model reads and predicts one sequence; a seq2seq model reads the prompt and predicts the completion."""
    if seq2seq:
        return Datapoint(encoded.prompt, encoded.completion, 0)
    whole = encoded.prompt + encoded.completion
    return Datapoint(whole, whole, len(encoded.prompt) if loss == "completion" else 1)


class Collator:
    """Pads datapoints to the longest of the batch, on the right.

    Gives `input_ids` and `attention_mask` (no mask where nothing is padded), for seq2seq also `decoder_input_ids`,
    each of shape (batch, length); `positions`, the indices of the flattened positions whose prediction carries loss;
    and `targets`, the token that belongs to each. Padding is never among them.
    """

    def __init__(self, pad_id: int, decoder_start: int | None) -> None:
        self.pad_id = pad_id
        self.decoder_start = decoder_start

    def __call__(self, batch: Sequence[Datapoint]) -> dict[str, Tensor]:
        inputs = self._padded([one.source for one in batch], "input_ids", "attention_mask")
        if self.decoder_start is None:
            # Position t predicts token t + 1.
            width, shift = inputs["input_ids"].shape[1], 1
        else:
            shifted = [(self.decoder_start, *one.target[:-1]) for one in batch]
            inputs |= self._padded(shifted, "decoder_input_ids", "decoder_attention_mask")
            width, shift = inputs["decoder_input_ids"].shape[1], 0
        positions: list[int] = []
        targets: list[int] = []
        for row, one in enumerate(batch):
            start = max(one.label_start, shift)
            positions.extend(range(row * width + start - shift, row * width + len(one.target) - shift))
            targets.extend(one.target[start:])
        assert len(positions) == len(targets)
        return inputs | {"positions": torch.tensor(positions), "targets": torch.tensor(targets)}

    def _padded(self, rows: Sequence[tuple[int, ...]], ids_name: str, mask_name: str) -> dict[str, Tensor]:
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.pad_id] * (width - len(row))] for row in rows])
        if all(len(row) == width for row in rows):
            return {ids_name: ids}
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return {ids_name: ids, mask_name: mask}


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
        epoch = self._shuffled(self._always + self._draw(self._cycled_per_epoch))
        for start in range(0, len(epoch), self._batch_size):
            yield from sorted(epoch[start : start + self._batch_size], key=lambda number: self._lengths[number])

    def _draw(self, count: int) -> list[int]:
        while len(self._deck) < count:
            self._deck += self._shuffled(self._cycled)
        drawn, self._deck = self._deck[:count], self._deck[count:]
        return drawn

    def _shuffled(self, items: list[int]) -> list[int]:
        order = torch.randperm(len(items), generator=self._generator).tolist()
        return [items[number] for number in order]
