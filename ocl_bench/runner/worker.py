"""The process that trains: takes stage jobs, performs them, and tells of them.

One process does many jobs, of many runs, so that libraries and a pretrained model are loaded once. A job that fails
leaves the process able to do the next. Where several processes train one model, each gets every job, and the first
alone tells of it; a failure leaves the others waiting for the one that failed, and so is told by any.
"""

import os
import sys
import time
import traceback
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate.engines import EngineRecord
from ocl_bench.evaluate.evaluator import Generated
from ocl_bench.processes import Emit, serve
from ocl_bench.runner.messages import (
    Answered,
    EpochDone,
    Generate,
    Job,
    JobFailed,
    JobLost,
    Note,
    Ready,
    StageDone,
    Stepped,
    Tokens,
    ToWorker,
    Waiting,
)

if TYPE_CHECKING:
    from ocl_bench.runner.perform import Memory


def main() -> None:
    """Entry point of `python -m ocl_bench.runner.worker THREADS [KIND]`, with the kind of device of one of a group."""
    serve(_work, ToWorker)


def _work(inbox: "Queue[Any]", emit: Emit) -> None:
    import torch
    from transformers.utils import logging

    from ocl_bench.models.group import join_group, rank
    from ocl_bench.runner.manifest import hardware
    from ocl_bench.runner.perform import Memory

    torch.set_num_threads(int(sys.argv[1]))
    for kind in sys.argv[2:]:
        join_group(kind)
    if rank() > 0:
        emit = _failures(emit)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    memory = Memory()
    emit(Ready(hardware()))
    while True:
        message = inbox.get()
        assert isinstance(message, Job), "an engine's answer comes while it is waited for"
        _log_to(Path(message.log))
        _perform(message, memory, inbox, emit)


def _perform(message: Job, memory: "Memory", inbox: "Queue[Any]", emit: Emit) -> None:
    from ocl_bench.runner.folder import read_job
    from ocl_bench.runner.identity import BaseIdentity
    from ocl_bench.runner.perform import ParentLost, perform
    from ocl_bench.runner.store import Store

    start, where = time.perf_counter(), message.where
    try:
        folder, store = Path(message.folder), Store(Path(message.store))
        seeds, base = (where.seed, where.stage2_seed), BaseIdentity.model_validate_json(message.base)
        job = read_job(folder, store, seeds, where.stage, base, message.parent)
        logs = folder / job.cell.name / f"{job.stage.name}-logs"
        run_name = f"{job.task.task}-{job.config.model.slug}-{job.cell.name}-{job.stage.name}"
        record, reused = perform(job, store, memory, _Told(message, inbox, emit), logs, run_name, message.weights)
    except ParentLost as lost:
        emit(JobLost(where, str(lost)))
    except Exception as error:
        if "CUDA error" in str(error):  # after which this process can do nothing on its device any more
            raise
        traceback.print_exc()
        memory.forget()
        code = error.exit_code if isinstance(error, OclBenchError) else None
        emit(JobFailed(where, _reason(error), code))
    else:
        emit(StageDone(where, record.key, time.perf_counter() - start, reused))


def _failures(emit: Emit) -> Emit:
    """Of all messages, those alone that say that a job has failed."""
    return lambda message: emit(message) if isinstance(message, JobFailed) else None


def _reason(error: Exception) -> str:
    """What a user is told of an exception."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        return f"a file cannot be written or read ({text})"
    if "out of memory" in text.lower():
        return f"memory ran out: {text}"
    return text


class _Told:
    """Tells the run, in messages."""

    def __init__(self, job: Job, inbox: "Queue[Any]", emit: Emit) -> None:
        self.where, self.inbox, self.emit, self.device = job.where, inbox, emit, job.device

    def waiting(self, reason: str) -> None:
        self.emit(Waiting(self.where, reason))

    def step(self, step: int, steps: int, tokens_per_second: float, memory: int, loss: float) -> None:
        self.emit(Stepped(self.where, step, steps, tokens_per_second, memory, self.device, loss))

    def epoch(self, epoch: int, epochs: int, loss: float) -> None:
        self.emit(EpochDone(self.where, epoch, epochs, loss))

    def answered(self, count: int, of: int) -> None:
        self.emit(Answered(self.where, count, of))

    def note(self, text: str) -> None:
        self.emit(Note(text))

    def generate(
        self, checkpoint: Path, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int], stop_ids: Sequence[int]
    ) -> Generated | None:
        asked = [list(prompt) for prompt in prompts]
        self.emit(Generate(self.where, str(checkpoint.absolute()), asked, list(max_new_tokens), list(stop_ids)))
        # The parent sends nothing else until the job is done.
        answer = self.inbox.get()
        assert isinstance(answer, Tokens)
        if answer.tokens is None:
            return None
        return Generated(answer.tokens, EngineRecord(name="vllm", version=answer.version, dtype=answer.dtype))


@lru_cache(maxsize=1)
def _log_to(log: Path) -> None:
    """Have whatever libraries print from now on in a file; it stays open until the next one."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


if __name__ == "__main__":
    main()
