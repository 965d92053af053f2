"""Injects a fault into a process of a run, from outside the product: Python imports this before anything else.

What to do is told in the environment, so that every process of a run has it:

    TORTURE_LOG     file to which epochs, and the calls below where TORTURE_COUNT is set, are written, a JSON line each
    TORTURE_KILL    {"role", "call", "number", "when", "whom", "times", "marker"}: SIGKILL at a call of one process
    TORTURE_MEMORY  bytes of address space that a worker may take once its libraries are imported
"""

import json
import os
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

LOG = os.environ.get("TORTURE_LOG")
KILL: dict[str, Any] = json.loads(os.environ.get("TORTURE_KILL", "{}"))
CALLS = {
    "replace": (os, "replace"), "fsync": (os, "fsync"), "link": (os, "link"), "rmtree": (shutil, "rmtree"),
    "unlink": (os, "unlink"), "mkdir": (os, "mkdir"),
}  # fmt: skip
os_write, os_open = os.write, os.open
counts: Counter[tuple[int, str]] = Counter()


def role() -> str:
    """What this process is to the run."""
    if sys.argv[0].endswith("worker.py"):
        return "worker"
    if "ocl_bench.template" in sys.orig_argv:
        return "template"
    return "run" if any("ocl_bench" in argument for argument in sys.orig_argv) else "other"


def log(**what: Any) -> None:
    """Add a line that survives the process."""
    if LOG:
        handle = os_open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os_write(handle, json.dumps({"pid": os.getpid(), **what}).encode() + b"\n")
        os.close(handle)


def strike(when: str, call: str, number: int) -> None:
    """Kill, if this is the moment, and it has not struck often enough."""
    if (KILL["when"], KILL["call"], KILL["number"], KILL["role"]) != (when, call, number, role()):
        return
    for time in range(KILL["times"]):
        try:
            os.close(os_open(f"{KILL['marker']}-{time}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        if KILL["whom"] == "all":
            os.kill(int(os.environ["TORTURE_RUN"]), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """A function that counts its calls, and strikes before or after one."""

    @wraps(call)
    def counting(*arguments: Any, **named: Any) -> Any:
        counts[os.getpid(), name] += 1
        number = counts[os.getpid(), name]
        if "TORTURE_COUNT" in os.environ:
            log(call=name, role=role(), number=number, of=str(arguments[0]))
        if KILL:
            strike("before", name, number)
        result = call(*arguments, **named)
        if KILL:
            strike("after", name, number)
        return result

    return counting


def telling(handle: int, data: Any) -> int:
    """os.write, which carries the messages of processes: sees a worker that is up, and epochs."""
    if role() == "worker":
        text = bytes(data)
        if b'"EpochDone"' in text:
            message = json.loads(text)
            log(epoch=message["epoch"], where=message["where"]["name"])
        if b'"Ready"' in text and "TORTURE_MEMORY" in os.environ:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + int(os.environ["TORTURE_MEMORY"])
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return os_write(handle, data)


if LOG:
    if role() == "run":
        os.environ["TORTURE_RUN"] = str(os.getpid())
    os.write = telling
    for name, (module, function) in CALLS.items():
        setattr(module, function, watched(name, getattr(module, function)))
