"""One finetuning stage: a model and datapoints in, a trained model and a report out, by transformers' Trainer."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ocl_bench.errors import RunFailed
from ocl_bench.finetune.recipe import Recipe
from ocl_bench.finetune.sampler import EpochSampler
from ocl_bench.models.batches import Collator, Datapoint, decoder_start
from ocl_bench.models.labelled_positions import LabelledPositions

# Tokens that a micro-batch may hold when --batch_size is auto; larger gains nothing in speed and costs memory.
AUTO_TOKENS = {"cpu": 4096, "cuda": 16384}


@dataclass(frozen=True)
class StageReport:
    """What a stage did, as opposed to what the recipe asked for."""

    records: int
    epochs: int
    optimizer_steps: int
    micro_batch_size: int
    effective_batch_size: int
    learning_rate_first: float
    learning_rate_peak: float
    learning_rate_last: float
    train_loss: float
    real_tokens: int
    seconds: float
    curve_seconds: float


class StageDataset(Dataset[Datapoint]):
    """The datapoints of a stage, encoded once. Counts the tokens of those that were drawn."""

    def __init__(self, datapoints: Sequence[Datapoint]) -> None:
        self.datapoints = datapoints
        self.real_tokens = 0

    def __len__(self) -> int:
        return len(self.datapoints)

    def __getitem__(self, number: int) -> Datapoint:
        self.real_tokens += self.datapoints[number].real_tokens
        return self.datapoints[number]


class StageTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose output layer sees labelled positions only, and whose loss is the mean over them."""

    # The loss is divided by the labelled positions of the whole optimizer step, so accumulation changes nothing.
    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, sampler: Sampler[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sampler = sampler
        self.labelled = LabelledPositions(self.model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.sampler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The micro-batches of one optimizer step, and how many labelled positions they hold."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        count = torch.tensor(sum(batch["targets"].numel() for batch in batches), device=device)
        return batches, count

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy over the labelled positions of the optimizer step (this micro-batch's share of it)."""
        assert num_items_in_batch is not None and not return_outputs, "only training goes through the Trainer"
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        logits = self.labelled.logits(model, inputs, positions)
        total: Tensor = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        return total / num_items_in_batch

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the Trainer's estimate walks over all parameters in every step."""
        return 0


class _Recorder(TrainerCallback):  # type: ignore[misc]
    """Records the learning rates in use and the loss, and hands control to the caller at the end of each epoch."""

    def __init__(self, on_epoch: Callable[[int, float], None]) -> None:
        self.on_epoch = on_epoch
        self.learning_rates: list[float] = []
        self.losses: list[float] = []
        self.curve_seconds = 0.0

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.learning_rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], model: Any = None, **kwargs: Any
    ) -> None:
        if "loss" not in logs:  # the summary at the end of training
            return
        start = time.perf_counter()
        if not math.isfinite(logs["loss"]):
            raise RunFailed(f"training diverged in epoch {round(state.epoch)}; lower recipe.learning_rate.")
        self.losses.append(logs["loss"])
        model.eval()
        self.on_epoch(round(state.epoch), logs["loss"])
        model.train()
        self.curve_seconds += time.perf_counter() - start


def micro_batch_size(requested: int | None, effective: int, longest: int, device: str) -> int:
    """Datapoints per forward pass: the divisor of `effective` that is asked for, or that fits AUTO_TOKENS."""
    limit = requested or max(1, AUTO_TOKENS["cuda" if device.startswith("cuda") else "cpu"] // longest)
    return max(size for size in range(1, min(limit, effective) + 1) if effective % size == 0)


def train_stage(
    model: Any,
    datapoints: Sequence[Datapoint],
    is_definition: Sequence[bool],
    *,
    recipe: Recipe,
    stage: int,
    seed: int,
    pad_id: int,
    device: str,
    batch_size: int | None,
    report_to: Sequence[str],
    run_name: str,
    log_folder: Path,
    on_epoch: Callable[[int, float], None],
) -> StageReport:
    """Finetune `model` in place for one stage.

    Args:
        model: a causal or seq2seq language model.
        datapoints: what to train on.
        is_definition: which of them are definitions (for the recipe's `definition_share`).
        recipe: how to train.
        stage: the stage's number, from 0; decides the number of epochs.
        seed: decides the order of the data and every random choice of the training.
        pad_id: id to pad with.
        device: cpu, cuda or mps.
        batch_size: datapoints per forward pass; None chooses.
        report_to: the Trainer's experiment trackers.
        run_name: the run's name in those trackers.
        log_folder: where trackers write; removed again if none does.
        on_epoch: called after each epoch with the epoch's number and its mean training loss.
    """
    start = time.perf_counter()
    epochs, effective = recipe.epochs[stage], recipe.effective_batch_size
    micro = micro_batch_size(batch_size, effective, max(one.length for one in datapoints), device)
    dataset = StageDataset(datapoints)
    recorder = _Recorder(on_epoch)
    arguments = TrainingArguments(
        output_dir=str(log_folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=effective // micro,
        num_train_epochs=epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_steps,
        optim=recipe.optim,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        bf16=recipe.precision == "bf16",
        use_cpu=device == "cpu",
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=list(report_to) or "none",
        run_name=run_name,
        remove_unused_columns=False,
        dataloader_pin_memory=device.startswith("cuda"),
    )
    trainer = StageTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        data_collator=Collator(pad_id, decoder_start(model.config)),
        callbacks=[recorder],
        sampler=EpochSampler(
            [one.length for one in datapoints],
            effective,
            is_definition,
            recipe.definitions_per_epoch(sum(is_definition), len(is_definition) - sum(is_definition)),
            seed,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train()
    finally:
        trainer.labelled.close()
        with contextlib.suppress(OSError):  # absent, or not empty
            log_folder.rmdir()
    rates = recorder.learning_rates
    return StageReport(
        records=len(datapoints),
        epochs=epochs,
        optimizer_steps=trainer.state.global_step,
        micro_batch_size=micro,
        effective_batch_size=effective,
        learning_rate_first=rates[0],
        learning_rate_peak=max(rates),
        learning_rate_last=rates[-1],
        train_loss=recorder.losses[-1],
        real_tokens=dataset.real_tokens,
        seconds=time.perf_counter() - start,
        curve_seconds=recorder.curve_seconds,
    )
