"""One finetuning stage: a model and datapoints in, a trained model and a report out, by transformers' Trainer.

A stage that was interrupted goes on from the end of an epoch, and ends with the same bits on a CPU. A stage that runs
out of memory begins again with smaller micro-batches.

Several processes of one group train one model, sharded over them, if each is asked for the same stage. An error in one
of them leaves the others waiting: whoever started them has to end them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from ocl_bench.errors import Diverged, RunFailed
from ocl_bench.finetune.adapter import Adapted, LowRank
from ocl_bench.finetune.checkpoints import EpochCheckpoints, Progress
from ocl_bench.finetune.epoch import Pool
from ocl_bench.finetune.recipe import StageRecipe
from ocl_bench.finetune.sampler import EpochSampler
from ocl_bench.finetune.sharding import Sharded, local
from ocl_bench.finetune.trainer import LossWatch, StageDataset, StageTrainer, load_weights
from ocl_bench.models.batches import Collator, Datapoint, decoder_start
from ocl_bench.models.group import of_first, processes, rank, total

# Tokens that a micro-batch may hold when --batch_size is auto; larger gains nothing in speed and costs memory.
AUTO_TOKENS = {"cpu": 4096, "cuda": 16384}

# (model, number of the epoch from 1, its mean training loss) → JSON-able rows to keep.
OnEpoch = Callable[[Any, int, float], list[dict[str, Any]]]
# (optimizer steps taken, steps of the stage, tokens per second) → nothing.
OnStep = Callable[[int, int, float, float], None]
TOLD_SECONDS = 1.0  # between two calls of it


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
    out_of_memory: int


@dataclass(frozen=True)
class Trained:
    """A trained stage.

    Attributes:
        model: the model, on the device that it was trained on; if several processes did, all of it in each, on the CPU.
        report: what the stage did, the time before an interruption included.
        rows: what `on_epoch` gave, of all epochs.
        resumed_epoch: the epoch after whose end training went on; 0 if it began at the start.
        adapter: what the recipe's adapter has learned, which the model has in its weights; None without one.
    """

    model: Any
    report: StageReport
    rows: list[dict[str, Any]]
    resumed_epoch: int
    adapter: LowRank | None


class _Recorder(TrainerCallback):  # type: ignore[misc]
    """Records what a stage does, hands control to the caller at the end of each epoch, and asks for checkpoints."""

    def __init__(
        self,
        before: Progress,
        dataset: StageDataset,
        watch: LossWatch,
        epochs: int,
        checkpoint_seconds: float,
        on_epoch: OnEpoch,
        on_step: OnStep,
    ) -> None:
        self._on_step = on_step
        self._before, self._dataset, self._watch, self._epochs = before, dataset, watch, epochs
        self._checkpoint_seconds, self._on_epoch = checkpoint_seconds, on_epoch
        self._start = self._last_checkpoint = time.perf_counter()
        self._last_told = -TOLD_SECONDS  # so that the first step is told at once
        self.learning_rates, self.rows = list(before.learning_rates), list(before.rows)
        self.epoch, self.loss, self.curve_seconds = before.epoch, 0.0, before.curve_seconds

    def progress(self) -> Progress:
        """How far the stage has come, the time before an interruption included."""
        return self._before.model_copy(
            update={
                "epoch": self.epoch,
                "learning_rates": (self.learning_rates[0], max(self.learning_rates)),
                "real_tokens": self._before.real_tokens + total(self._dataset.real_tokens),
                "seconds": self._before.seconds + time.perf_counter() - self._start,
                "curve_seconds": self.curve_seconds,
                "rows": tuple(self.rows),
            }
        )

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.learning_rates.append(kwargs["optimizer"].param_groups[0]["lr"])
        if args.device.type == "cpu":  # where looking costs nothing
            self._require_number(state.global_step + 1, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        if now - self._last_told >= TOLD_SECONDS:
            self._last_told = now
            trained = now - self._start - (self.curve_seconds - self._before.curve_seconds)
            rate = processes() * self._dataset.real_tokens / trained  # this process has its share of them
            self._on_step(state.global_step, state.max_steps, rate, self._watch.last())

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float], model: Any = None, **kwargs: Any
    ) -> None:
        if "loss" not in logs:  # the summary at the end of training
            return
        start = time.perf_counter()
        self._require_number(state.global_step, state)
        self.epoch, self.loss = round(state.epoch), logs["loss"]
        if total(not all(local(parameter).isfinite().all() for parameter in model.parameters())):
            raise self._diverged("a weight", state.global_step, self.epoch, self.learning_rates[-1])
        model.eval()
        with _memory_needed(f"memory ran out at the learning curve after epoch {self.epoch}; run with --no_curves."):
            try:
                self.rows += self._on_epoch(model, self.epoch, self.loss)
            except Diverged:
                raise self._diverged("an output", state.global_step, self.epoch, self.learning_rates[-1]) from None
        model.train()
        now = time.perf_counter()
        self.curve_seconds += now - start
        if self.epoch < self._epochs and of_first(lambda: now - self._last_checkpoint >= self._checkpoint_seconds):
            control.should_save = True
            self._last_checkpoint = now

    def _require_number(self, steps: int, state: Any) -> None:
        """Stop if the loss of one of the `steps` taken so far was no number."""
        if step := self._watch.first_bad_step():
            epoch = -(-step * self._epochs // state.max_steps)
            raise self._diverged("the loss", step, epoch, self.learning_rates[step - steps - 1])

    def _diverged(self, what: str, step: int, epoch: int, learning_rate: float) -> RunFailed:
        return RunFailed(
            f"training diverged: {what} was no number at step {step} (epoch {epoch}, learning rate "
            f"{learning_rate:g}); lower recipe.learning_rate."
        )


@contextlib.contextmanager
def _memory_needed(sentence: str) -> Iterator[None]:
    """Fail with `sentence` where memory runs out and a smaller micro-batch would not help."""
    try:
        yield
    except RuntimeError as error:
        if should_reduce_batch_size(error):
            raise RunFailed(sentence) from error
        raise


def micro_batch_size(requested: int | None, effective: int, longest: int, device: str) -> int:
    """Datapoints per forward pass: the divisor of `effective` that is asked for, or that fits AUTO_TOKENS."""
    limit = requested or max(1, AUTO_TOKENS["cuda" if device.startswith("cuda") else "cpu"] // longest)
    return max(size for size in range(1, min(limit, effective) + 1) if effective % size == 0)


def train_stage(
    model_of: Callable[[], Any],
    datapoints: Sequence[Datapoint],
    pools: Sequence[Pool],
    *,
    recipe: StageRecipe,
    seed: int,
    pad_id: int,
    device: str,
    bf16: bool,
    batch_size: int | None,
    report_to: Sequence[str],
    run_name: str,
    folder: Path,
    log_folder: Path,
    checkpoint_seconds: float,
    on_epoch: OnEpoch,
    on_step: OnStep = lambda step, steps, tokens_per_second, loss: None,
) -> Trained:
    """Finetune a model for one stage, from the checkpoint in `folder` if there is one, however many processes left it.

    Args:
        model_of: gives a causal or seq2seq language model with the weights that the stage starts from, to train in
            place; asked again after memory ran out, so whoever asks should hold no other reference to it.
        datapoints: what to train on.
        pools: what an epoch has of them.
        recipe: how to train.
        seed: decides the order of the data and every random choice of the training.
        pad_id: id to pad with.
        device: cpu, cuda or mps; of several processes, cpu or cuda, and the process has its own.
        bf16: whether to compute under bfloat16 autocast.
        batch_size: datapoints per forward pass; None chooses. Halved for as long as memory runs out, if one process
            trains.
        report_to: the Trainer's experiment trackers.
        run_name: the run's name in those trackers.
        folder: where checkpoints go; belongs to this training alone. The last one stays, until
            the caller has kept what was trained and removes the folder.
        log_folder: where trackers write; removed again if none does.
        checkpoint_seconds: a checkpoint is written at the end of an epoch if the last is that long ago.
        on_epoch: called after each epoch that is trained now; gives rows to keep.
        on_step: called about once a second.

    Raises:
        RunFailed: if training diverges, one datapoint does not fit into memory, or a checkpoint cannot be written. The
            last complete checkpoint stays in `folder`.
    """
    checkpoints, share = EpochCheckpoints(folder), -(-recipe.effective_batch_size // processes())
    longest = max(one.length for one in datapoints)
    micro, out_of_memory = micro_batch_size(batch_size, share, longest, device), 0
    found = of_first(checkpoints.newest)
    if found:
        micro = micro_batch_size(min(micro, found[1].micro_batch_size), share, longest, device)
        out_of_memory = found[1].out_of_memory

    def smaller() -> None:
        nonlocal micro, out_of_memory, found
        if micro == 1:
            raise RunFailed(f"out of memory on {device}, with one datapoint per forward pass; take a smaller model.")
        if processes() > 1:  # the others are in the middle of a step
            raise RunFailed(
                f"out of memory on one of {processes()} × {device}, with {micro} datapoints per forward pass; give "
                f"--batch_size {micro // 2} or less."
            )
        micro, out_of_memory = micro_batch_size(micro // 2, share, longest, device), out_of_memory + 1
        found = checkpoints.newest()

    def attempt(size: int) -> Trained:
        with _memory_needed(f"out of memory on {device}: the model does not fit; take a smaller one."):
            model = model_of()
            adapted = None if recipe.adapter is None else Adapted(model, recipe.adapter, seed)
        path, before = found or (None, Progress(micro_batch_size=size))
        if path:
            load_weights(model, path)
        sharded = Sharded(model, device) if processes() > 1 else None
        before = before.model_copy(update={"micro_batch_size": size, "out_of_memory": out_of_memory})
        arguments = _arguments(recipe, size, share // size, seed, device, bf16, report_to, run_name, log_folder)
        lengths = [one.length for one in datapoints]
        sampler = EpochSampler(lengths, recipe.effective_batch_size, pools, seed, rank(), processes())
        sampler.skip(before.epoch)
        dataset, watch = StageDataset(datapoints, seed, before.epoch * len(sampler)), LossWatch(arguments.device)
        recorder = _Recorder(before, dataset, watch, recipe.epochs, checkpoint_seconds, on_epoch, on_step)
        trainer = StageTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            data_collator=Collator(pad_id, decoder_start(model.config)),
            callbacks=[recorder],
            sampler=sampler,
            watch=watch,
            checkpoints=checkpoints,
            progress=recorder.progress,
            sharded=sharded,
        )
        if rank() > 0:
            set_seed(seed + rank())  # processes drop other things out
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train(resume_from_checkpoint=str(path) if path else None)
        finally:
            trainer.labelled.close()
            with contextlib.suppress(OSError):  # absent, or not empty
                log_folder.rmdir()
        done = recorder.progress()
        report = StageReport(
            records=len(datapoints),
            epochs=recipe.epochs,
            optimizer_steps=trainer.state.global_step,
            micro_batch_size=size,
            effective_batch_size=recipe.effective_batch_size,
            learning_rate_first=done.learning_rates[0],
            learning_rate_peak=done.learning_rates[1],
            learning_rate_last=recorder.learning_rates[-1],
            train_loss=recorder.loss,
            real_tokens=done.real_tokens,
            seconds=done.seconds,
            curve_seconds=done.curve_seconds,
            out_of_memory=out_of_memory,
        )
        low_rank = None if adapted is None else adapted.merge()
        return Trained(sharded.whole() if sharded else model, report, recorder.rows, before.epoch, low_rank)

    # accelerate's find_executable_batch_size would collect garbage before the first attempt too, for a quarter second.
    while True:
        try:
            return attempt(micro)
        except RuntimeError as error:
            if not should_reduce_batch_size(error):
                raise
        clear_device_cache(garbage_collection=True)  # the attempt has left a model
        smaller()


def _arguments(
    recipe: StageRecipe,
    micro: int,
    accumulation: int,
    seed: int,
    device: str,
    bf16: bool,
    report_to: Sequence[str],
    run_name: str,
    log_folder: Path,
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(log_folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_steps,
        optim=recipe.optim,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        bf16=bf16,
        use_cpu=device == "cpu",
        seed=seed,
        data_seed=seed,
        save_strategy="no",  # checkpoints are asked for at the end of epochs, by the clock
        eval_strategy="no",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=list(report_to) or "none",
        run_name=run_name,
        remove_unused_columns=False,
        dataloader_pin_memory=device.startswith("cuda"),
    )
