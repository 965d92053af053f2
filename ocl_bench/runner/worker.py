"""The process that trains: takes jobs, runs them, and tells of them in messages.

A job is a run folder and a seed. One process does many, of many runs, so that libraries and a pretrained model are
loaded once.
"""

import os
import sys
from pathlib import Path
from queue import Queue
from typing import Any

from ocl_bench.processes import Emit, serve
from ocl_bench.runner.messages import Generate, Job, Ready, SeedDone, Tokens, ToWorker

# All that a worker imports sooner or later, so that its template has it.
PRELOAD = ("ocl_bench.runner.worker", "ocl_bench.runner.seed")


def main() -> None:
    """Entry point of `python -m ocl_bench.runner.worker NUMBER THREADS`, and of its forks."""
    serve(_work, ToWorker)


def _work(messages: "Queue[Any]", emit: Emit) -> None:
    import torch

    from ocl_bench.models.load import BaseModel
    from ocl_bench.runner.manifest import hardware, read_manifest
    from ocl_bench.runner.seed import free_memory, run_seed

    number, threads = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    base = BaseModel()
    emit(Ready(hardware()))

    def answered(request: Generate) -> list[list[int]] | None:
        """What the run's vLLM engine says: the parent keeps it, and sends nothing else until the job is done."""
        emit(request)
        reply: Tokens = messages.get()
        return reply.tokens

    while True:
        job: Job = messages.get()
        folder = Path(job.folder)
        with log_path(folder, number).open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        free_memory()
        run_seed(folder, read_manifest(folder).config, base, job.seed, emit, answered)
        emit(SeedDone(job.seed))


def log_path(folder: Path, number: int) -> Path:
    """Where a worker writes what libraries print while it works for a run."""
    return folder / f"worker-{number}.log"


if __name__ == "__main__":
    main()
