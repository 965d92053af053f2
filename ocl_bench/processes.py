"""Child processes that read JSON lines on standard input and answer with events, JSON lines on standard output.

A child has its own memory, its own libraries and its own failures. It leads a process group, so that what it starts
itself ends with it, and it ends when its parent does.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import Queue
from typing import Any

from ocl_bench.errors import OclBenchError

Event = dict[str, Any]
Emit = Callable[[Event], None]
Messages = Queue[dict[str, Any]]
# What children tell, each event with its child; None: with this process itself.
Events = Queue[tuple["Child | None", Event]]


class Child:
    """The parent's end of a child process.

    Every event that the child emits goes into `events`, paired with the child; the last is `exit` with its code.

    Args:
        module: run with `python -m`; it calls `serve`.
        arguments: for the module.
        environment: the child's environment.
        log: whatever libraries print there is added to this file.
        events: may be shared by several children.
    """

    def __init__(
        self,
        module: str,
        arguments: list[str],
        environment: Mapping[str, str],
        log: Path,
        events: "Events",
    ) -> None:
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env=dict(environment),
                text=True,
                start_new_session=True,
            )
        self._events = events
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                self._events.put((self, json.loads(line)))
        finally:
            self._events.put((self, {"event": "exit", "code": self.process.wait()}))

    def send(self, message: Mapping[str, Any]) -> None:
        """Give the child a message."""
        assert self.process.stdin is not None
        # A broken pipe means that it has died: its exit event says so.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{json.dumps(message)}\n")
            self.process.stdin.flush()

    def end(self) -> None:
        """End the child and all that it started, at once, even if it hangs: what it writes is whole or absent."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def serve(work: Callable[[Messages, Emit], None]) -> None:
    """The child's end: call `work` with the parent's messages, as they come, and a function that emits events.

    An exception becomes the event `error`, with the exit code that the command line would have for it.
    """
    # Events go to the original standard output; whatever libraries print goes to the log, which is standard error.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def emit(event: Event) -> None:
        output.write(json.dumps(event) + "\n")

    messages: Messages = Queue()
    threading.Thread(target=_read_messages, args=(messages,), daemon=True).start()
    try:
        work(messages, emit)
    except Exception as error:
        traceback.print_exc()
        known = error.exit_code if isinstance(error, OclBenchError) else None
        emit({"event": "error", "message": str(error) or type(error).__name__, "exit_code": known})
        sys.exit(1)


def _read_messages(messages: Messages) -> None:
    for line in sys.stdin:
        messages.put(json.loads(line))
    os.killpg(os.getpgrp(), signal.SIGKILL)  # the parent is gone: nobody waits for this work
