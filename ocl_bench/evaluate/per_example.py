"""The gradient of each example's loss, of any model, from one pass for many examples.

Linear layers and embeddings leave theirs as factors (see `factors`). Any other layer that has no layers inside is asked
for the gradient of each example by `torch.func`, given what went in and what came back. That this is the gradient is
not believed but looked at: of two examples, beside autograd's own. Parameters of which it is not, as they are used in
another way than by calling their layer, are left to `vmap` over the whole model, or where that fails, to a loop.
"""

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp, vmap
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

from ocl_bench.evaluate.factors import Factors, Gradient, Rows, dense
from ocl_bench.models.batches import Collator, Datapoint, decoder_start
from ocl_bench.models.labelled_positions import LabelledPositions

# Difference from autograd's gradient, as a part of it, that is put down to rounding in float32.
ROUNDING = 1e-4
# Tokens of a pass: more gain no speed.
MAX_TOKENS = {"cpu": 2048, "cuda": 16384}
# A layer's input, output and gradient, of which a pass may take this part of the memory that is free.
KEPT_BYTES, MEMORY_SHARE = 3 * 4, 0.25


@dataclass(frozen=True)
class _Batch:
    """Examples as a model is given them: inputs, and of each, shape (examples, most labels): the position that predicts
    a label, the label, and its weight in the loss, 0 where there are fewer labels."""

    inputs: Mapping[str, Tensor]
    width: int
    places: Tensor
    targets: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def map(self, change: Callable[[Tensor], Tensor]) -> "_Batch":
        """The same with every tensor changed."""
        inputs = {name: change(one) for name, one in self.inputs.items()}
        return _Batch(inputs, self.width, *map(change, (self.places, self.targets, self.weights)))


@dataclass(frozen=True)
class _Call:
    """A layer was given a tensor, and made another of it."""

    layer: nn.Module
    given: Tensor
    made: Tensor


