"""Activations of texts at chosen tokens: one pass for all layers, of which only these tokens are kept, on disk."""

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import structs
from numpy.typing import NDArray
from torch import Tensor

from ocl_bench.evaluate.batching import CPU, GPU, Batching
from ocl_bench.evaluate.evaluator import Loaded
from ocl_bench.evaluate.questions import within_memory
from ocl_bench.models.batches import Collator, Datapoint, datapoints, decoder_start
from ocl_bench.models.encoding import Encoded

# Bytes of a batch's activations, those of all layers, which are all there at the end of its pass.
BATCH_BYTES = 2**28


@dataclass(frozen=True)
class Look:
    """A token at which a model is looked at.

    Attributes:
        text: number of the text.
        token: its place in prompt + completion; 0 for a picture, which is looked at as a whole.
    """

    text: int
    token: int


class Activations:
    """The residual stream of a model at some tokens, layer by layer; 0 is what the first layer is given.

    The last is, with most models, behind the final norm: transformers tells no more of it. A seq2seq model's encoder
    reads the prompt and its decoder the completion, each with layers of its own. Of a picture it is the mean over the
    places of a feature map, or over patches.

    Args:
        loaded: the model, which is left as it is.
        encoded: the texts, or pictures.
        looks: where they are looked at.
        layers: which layers; None for all.
        folder: takes a file for each layer.

    Attributes:
        layers: those that there are of them.
    """

    def __init__(
        self,
        loaded: Loaded,
        encoded: Sequence[Encoded],
        looks: Sequence[Look],
        layers: Sequence[int] | None,
        folder: Path,
    ) -> None:
        self.model, self._autocasts = loaded.model, loaded.autocast
        self._encoded, self._seq2seq = encoded, loaded.encoder.seq2seq
        self._points = _read_whole(encoded, loaded.encoder.seq2seq, loaded.encoder.pad_id)
        self._collate = Collator(loaded.encoder.pad_id, decoder_start(self.model.config))
        self._limits = GPU if self.model.device.type == "cuda" else CPU
        self._sides = [self._side(look) for look in looks]
        self._of_text: dict[int, list[tuple[int, int]]] = defaultdict(list)  # each look's number and place
        for number, (look, side) in enumerate(zip(looks, self._sides, strict=True)):
            place = look.token - len(encoded[look.text].prompt) + 1 if side else look.token  # behind the start token
            self._of_text[look.text].append((number, place))
        shortest = min(range(len(encoded)), key=lambda number: self._points[number].length)
        sides = self._states([shortest])
        self._depths = [len(states) for states in sides]
        size = sum(state.numel() * state.element_size() for states in sides for state in states)
        self.max_tokens = max(1, min(self._limits.tokens, BATCH_BYTES * self._points[shortest].length // size))
        widths = [state.shape[1 if state.dim() == 4 else -1] for state in max(sides, key=len)]
        self.layers = [one for one in range(len(widths)) if layers is None or one in layers]
        self._files = {
            layer: np.memmap(folder / f"layer-{layer}", np.float32, "w+", shape=(len(looks), widths[layer]))
            for layer in self.layers
        }
        within_memory(self, self._fill)

    def remember_limit(self) -> None:
        """Nothing: whoever asks questions has room for longer batches."""

    def of(self, layer: int) -> NDArray[np.float32]:
        """A layer, shape (looks, width), which is read from its file as far as it is looked at."""
        return self._files[layer]

    def has(self, look: int, layer: int) -> bool:
        """Whether there is such a layer where a look is: an encoder and its decoder may have different numbers."""
        return layer < self._depths[self._sides[look]]

    def _side(self, look: Look) -> int:
        """1 for what a decoder beside an encoder reads, else 0."""
        return int(self._seq2seq and look.token >= len(self._encoded[look.text].prompt))

    def _fill(self) -> None:
        batching = Batching(self._seq2seq, 1, False, self._limits)
        for numbers in batching.batches([[one] for one in self._encoded], self.max_tokens):
            looks = [(row, *one) for row, number in enumerate(numbers) for one in self._of_text[number]]
            for side, states in enumerate(self._states(numbers)):
                own = [one for one in looks if self._sides[one[1]] == side]
                if not own:
                    continue
                rows, which, places = map(list, zip(*own, strict=True))
                for layer in (one for one in self.layers if one < len(states)):
                    vectors = self._vectors(states[layer], rows, places)
                    self._files[layer][which] = vectors.float().cpu().numpy()

    def _vectors(self, state: Tensor, rows: list[int], places: list[int]) -> Tensor:
        if not self._encoded[0].media:
            return state[rows, places]
        return state.mean(dim=(2, 3) if state.dim() == 4 else 1)[rows]

    @torch.no_grad()
    def _states(self, numbers: Sequence[int]) -> list[tuple[Tensor, ...]]:
        inputs = self._collate([self._points[number] for number in numbers])
        given = {name: inputs[name].to(self.model.device) for name in inputs if name not in ("positions", "targets")}
        with self._autocast():
            return hidden_states(self.model, given)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self._autocasts)


def hidden_states(model: Any, inputs: Mapping[str, Tensor]) -> list[tuple[Tensor, ...]]:
    """All layers of a model, or those of its encoder and those of its decoder; empty where it does not tell.

    Each of shape (batch, length, width), or for feature maps (batch, channels, rows, columns). No logits are computed
    where the model is more than its head.
    """
    found = model.base_model(**inputs, output_hidden_states=True, use_cache=False)
    seq2seq = model.config.is_encoder_decoder
    names = ("encoder_hidden_states", "decoder_hidden_states") if seq2seq else ("hidden_states",)
    return [tuple(getattr(found, name, None) or ()) for name in names]


def _read_whole(encoded: Sequence[Encoded], seq2seq: bool, pad_id: int) -> list[Datapoint]:
    """Datapoints that are read to their end: the last token is otherwise only predicted, so that one is put behind.

    A picture without scans of its own has those that its number draws.
    """
    longer = [one if one.media else structs.replace(one, completion=(*one.completion, pad_id)) for one in encoded]
    points = datapoints(longer, seq2seq, "all")
    return [
        one if one.shown is None else replace(one, shown=replace(one.shown, draw=number))
        for number, one in enumerate(points)
    ]
