"""The process that trains: reads jobs from standard input, runs them, and writes events as JSON lines.

A job is a run folder and a seed. One process does many, of many runs, so that libraries and a pretrained model are
loaded once. It has its own thread count, its own memory and its own failures, and ends when its parent does.
"""

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from queue import Queue
from typing import Any

from ocl_bench.errors import OclBenchError


def main() -> None:
    """Entry point of `python -m ocl_bench.runner.worker NUMBER THREADS`."""
    # Events go to the original standard output; whatever libraries print goes to the log, which is standard error.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    jobs: Queue[tuple[Path, int]] = Queue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    try:
        _work(int(sys.argv[1]), int(sys.argv[2]), jobs, emit)
    except Exception as error:
        traceback.print_exc()
        known = error.exit_code if isinstance(error, OclBenchError) else None
        emit({"event": "error", "message": str(error) or type(error).__name__, "exit_code": known})
        sys.exit(1)


def _work(number: int, threads: int, jobs: "Queue[tuple[Path, int]]", emit: Any) -> None:
    import torch

    from ocl_bench.models.load import BaseModel
    from ocl_bench.runner.manifest import hardware, read_manifest
    from ocl_bench.runner.seed import free_memory, run_seed

    torch.set_num_threads(threads)
    base = BaseModel()
    emit({"event": "ready", "hardware": hardware()})
    while True:
        folder, seed = jobs.get()
        with log_path(folder, number).open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        free_memory()
        run_seed(folder, read_manifest(folder).config, base, seed, emit)
        emit({"event": "seed_done", "seed": seed})


def log_path(folder: Path, number: int) -> Path:
    """Where a worker writes what libraries print while it works for a run."""
    return folder / f"worker-{number}.log"


def _read_jobs(jobs: "Queue[tuple[Path, int]]") -> None:
    for line in sys.stdin:
        job = json.loads(line)
        jobs.put((Path(job["folder"]), job["seed"]))
    os._exit(1)  # the parent is gone: nobody waits for this work


if __name__ == "__main__":
    main()
