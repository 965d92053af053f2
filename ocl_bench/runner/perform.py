"""Perform a stage job: train the stage if it is not there, ask what was not asked, leave files that are whole.

The process keeps the model that it trained last in memory, for the stage that goes on from it. That is a cache:
whatever is not in it is loaded from files, with the same result.

Where several processes train one model, each performs the job. The first alone locks, looks, decides and writes; the
others have its word for what is there. Each has the whole model in the memory of its own device, but in training.
"""

import gc
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch

from ocl_bench.evaluate.engines import EngineRecord
from ocl_bench.evaluate.evaluator import Generated, Loaded
from ocl_bench.files import folder_atomic, sha256
from ocl_bench.finetune.epoch import epoch_pools, trained_on
from ocl_bench.finetune.sharding import layers_of
from ocl_bench.finetune.stage import Trained, train_stage
from ocl_bench.models.batches import datapoints
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.group import of_first, processes, rank, total
from ocl_bench.models.load import BaseModel, checkpoint_spec, load_model, load_tokenizer, weights_sha256
from ocl_bench.runner.jobs import Asked, StageJob
from ocl_bench.runner.manifest import (
    EvaluationRecord,
    Provenance,
    StageRecord,
    checkout_state,
    hardware,
    torch_record,
    versions,
)
from ocl_bench.runner.store import ADAPTER, STAGE_FILE, Store, list_files, rows_text
from ocl_bench.tasks.records import texts


class ParentLost(Exception):
    """Weights that a job needs are not there, or not what was written; the text says which."""


class Told(Protocol):
    """Whom a job tells of itself."""

    def waiting(self, reason: str) -> None:
        """Another process is at this stage."""

    def step(self, step: int, steps: int, tokens_per_second: float, memory: int, loss: float) -> None:
        """Training is at a step."""

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        """An epoch is over."""

    def answered(self, count: int, of: int) -> None:
        """So many further questions are answered."""

    def note(self, text: str) -> None:
        """Something that a user has to know."""

    def generate(
        self, checkpoint: Path, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int], stop_ids: Sequence[int]
    ) -> Generated | None:
        """Have the run's vLLM engine generate; None if it has none."""


@dataclass
class Memory:
    """What a process keeps from job to job.

    Attributes:
        base: pretrained weights, loaded once.
        weights, model, tokenizer: the model trained last, and the sha256 of its weights.
    """

    base: BaseModel = field(default_factory=BaseModel)
    weights: str = ""
    model: Any = None
    tokenizer: Any = None

    def take(self, weights: str) -> tuple[Any, Any] | None:
        """The model with these weights, which the caller may change; None if it is not here."""
        if weights != self.weights or self.model is None:
            return None
        taken = self.model, self.tokenizer
        self.forget()
        return taken

    def keep(self, weights: str, model: Any, tokenizer: Any) -> None:
        """Keep a model until it is taken or another is kept."""
        self.weights, self.model, self.tokenizer = weights, model, tokenizer

    def forget(self) -> None:
        """Give back what the last model and optimizer held: the Trainer leaves reference cycles."""
        self.weights, self.model, self.tokenizer = "", None, None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def perform(
    job: StageJob, store: Store, memory: Memory, told: Told, logs: Path, run_name: str, weights: bool
) -> tuple[StageRecord, bool]:
    """Do what of a job is not done.

    Args:
        job: the job.
        store: where stages lie.
        memory: what this process keeps.
        told: whom to tell.
        logs: folder for the Trainer's trackers; removed if nothing is written there.
        run_name: what trackers call it.
        weights: whether the stage's weights are needed by a later stage, too.

    Returns:
        What the stage did, and whether its training was there already.

    Raises:
        ParentLost: if the stage before has to be trained again.
    """
    lock = store.lock(job.key, lambda: told.waiting("another process trains it")) if rank() == 0 else nullcontext()
    with lock:
        record, damage = of_first(lambda: job.trained(store))
        if damage is not None:
            told.note(f"{damage}: {job.name} is trained again")
        if record is not None and weights and not _has_weights(store, record):
            told.note(f"the weights of {job.name} were removed, and a later stage needs them: it is trained again")
            record = None
        reused = record is not None
        training = _Training(job, store, memory, told, logs, run_name)
        if record is None:
            record = training.run()
        try:
            _ask(job, store, memory, told, record)
        except ParentLost as lost:  # its own weights
            told.note(f"{lost}: {job.name} is trained again")
            record, reused = training.run(), False
            _ask(job, store, memory, told, record)
        total(0)  # all have come so far: no other is in the middle of it when the first tells
    return record, reused


def _has_weights(store: Store, record: StageRecord) -> bool:
    return of_first(lambda: store.has_weights(record))


def _is_asked(store: Store, asked: Asked) -> bool:
    return of_first(lambda: store.evaluation(asked.key) is not None)