class PerExample:
    """Gradients of single examples, in float32, of a model that is left as it is.

    Args:
        model: a causal or seq2seq language model in eval mode, or one that looks at pictures.
        pad_id: id to pad with.
        sample: two datapoints to look at the model with, at best of different length.

    Attributes:
        max_tokens: tokens that a pass may have; may be lowered after one that ran out of memory. A row is never split.
        slow: names of parameters that take a pass of their own, and whether that is one for each example.
    """

    def __init__(self, model: Any, pad_id: int, sample: Sequence[Datapoint]) -> None:
        self.model = model
        self._collate, self._seq2seq = Collator(pad_id, decoder_start(model.config)), model.config.is_encoder_decoder
        self._parameters = dict(model.named_parameters())
        names = {id(parameter): name for name, parameter in self._parameters.items()}
        # Layer without layers inside → its own name of a parameter → the model's.
        self._layers = {
            layer: {name: names[id(parameter)] for name, parameter in layer.named_parameters(recurse=False)}
            for layer in model.modules()
            if not list(layer.children())
        }
        self.max_tokens = _tokens_that_fit(model)
        self.slow: frozenset[str] = frozenset()
        self.looped = False
        self.slow = self._unexplained(sample)

    def remember_limit(self) -> None:
        """Later rows are asked for with the same `max_tokens`."""

    def rows(self, groups: Sequence[Sequence[Datapoint]]) -> Rows:
        """A row for each group of datapoints: the gradient of the mean of their losses, each the mean over its labels.

        All are in one pass.
        """
        size = max(map(len, groups))
        filled = [(*group, *[group[0]] * (size - len(group))) for group in groups]
        weights = [[1 / len(group)] * len(group) + [0.0] * (size - len(group)) for group in groups]
        points, parts = [one for group in filled for one in group], [one for own in weights for one in own]
        batch = self._batch(points, parts)
        found: dict[str, Gradient] = {}
        with self._labelled() as labelled, torch.enable_grad():
            found |= self._explained(*self._calls(labelled, batch, self.model))
            if self.slow:
                found |= self._slowly(labelled, points, parts)
        return Rows(found).grouped(size)

    def _batch(self, points: Sequence[Datapoint], weights: Sequence[float]) -> _Batch:
        inputs = self._collate(points)
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        read = inputs.get("decoder_input_ids", inputs.get("input_ids"))
        width = max(len(one.target) for one in points) if read is None else read.shape[1]
        row = positions // width
        counts = torch.bincount(row, minlength=len(points))
        number = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
        shape = len(points), int(counts.max())
        made = _Batch(
            inputs, width, *(torch.zeros(shape, dtype=one) for one in (torch.int64, torch.int64, torch.float))
        )
        made.places[row, number], made.targets[row, number] = positions % width, targets
        made.weights[row, number] = (torch.tensor(weights) / counts)[row]
        return made.map(lambda one: one.to(self.model.device))

    @contextlib.contextmanager
    def _labelled(self) -> Iterator[LabelledPositions]:
        labelled = LabelledPositions(self.model)
        try:
            yield labelled
        finally:
            labelled.close()

    @staticmethod
    def _loss(labelled: LabelledPositions, batch: _Batch, call: Callable[..., Any]) -> Tensor:
        rows = torch.arange(len(batch), device=batch.places.device)[:, None]
        logits = labelled.logits(call, batch.inputs, (batch.places + rows * batch.width).flatten())
        losses = cross_entropy(logits.float(), batch.targets.flatten(), reduction="none")
        return (losses * batch.weights.flatten()).sum()

    def _with(self, own: Mapping[str, Tensor]) -> Callable[..., Any]:
        """The model, with some parameters in place of its own."""
        return lambda **inputs: functional_call(self.model, dict(own), (), inputs)

    def _calls(
        self, labelled: LabelledPositions, batch: _Batch, call: Callable[..., Any]
    ) -> tuple[Tensor, list[_Call]]:
        """The loss of a batch, and the calls of layers that made it, each of one row an example."""
        calls: list[_Call] = []
        embedding, head = self._embedding_and_head()
        # Examples, or all of their positions one after another.
        rows = {len(batch), *(one.numel() for name, one in batch.inputs.items() if name.endswith("input_ids"))}

        def hook(layer: nn.Module, given: tuple[Any, ...], made: Any) -> Any:
            if len(given) != 1 or not isinstance(made, Tensor) or not _is_matrix_of(layer, given[0], made):
                return None  # and the parameters are not explained
            (read,) = given
            if layer is head and len(made) == 1:  # labelled positions come in one row
                calls.append(_Call(layer, read.detach().unflatten(1, (len(batch), -1))[0], made))
            elif isinstance(layer, nn.Embedding) and len(made) == 1 and layer.embedding_dim == embedding:
                # Positions that are the same for all examples.
                made, read = (one.expand(len(batch), *one.shape[1:]) for one in (made, read))
                calls.append(_Call(layer, read, made))
            elif len(made) == len(read) and len(read) in rows:
                calls.append(_Call(layer, read.detach().unflatten(0, (len(batch), -1)), made))
            else:
                self.slow |= set(self._layers[layer].values())
                return None
            return made if made.requires_grad else made.requires_grad_()

        wanted = [layer for layer, names in self._layers.items() if set(names.values()) - self.slow]
        hooks = [layer.register_forward_hook(hook) for layer in wanted]
        try:
            loss = self._loss(labelled, batch, call)
        finally:
            for one in hooks:
                one.remove()
        return loss, calls

    def _embedding_and_head(self) -> tuple[int | None, Any]:
        """The embedding's width, and the output layer."""
        try:
            return self.model.get_input_embeddings().weight.shape[1], self.model.get_output_embeddings()
        except (NotImplementedError, AttributeError):  # it looks at pictures
            return None, None

    def _explained(self, loss: Tensor, calls: Sequence[_Call], again: bool = False) -> dict[str, Gradient]:
        """Gradients of the parameters of layers that were called, from the gradients of what they made.

        Args:
            loss, calls: from `_calls`.
            again: whether the loss is to be asked for others.
        """
        if not calls:
            return {}
        made = [one.made for one in calls]
        deltas: Sequence[Tensor | None] = torch.autograd.grad(loss, made, allow_unused=True, retain_graph=again)
        found: dict[str, list[Factors | Tensor]] = defaultdict(list)
        for call, delta in zip(calls, deltas, strict=True):
            if delta is None:
                continue
            for name, part in _of_call(call, delta).items():
                if (full := self._layers[call.layer][name]) not in self.slow:
                    found[full].append(part)
        return {name: _together(parts) for name, parts in found.items()}

    @torch.enable_grad()
    def _unexplained(self, sample: Sequence[Datapoint]) -> frozenset[str]:
        """Parameters of which calls of layers do not give the gradient of the first of two examples, and 0 for the
        second, where the loss is of the first."""
        own = {name: one.detach().clone().requires_grad_() for name, one in self._parameters.items()}
        batch = self._batch(sample[:2], [1.0, 0.0])
        try:
            with self._labelled() as labelled:
                loss, calls = self._calls(labelled, batch, self._with(own))
                found = self._explained(loss, calls, again=True)
                true: Sequence[Tensor | None] = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
        except RuntimeError as error:
            if should_reduce_batch_size(error):
                raise
            return frozenset(own)
        called = {name for one in calls for name in self._layers[one.layer].values()}
        slow = set(self.slow)
        for name, gradient in zip(own, true, strict=True):
            if gradient is None:
                slow |= set() if name in called else {name}
                continue
            rounding = max(ROUNDING, 8 * torch.finfo(gradient.dtype).eps) * gradient.norm()
            wanted = torch.stack([gradient.flatten(), torch.zeros_like(gradient).flatten()])
            if name not in found or (dense(found[name]) - wanted).norm() > rounding:
                slow.add(name)
        return frozenset(slow)

    def _slowly(
        self, labelled: LabelledPositions, points: Sequence[Datapoint], weights: Sequence[float]
    ) -> dict[str, Gradient]:
        """Gradients of the slow parameters. Those of one length go together: vmap cannot look at masks of padding."""
        lengths = defaultdict(list)
        for number, one in enumerate(points):
            lengths[len(one.source), len(one.target)].append(number)
        order = torch.tensor([number for own in lengths.values() for number in own]).argsort()
        batches = [self._batch([points[n] for n in own], [weights[n] for n in own]) for own in lengths.values()]
        found = [self._by_vmap(labelled, one) for one in batches]
        return {name: torch.cat([one[name] for one in found])[order] for name in self.slow}

    def _by_vmap(self, labelled: LabelledPositions, batch: _Batch) -> dict[str, Tensor]:
        own = {name: self._parameters[name].detach() for name in self.slow}
        examples = (dict(batch.inputs), batch.places, batch.targets, batch.weights)

        def loss(own: dict[str, Tensor], inputs: dict[str, Tensor], *rest: Tensor) -> Tensor:
            example = _Batch(inputs, batch.width, *rest).map(lambda one: one[None])
            return self._loss(labelled, example, self._with(own))

        # Nothing else has gradients; and that vmap does some operations one by one is no news to a user.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*performance drop.*")
            if not self.looped:
                try:
                    found = vmap(grad(loss), in_dims=(None, 0, 0, 0, 0))(own, *examples)
                    return {name: one.flatten(1) for name, one in found.items()}
                except (RuntimeError, ValueError, NotImplementedError) as error:
                    if should_reduce_batch_size(error):
                        raise
                    self.looped = True
            singles = [
                grad(loss)(own, {name: one[number] for name, one in batch.inputs.items()}, *rest)
                for number, rest in enumerate(zip(*examples[1:], strict=True))
            ]
        return {name: torch.stack([one[name].flatten() for one in singles]) for name in own}


