"""The process that trains: reads seeds from standard input, runs them, and writes events as JSON lines.

A process of its own has its own thread count, its own memory and its own failures. It ends when its parent does.
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
    """Entry point of `python -m ocl_bench.runner.worker RUN_FOLDER`."""
    # Events go to the original standard output; whatever libraries print goes to the log, which is standard error.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    seeds: Queue[int | None] = Queue()
    threading.Thread(target=_read_seeds, args=(seeds,), daemon=True).start()
    try:
        _work(Path(sys.argv[1]), seeds, emit)
    except Exception as error:
        traceback.print_exc()
        known = error.exit_code if isinstance(error, OclBenchError) else None
        emit({"event": "error", "message": str(error) or type(error).__name__, "exit_code": known})
        sys.exit(1)


def _work(folder: Path, seeds: "Queue[int | None]", emit: Any) -> None:
    import torch

    from ocl_bench.runner.manifest import hardware, read_manifest
    from ocl_bench.runner.seed import free_memory, run_seed

    config = read_manifest(folder).config
    torch.set_num_threads(config.threads)
    emit({"event": "ready", "hardware": hardware()})
    while (seed := seeds.get()) is not None:
        free_memory()
        run_seed(folder, config, seed, emit)
        emit({"event": "seed_done", "seed": seed})


def _read_seeds(seeds: "Queue[int | None]") -> None:
    for line in sys.stdin:
        if line.strip() == "end":
            seeds.put(None)
            return
        seeds.put(int(line))
    os._exit(1)  # the parent is gone: nobody waits for this work


if __name__ == "__main__":
    main()
