"""From encoded datapoints to a batch that a model reads: padded how, with loss on which positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocl_bench.collection import without_collection
from ocl_bench.models.encoding import Encoded
from ocl_bench.models.pictures import Album, Shown, pixels


@dataclass(frozen=True)
class Datapoint:
    """One training sequence.

    Attributes:
        source: ids that the model reads; those of `target` for a causal model, none beside a picture.
        target: ids that it predicts.
        label_start: the first position of `target` that carries loss.
        shown: the picture that it sees; None for text.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    label_start: int
    shown: Shown | None = None

    @property
    def length(self) -> int:
        """Tokens that the model has to process."""
        return max(len(self.source), len(self.target))

    @property
    def real_tokens(self) -> int:
        """Tokens of the datapoint itself, without padding."""
        return len(self.source) if self.source is self.target else len(self.source) + len(self.target)


@without_collection()
def datapoints(encoded: Sequence[Encoded], seq2seq: bool, loss: str) -> list[Datapoint]:
    """What each is trained on; pictures share an album."""
    pictures = [one.media[0] for one in encoded if one.media]
    if not pictures:
        return [datapoint(one, seq2seq, loss) for one in encoded]
    album = Album(pictures)
    return [Datapoint((), one.completion, 0, Shown(album, number)) for number, one in enumerate(encoded)]


def datapoint(encoded: Encoded, seq2seq: bool, loss: str) -> Datapoint:
    """A causal model reads and predicts one sequence; a seq2seq model reads the prompt and predicts the completion."""
    if seq2seq:
        return Datapoint(encoded.prompt, encoded.completion, 0)
    whole = encoded.prompt + encoded.completion
    return Datapoint(whole, whole, len(encoded.prompt) if loss == "completion" else 1)


def decoder_start(config: Any) -> int | None:
    """The token a seq2seq decoder starts from; None for a causal model."""
    if not config.is_encoder_decoder:
        return None
    start = getattr(config, "decoder_start_token_id", None)
    return int(start if start is not None else config.pad_token_id)


class Collator:
    """Pads datapoints to the longest of the batch, on the right; a causal model is not given the last token.

    A model that sees pictures is given their `pixel_values` alone, and predicts all of an answer from them.

    Gives `input_ids` and `attention_mask` (no mask where nothing is padded), for seq2seq also `decoder_input_ids`,
    each of shape (batch, length); `positions`, the indices of the flattened positions whose prediction carries loss;
    and `targets`, the token that belongs to each. Padding is never among them.
    """

    def __init__(self, pad_id: int, decoder_start: int | None) -> None:
        self.pad_id = pad_id
        self.decoder_start = decoder_start

    def __call__(self, batch: Sequence[Datapoint]) -> dict[str, Tensor]:
        if batch[0].shown is not None:
            inputs = {"pixel_values": pixels([cast(Shown, one.shown) for one in batch])}
            width, shift = max(len(one.target) for one in batch), 0
        elif self.decoder_start is None:
            # Position t predicts token t + 1, so that the last token is only predicted.
            inputs = self._padded([one.source[:-1] for one in batch], "input_ids", "attention_mask")
            width, shift = inputs["input_ids"].shape[1], 1
        else:
            inputs = self._padded([one.source for one in batch], "input_ids", "attention_mask")
            shifted = [(self.decoder_start, *one.target[:-1]) for one in batch]
            inputs |= self._padded(shifted, "decoder_input_ids", "decoder_attention_mask")
            width, shift = inputs["decoder_input_ids"].shape[1], 0
        starts = np.array([max(one.label_start, shift) for one in batch])
        ends = np.array([len(one.target) for one in batch])
        places = np.arange(width) + shift  # of the token that a position predicts
        positions = np.flatnonzero((places >= starts[:, None]) & (places < ends[:, None]))
        targets = _flat([one.target[start:] for one, start in zip(batch, starts, strict=True)])
        assert len(positions) == len(targets)
        return inputs | {"positions": torch.from_numpy(positions), "targets": torch.from_numpy(targets)}

    def _padded(self, rows: Sequence[tuple[int, ...]], ids_name: str, mask_name: str) -> dict[str, Tensor]:
        lengths = np.array([len(row) for row in rows])
        real = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(real.shape, self.pad_id, dtype=np.int64)
        ids[real] = _flat(rows)
        found = {ids_name: torch.from_numpy(ids)}
        return found if real.all() else found | {mask_name: torch.from_numpy(real.astype(np.int64))}


def _flat(rows: Sequence[tuple[int, ...]]) -> NDArray[np.int64]:
    """All numbers, row after row."""
    return np.fromiter(chain.from_iterable(rows), dtype=np.int64)
