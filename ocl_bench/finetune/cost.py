"""What a training step takes, found out without weights: it is done with tensors that have shapes and no memory."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainingArguments

from ocl_bench.finetune.epoch import Pool
from ocl_bench.finetune.recipe import StageRecipe
from ocl_bench.finetune.sampler import EpochSampler
from ocl_bench.finetune.trainer import StageTrainer
from ocl_bench.models.batches import Datapoint
from ocl_bench.models.labelled_positions import LabelledPositions


@dataclass(frozen=True)
class StepCost:
    """What training takes, forward, backward and update.

    Attributes:
        weights, gradients, optimizer: bytes of the weights, of the gradients of what is trained, and of the optimizer's
            state.
        peak: most bytes at any one time, of all tensors.
        flops: of the forward and backward pass of the micro-batch, matrix products and convolutions.
        operations: how many calls of the library that pass makes, each of which takes its time on any device.
    """

    weights: int
    gradients: int
    optimizer: int
    peak: int
    flops: int
    operations: int


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are alive while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.operations = 0
        self._seen: dict[int, weakref.ref[UntypedStorage]] = {}

    def add(self, tensor: Tensor) -> None:
        """Count a tensor, for as long as anything holds its storage."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._seen:
            return

        def gone(_: Any) -> None:
            del self._seen[key]
            self.now -= size

        self._seen[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        self.operations += 1
        for one in tree_leaves(found):
            if isinstance(one, Tensor):
                self.add(one)
        return found


def step_cost(model: Any, batch: Mapping[str, Tensor], recipe: StageRecipe, bf16: bool, accumulates: bool) -> StepCost:
    """The cost of a training step on a micro-batch.

    Args:
        model: on the meta device, in training or not.
        batch: what the `Collator` gives.
        recipe: says which optimizer.
        bf16: whether it computes under bfloat16 autocast.
        accumulates: whether a step has several micro-batches, so that gradients wait for the next.

    Raises:
        Exception: whatever a model raises that looks at numbers, as some mixtures of experts do.
    """
    live = _Live()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        model.tie_weights()
        optimizer = _optimizer(recipe, model)
        labelled = LabelledPositions(model)
        inputs = {name: torch.empty_like(value) for name, value in batch.items()}
        for tensor in (*model.parameters(), *model.buffers()):
            live.add(tensor)
        weights = live.now
        trained = [one for one in model.parameters() if one.requires_grad]
        gradients = sum(one.numel() * one.element_size() for one in trained)
        with live:
            with FlopCounterMode(display=False) as counter:
                _pass(model, labelled, inputs, bf16)
            operations = live.operations
            if accumulates:
                _pass(model, labelled, inputs, bf16)
            before = live.peak
            if recipe.max_grad_norm:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        state = live.now - weights
    # The first step's gradients found no optimizer state beside them; all others do.
    peak = max(live.peak, before + state)
    return StepCost(weights, gradients, state, peak, counter.get_total_flops(), operations)


def _optimizer(recipe: StageRecipe, model: Any) -> torch.optim.Optimizer:
    arguments = TrainingArguments(
        output_dir="unused", use_cpu=True, optim=recipe.optim, learning_rate=recipe.learning_rate, report_to="none"
    )
    kind, options = StageTrainer.get_optimizer_cls_and_kwargs(arguments, model)
    made: torch.optim.Optimizer = kind([one for one in model.parameters() if one.requires_grad], **options)
    return made


def _pass(model: Any, labelled: LabelledPositions, inputs: Mapping[str, Tensor], bf16: bool) -> None:
    """Forward and backward of one micro-batch."""
    own = {name: value for name, value in inputs.items() if name not in ("positions", "targets")}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = labelled.logits(model, own, inputs["positions"])
        loss = torch.nn.functional.cross_entropy(logits.float(), inputs["targets"], reduction="sum")
    del logits  # as in training, where the loss alone is handed on
    loss.backward()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class EpochShape:
    """What an epoch is made of.

    Attributes:
        steps: optimizer steps.
        tokens: of its datapoints, without padding.
        padded: tokens that the model processes, padding included.
        largest: the datapoints of the micro-batch with most of these.
    """

    steps: int
    tokens: int
    padded: int
    largest: tuple[Datapoint, ...]


def epoch_shape(
    datapoints: Sequence[Datapoint], pools: Sequence[Pool], batch: int, micro: int, seed: int
) -> EpochShape:
    """The first epoch of a stage, drawn as it will be."""
    lengths = [one.length for one in datapoints]
    order = list(EpochSampler(lengths, batch, pools, seed))
    most, largest, padded = 0, order[:1], 0
    for start in range(0, len(order), batch):
        for begin in range(start, min(start + batch, len(order)), micro):
            own = order[begin : min(begin + micro, start + batch)]
            size = len(own) * max(lengths[number] for number in own)
            padded += size
            if size > most:
                most, largest = size, own
    return EpochShape(
        steps=-(-len(order) // batch),
        tokens=sum(datapoints[number].real_tokens for number in order),
        padded=padded,
        largest=tuple(datapoints[number] for number in largest),
    )