def _ask(job: StageJob, store: Store, memory: Memory, told: Told, record: StageRecord) -> None:
    """Ask what is not asked yet. Raises ParentLost if that needs weights that are not there as they were written."""
    for asked in job.asked(record):
        if not _is_asked(store, asked):
            if spoiled := store.spoiled_evaluation(asked.key):
                told.note(f"{spoiled}: {job.name} is asked again")
            _evaluate_again(job, store, memory, told, record, asked)


class _Training:
    """Trains one stage."""

    def __init__(self, job: StageJob, store: Store, memory: Memory, told: Told, logs: Path, run_name: str) -> None:
        self.job, self.store, self.memory, self.told = job, store, memory, told
        self.logs, self.run_name = logs, run_name
        self.tokenizer: Any = None
        self.before: str | None = None

    def run(self) -> StageRecord:
        """Train, and leave a complete stage folder."""
        job, config = self.job, self.job.config
        model = self._fresh()
        encoder = Encoder(self.tokenizer, model.config.is_encoder_decoder)
        records = trained_on(job.stage, job.records)
        encoded = encoder([(record.given, record.completion) for record in records])
        self.before = weights_sha256(model)
        self._ask_before(model, encoder)
        if processes() > 1 and not layers_of(model):
            told = "it names no layers that can be sharded one by one: in each step every device holds all its weights"
            self.told.note(f"{job.config.model.name}: {told}")
        models = [model]
        del model

        def on_epoch(model: Any, epoch: int, loss: float) -> list[dict[str, Any]]:
            return self._epoch(model, encoder, epoch, loss)

        trained = train_stage(
            lambda: models.pop() if models else self._fresh(),
            datapoints(encoded, encoder.seq2seq, job.identity.recipe.loss),
            epoch_pools(job.stage, job.identity.recipe, job.records),
            recipe=job.identity.recipe,
            seed=job.identity.seed,
            pad_id=encoder.pad_id,
            device=config.compute.device,
            bf16=config.compute.training.autocast,
            batch_size=config.batch_size,
            report_to=config.report_to,
            run_name=self.run_name,
            log_folder=self.logs,
            folder=self.store.work_path(job.key),
            checkpoint_seconds=config.checkpoint_seconds,
            on_epoch=on_epoch,
            on_step=lambda step, steps, rate, loss: self.told.step(
                step, steps, rate, memory_now(config.compute.device), loss
            ),
        )
        record = of_first(lambda: self._write(trained))
        self.memory.keep(record.weights_after, trained.model, self.tokenizer)
        return record

    def _fresh(self) -> Any:
        """The model as the stage before left it, or as it was before the first, on its device.

        One that is to be sharded is on the CPU.
        """
        job, parent = self.job, self.job.parent
        kept = None if parent is None else self.memory.take(parent.weights_after)
        if kept is not None:
            model, self.tokenizer = kept
        else:
            self.memory.forget()
            if parent is None:
                self.tokenizer = load_tokenizer(job.config.model, texts(job.records))
                model = self.memory.base.copy(job.config.model, self.tokenizer, job.cell.init_seed(job.task))
            else:
                model, self.tokenizer = load_checkpoint(job, self.store, parent)
        return model.to(self._place)

    @property
    def _place(self) -> str:
        """Where a model is that is whole."""
        return "cpu" if processes() > 1 else torch_device(self.job.config.compute.device)

    def _ask_before(self, model: Any, encoder: Encoder) -> None:
        assert self.before is not None
        for asked in self.job.asked_before(self.before):
            if not _is_asked(self.store, asked):
                loaded = self._loaded(model.to(torch_device(self.job.config.compute.device)), encoder)
                write_evaluation(self.job, self.store, loaded, asked)
        model.to(self._place)

    def _loaded(self, model: Any, encoder: Encoder) -> Loaded:
        model.eval()
        return Loaded(
            model, self.tokenizer, encoder, self.job.config.compute.evaluation.autocast, on_answered=self.told.answered
        )

    def _epoch(self, model: Any, encoder: Encoder, epoch: int, loss: float) -> list[dict[str, Any]]:
        """Tell of an epoch, and ask what is asked in it; rows, each with the name of its evaluator."""
        epochs = self.job.identity.recipe.epochs
        self.told.epoch(epoch, epochs, loss)
        moment = self.job.moment("epoch", epoch=epoch, epochs=epochs, loss=loss)
        loaded = self._loaded(model, encoder)
        return [
            {"evaluator": one.name, "row": row.model_dump(mode="json")}
            for one in self.job.evaluators
            if one.asks(moment)
            for row in one.run(loaded, moment).rows
        ]

    def _write(self, trained: Trained) -> StageRecord:
        job, path = self.job, self.store.stage_path(self.job.key)
        assert self.before is not None
        shutil.rmtree(path, ignore_errors=True)  # what is there lacks something, or is damaged
        with folder_atomic(path) as folder:
            trained.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            if trained.adapter is not None:
                trained.adapter.save(folder / ADAPTER)
            for one in job.evaluators:
                if one.name in job.epoch_rows:
                    rows = [one.row.parse(row["row"], one.name) for row in trained.rows if row["evaluator"] == one.name]
                    (folder / job.epoch_file(one)).write_text(rows_text(rows), encoding="utf-8")
            record = StageRecord(
                key=job.key,
                identity=job.identity,
                **asdict(trained.report),
                resumed=trained.resumed_epoch,
                peak_memory_bytes=peak_memory(job.config.compute.device),
                weights_before=self.before,
                weights_after=weights_sha256(trained.model),
                files=list_files(folder),
                rows=job.epoch_rows,
                provenance=provenance(job),
            )
            (folder / STAGE_FILE).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(self.store.work_path(job.key), ignore_errors=True)
        return record