def alignments(
    gradients: PerExample,
    variables: Sequence[tuple[Sequence[Datapoint], Sequence[Datapoint]]],
    controls: Sequence[int],
) -> list[list[float]]:
    """Of each variable, products of the mean gradients of its definitions, d, of its questions, q, and of those of
    another variable, o: ⟨d, d⟩, ⟨q, q⟩, ⟨o, o⟩, ⟨d, q⟩, ⟨d, o⟩.

    Args:
        gradients: of the model.
        variables: definitions and questions of each.
        controls: the number of each one's other variable.
    """
    found: list[list[float]] = []
    longest = max(len(questions) * max(one.length for one in questions) for _, questions in variables)
    size = max(1, gradients.max_tokens // longest)
    for start in range(0, len(variables), size):
        own = range(start, min(start + size, len(variables)))
        needed = list(dict.fromkeys([*own, *(controls[number] for number in own)]))
        others = [needed.index(controls[number]) for number in own]
        definition = gradients.rows([variables[number][0] for number in own])
        question = gradients.rows([variables[number][1] for number in needed])
        squares = question.products(question)
        dots = [definition.products(question.of(numbers)) for numbers in (range(len(own)), others)]
        products = definition.products(definition), squares[: len(own)], squares[others], *dots
        found += torch.stack(products, dim=1).tolist()
    return found


def all_products(gradients: PerExample, points: Sequence[Datapoint]) -> NDArray[np.float64]:
    """Products of the gradients of all pairs of datapoints, shape (datapoints, datapoints)."""
    size = max(1, gradients.max_tokens // max(one.length for one in points))
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    rows: list[list[Any]] = []
    for number, part in enumerate(parts):
        own = gradients.rows([[one] for one in part])
        # Of two parts it is done once; those before are made again, so that no more than two are in memory.
        before = [own.all_products(gradients.rows([[one] for one in parts[n]])) for n in range(number)]
        rows.append([*before, own.all_products(own)])
    full = [
        [rows[n][m] if m <= n else rows[m][n].mT for m in range(len(parts))] for n in range(len(parts))
    ]  # fmt: skip
    made: NDArray[np.float64] = torch.cat([torch.cat(row, dim=1) for row in full]).cpu().numpy()
    return made


def _is_matrix_of(layer: nn.Module, read: Tensor, made: Tensor) -> bool:
    """Whether what a layer made may be a matrix times what it read, if it is of the kinds that do that."""
    if isinstance(layer, nn.Embedding):
        return made.shape == (*read.shape, layer.embedding_dim) and not read.is_floating_point()
    return not isinstance(layer, (nn.Linear, Conv1D)) or made.shape[:-1] == read.shape[:-1]


def _of_call(call: _Call, delta: Tensor) -> dict[str, Factors | Tensor]:
    """What a call of a layer adds to the gradient of its parameters, of each example."""
    layer, given, examples = call.layer, call.given, len(call.given)
    if isinstance(layer, nn.Embedding):
        if layer.padding_idx is not None:
            delta = delta.masked_fill((given.reshape(delta.shape[:-1]) == layer.padding_idx)[..., None], 0)
        rights = delta.reshape(examples, -1, delta.shape[-1])
        return {"weight": Factors(given.reshape(examples, -1), rights, layer.num_embeddings)}
    if isinstance(layer, (nn.Linear, Conv1D)):
        inputs, outputs = (one.reshape(examples, -1, one.shape[-1]) for one in (given, delta))
        left, right = (inputs, outputs) if isinstance(layer, Conv1D) else (outputs, inputs)
        found: dict[str, Factors | Tensor] = {"weight": Factors(left, right, left.shape[-1])}
        return found if layer.bias is None else found | {"bias": outputs.sum(1)}
    own = dict(layer.named_parameters(recurse=False))

    def gradient(given: Tensor, delta: Tensor) -> Any:
        pull = vjp(lambda own: functional_call(layer, own, (given,)), own)[1]
        return pull(delta)[0]

    own_gradients = vmap(gradient)(given, delta.reshape(given.shape[:2] + delta.shape[1:]))
    return {name: one.flatten(1) for name, one in own_gradients.items()}


def _together(parts: Sequence[Factors | Tensor]) -> Gradient:
    """The sum of what several calls add."""
    factors = [one for one in parts if isinstance(one, Factors)]
    if len(factors) == len(parts):
        return factors
    return torch.stack([one if isinstance(one, Tensor) else one.dense for one in parts]).sum(0)


def _tokens_that_fit(model: Any) -> int:
    device = model.device.type
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    numbers = sum(sum(parameter.shape) for parameter in model.parameters())  # in and out of its layers, for a token
    return max(1, min(MAX_TOKENS.get(device, MAX_TOKENS["cpu"]), int(free * MEMORY_SHARE / (numbers * KEPT_BYTES))))
