"""A child process that does as it is told, for the tests of processes."""

import os
import subprocess
import sys
from pathlib import Path
from queue import Queue
from typing import Any

import msgspec
import psutil

from ocl_bench.errors import RunFailed
from ocl_bench.processes import Emit, serve


class Do(msgspec.Struct, tag=True, frozen=True):
    what: str
    value: str = ""


class Said(msgspec.Struct, tag=True, frozen=True):
    text: str


def main() -> None:
    serve(_work, Do)


def _work(messages: "Queue[Any]", emit: Emit) -> None:
    emit(Said(" ".join(sys.argv[1:])))
    while True:
        do: Do = messages.get()
        match do.what:
            case "say":
                emit(Said(do.value))
            case "environment":
                emit(Said(os.environ.get(do.value, "unset")))
            case "folder":
                emit(Said(str(Path.cwd())))
            case "open":
                emit(Said(str(any(file.path.endswith(do.value) for file in psutil.Process().open_files()))))
            case "path":
                emit(Said(str("" in sys.path)))
            case "print":
                print(do.value)
                print(do.value, file=sys.stderr, flush=True)
                sys.stdout.flush()
            case "descendant":
                emit(Said(str(subprocess.Popen(["sleep", "300"]).pid)))
            case "fail":
                raise RunFailed(do.value)
            case "leave":
                os._exit(int(do.value))
            case "numbers":
                emit(Said(_numbers(int(do.value))))


def _numbers(threads: int) -> str:
    """A few steps of training and large products, to the last bit."""
    import hashlib

    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.LayerNorm(300), torch.nn.Linear(300, 300))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(5):
        batch = torch.randn(257, 300)
        loss = (model(batch).softmax(-1).log() * batch).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    product = torch.randn(700, 900) @ torch.randn(900, 500)
    halves = (torch.randn(300, 400).bfloat16() @ torch.randn(400, 300).bfloat16()).float()
    digest = hashlib.sha256()
    for tensor in (*model.parameters(), product, halves):
        digest.update(tensor.detach().numpy().tobytes())
    return f"{torch.get_num_threads()} {digest.hexdigest()}"


if __name__ == "__main__":
    main()