def _evaluate_again(job: StageJob, store: Store, memory: Memory, told: Told, record: StageRecord, asked: Asked) -> None:
    """Ask something of a model that is trained already."""
    if asked.moment.when == "before":
        tokenizer = load_tokenizer(job.config.model, texts(job.records))
        model = memory.base.copy(job.config.model, tokenizer, job.cell.init_seed(job.task))
    elif (kept := memory.take(record.weights_after)) is not None:
        model, tokenizer = kept
    else:
        memory.forget()
        model, tokenizer = load_checkpoint(job, store, record)
    compute = job.config.compute
    model.to(torch_device(compute.device)).eval()
    loaded = Loaded(
        model,
        tokenizer,
        Encoder(tokenizer, model.config.is_encoder_decoder),
        compute.evaluation.autocast,
        checkpoint=store.stage_path(record.key) if asked.moment.when == "after" else None,
        generator=_Served(told) if compute.engine == "vllm" and asked.moment.when == "after" else None,
        on_answered=told.answered,
    )
    if rank() == 0 or loaded.generator is None:  # vLLM generates for the first process
        write_evaluation(job, store, loaded, asked)
    if asked.moment.when == "after":
        memory.keep(record.weights_after, model, tokenizer)


@dataclass(frozen=True)
class _Served:
    """The run's vLLM engine, as evaluators see it."""

    told: Told

    def generate(
        self, checkpoint: Path, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int], stop_ids: Sequence[int]
    ) -> Generated | None:
        gc.collect()  # on a GPU, vLLM takes what training has left
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self.told.generate(checkpoint, prompts, max_new_tokens, stop_ids)


def write_evaluation(job: StageJob, store: Store, loaded: Loaded, asked: Asked) -> None:
    """Run an evaluator and leave what it found. Of several processes each runs it, and the first writes."""
    start = time.perf_counter()
    found = asked.evaluator.run(loaded, asked.moment)
    if rank() > 0:
        return
    engine: EngineRecord = found.engine or torch_record(job.config.compute)
    record = EvaluationRecord(
        key=asked.key,
        identity=asked.identity,
        rows=len(found.rows),
        rows_sha256=sha256(rows_text(found.rows)),
        facts=dict(found.facts),
        engine=engine,
        seconds=time.perf_counter() - start,
        provenance=provenance(job),
    )
    store.write_evaluation(record, found.rows)


def load_checkpoint(job: StageJob, store: Store, record: StageRecord) -> tuple[Any, Any]:
    """Model and tokenizer that a finished stage left. Raises ParentLost if they are not there as they were written."""
    lost = of_first(lambda: _loss(store, record))
    if lost is not None:
        raise ParentLost(lost)
    spec = checkpoint_spec(store.stage_path(record.key), job.config.model)
    # The checkpoint's own tokenizer, so that its token ids hold whatever this cell's words are.
    tokenizer = load_tokenizer(spec, ())
    return load_model(spec, tokenizer, job.cell.seed), tokenizer


def _loss(store: Store, record: StageRecord) -> str | None:
    """Why a stage's weights cannot be loaded, and None if they can; a damaged stage is removed."""
    if not store.has_weights(record):
        return f"the weights in {store.stage_path(record.key)} were removed"
    damage = store.damage(record, weights=True)
    if damage is not None:
        store.remove_stage(record.key)
    return damage


def provenance(job: StageJob) -> Provenance:
    """Where and with what this process makes something, now."""
    commit, dirty = checkout_state()
    compute = job.config.compute
    return Provenance(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit,
        dirty=dirty,
        versions=versions(),
        hardware=hardware(),
        device=compute.device,
        threads=compute.threads,
    )


def torch_device(device: str) -> str:
    """The device as a process sees it that sees one accelerator only."""
    return "cuda" if device.startswith("cuda") else device


def memory_now(device: str) -> int:
    """Memory in bytes that is in use: of the accelerator if training runs there, else of this process."""
    if device.startswith("cuda"):
        return int(torch.cuda.memory_reserved())
    return int(psutil.Process().memory_info().rss)


def peak_memory(device: str) -> int:
    """Peak memory in bytes: of the accelerator if training runs there, else of this process."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
