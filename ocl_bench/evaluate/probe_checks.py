"""What can be wrong with the probes of a run, found before anything is trained."""

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.activations import hidden_states
from ocl_bench.evaluate.probes import Shown, Text, kind_of, marked, positions_of, shown_texts
from ocl_bench.models.encoding import Encoder
from ocl_bench.tasks.mechanisms import Pair, Probes
from ocl_bench.tasks.pictures import Picture
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task

# Bytes of a number while probes are fitted to it: as float32 and float64, scaled, and cut into folds.
FITTING_BYTES = 32
OFF = "set evaluate.probes=null"


def check_probes(probes: Probes, task: Task, name: str, encoder: Encoder, records: Sequence[Record]) -> int:
    """Refuse probes that a dataset or its tokens leave nothing to read.

    Args:
        probes: which probes.
        task: the task.
        name: of the model.
        encoder: the model's.
        records: a cell's dataset.

    Returns:
        How many activations of a layer the probes need.

    Raises:
        OclBenchError: if a subset lacks a position or entities, or the tokenizer does not show where a position is.
    """
    if task.design.in_context:
        raise OclBenchError(
            "evaluate.probes: with design.in_context every question shows its definition, so that what is read says "
            "nothing of what was learned; remove one of them."
        )
    shown, looks = shown_texts(probes.contrasts, records), 0
    for pair, texts in shown.items():
        _check_positions(probes, task, pair, texts)
        used = [kind_of(position) for position in positions_of(task, pair, texts, probes.positions)]
        looks += sum(len(texts[kind]) for kind in used)
        for kind in dict.fromkeys(used):
            _check_entities(probes, pair, kind, texts[kind])
            _check_tokens(probes, task, pair, texts, kind, name, encoder)
    return looks


def _check_positions(probes: Probes, task: Task, pair: Pair, texts: Mapping[Text, Sequence[Shown]]) -> None:
    there = positions_of(task, pair, texts)
    both = " and ".join(f"'{subset}'" for subset in pair)
    if not there:
        raise OclBenchError(
            f"evaluate.probes.contrasts: {both} have neither definitions nor questions in common; name others."
        )
    for position in probes.positions or ():
        if position not in there:
            raise OclBenchError(
                f"evaluate.probes.positions: {both} do not both have '{position}'; leave it out, they have "
                f"{', '.join(there)}."
            )


def _check_entities(probes: Probes, pair: Pair, kind: Text, shown: Sequence[Shown]) -> None:
    for subset in pair:
        entities = {one.about for one in shown if one.first == (subset == pair[0])}
        if len(entities) < probes.folds:
            raise OclBenchError(
                f"evaluate.probes.folds: {probes.folds} folds need as many entities of each subset, and the "
                f"{'definitions' if kind == 'definition' else 'questions'} of '{subset}' are about {len(entities)}; "
                "take fewer folds, or raise source_args.num_entities."
            )


def _check_tokens(
    probes: Probes,
    task: Task,
    pair: Pair,
    texts: Mapping[Text, Sequence[Shown]],
    kind: Text,
    name: str,
    encoder: Encoder,
) -> None:
    records = [one.record for one in texts[kind]]
    marks = [marked(task, record) for record in records]
    encoded = encoder([(record.given, record.completion) for record in records], marks)
    wanted = positions_of(task, pair, texts, probes.positions)
    for record, named, one in zip(records, marks, encoded, strict=True):
        lost = [position for position in wanted if position in named and position not in one.spans]
        if lost:
            raise OclBenchError(
                f"--model {name}: its tokenizer does not show where '{named[lost[0]]}' is in '{record.prompt}"
                f"{record.completion.rstrip()}', which '{lost[0]}' of evaluate.probes.positions needs; leave that out, "
                "or give another with --model_args tokenizer=…"
            )


def check_layers(probes: Probes, name: str, model: Any, picture: Picture | None, looks: int, room: bool) -> None:
    """Refuse probes of layers that a model does not have, or that there is no room for.

    Args:
        probes: which probes.
        name: of the model.
        model: on the meta device; it is not there any more afterwards.
        picture: one that it looks at; None for text.
        looks: activations of each layer.
        room: whether they have to find room on this machine.

    Raises:
        OclBenchError: for either.
    """
    widths = layer_widths(model, picture)
    if not widths:
        raise OclBenchError(
            f"--model {name}: it does not give the activations of its layers (hidden states), so that no probe can "
            f"read them; take another model, or {OFF}."
        )
    for layer in probes.layers or ():
        if layer >= len(widths):
            raise OclBenchError(
                f"evaluate.probes.layers: {name} has layers 0 to {len(widths) - 1}, and no {layer}; leave it out."
            )
    own = [width for layer, width in enumerate(widths) if probes.layers is None or layer in probes.layers]
    if room:
        folder = tempfile.gettempdir()
        _require("memory", FITTING_BYTES * looks * max(own), psutil.virtual_memory().available)
        _require(f"disk of {folder}", 4 * looks * sum(own), shutil.disk_usage(folder).free)


def _require(what: str, needed: int, free: int) -> None:
    if needed > free:
        raise OclBenchError(
            f"evaluate.probes: its activations may need {needed / 1e9:.3g} GB, and the {what} has {free / 1e9:.3g} GB "
            f"left; name fewer evaluate.probes.layers or positions, or {OFF}."
        )


def layer_widths(model: Any, picture: Picture | None) -> list[int]:
    """Width of each layer, 0 first, of a model on the meta device; empty if it gives no activations.

    It is tried with tensors that have no numbers. Of a model that needs numbers the configuration is believed.
    """
    seq2seq = model.config.is_encoder_decoder
    logger = logging.getLogger("torch._subclasses.fake_tensor")  # tells of what is caught below
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            model.eval().to_empty(device="cpu")
            if picture is not None:
                inputs = {"pixel_values": torch.zeros(1, 1, *picture.size)}
            else:
                names = ("input_ids", "decoder_input_ids") if seq2seq else ("input_ids",)
                inputs = {name: torch.zeros(1, 2, dtype=torch.int64) for name in names}
            states = max(hidden_states(model, inputs), key=len)
            return [state.shape[1 if state.dim() == 4 else -1] for state in states]
    except Exception:  # whatever a model raises that looks at numbers, as mixtures of experts do
        config = model.config.get_text_config()
        layers, width = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
        return [width] * (layers + 1) if layers and isinstance(width, int) else []
    finally:
        logger.setLevel(level)
