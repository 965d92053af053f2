"""Child processes that talk in typed messages, a JSON line each: the parent on standard input, they on standard output.

A child has its own memory, its own libraries and its own failures. It leads a process group, so that what it starts
itself ends with it, and it ends when its parent does.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Queue
from types import UnionType
from typing import Any, Protocol

import msgspec

from ocl_bench.errors import OclBenchError

Message = msgspec.Struct
Emit = Callable[[Message], None]
# What children tell, each message with its child; None: with this process itself.
Events = Queue[tuple["Child | None", Message]]
Files = tuple[int, int, int]  # descriptors of standard input, output and error


class Failed(msgspec.Struct, tag=True, frozen=True):
    """An exception has ended the child's work.

    Attributes:
        message: the exception's.
        exit_code: that the command line has for it; None for an exception that no rule expects.
    """

    message: str
    exit_code: int | None


class Exited(msgspec.Struct, tag=True, frozen=True):
    """The process is gone; its code is negative if a signal ended it."""

    code: int


class Process(Protocol):
    """A process, however it was started. It leads a process group."""

    @property
    def pid(self) -> int:
        """Number of the process and of its group."""

    def wait(self) -> int:
        """Wait until it has ended, and say its exit code."""


# Module, arguments, whole environment and standard files → a process that runs the module's `main`.
Start = Callable[[str, Sequence[str], Mapping[str, str], Files], Process]


def spawn(module: str, arguments: Sequence[str], environment: Mapping[str, str], files: Files) -> Process:
    """Start a module with `python -m`."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=files[0],
        stdout=files[1],
        stderr=files[2],
        env=dict(environment),
        start_new_session=True,
    )


class Child:
    """The parent's end of a child process.

    Every message that the child sends goes into `events`, paired with the child, and `Failed` if a line is none; the
    last is `Exited`.

    Args:
        module: its `main` calls `serve`.
        arguments: for the module.
        environment: the child's environment.
        log: whatever libraries print there is added to this file.
        events: may be shared by several children.
        sends: union of the types that the child sends.
        start: how the process is started.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        events: "Events",
        *,
        sends: "type | UnionType",
        start: Start = spawn,
    ) -> None:
        self._module, self._events = module, events
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(sends | Failed)
        stdin, self._input = os.pipe()
        self._output, stdout = os.pipe()
        try:
            with log.open("ab") as stderr:
                self.process = start(module, arguments, environment, (stdin, stdout, stderr.fileno()))
        except BaseException:
            os.close(self._input)
            os.close(self._output)
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        self._sending = threading.Lock()
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with os.fdopen(self._output, "rb") as lines:
            for line in lines:
                self._events.put((self, self._decoded(line)))
        self._events.put((self, Exited(self.process.wait())))

    def _decoded(self, line: bytes) -> Message:
        try:
            message: Message = self._decoder.decode(line)
        except msgspec.MsgspecError as error:
            return Failed(f"{self._module} sent a line that is none of its messages: {error}.", None)
        return message

    def send(self, message: Message) -> None:
        """Give the child a message."""
        # A broken pipe means that it has died: its last event says so.
        with self._sending, contextlib.suppress(BrokenPipeError):
            if not self._ended:
                _write(self._input, message)

    def end(self) -> None:
        """End the child and all that it started, at once, even if it hangs: what it writes is whole or absent."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with self._sending:
            if not self._ended:
                os.close(self._input)
            self._ended = True


def serve(work: Callable[["Queue[Any]", Emit], None], takes: "type | UnionType") -> None:
    """The child's end: call `work` with the parent's messages, as they come, and a function that sends some.

    An exception becomes `Failed`, and so does a line from the parent that is none of the types in `takes`.
    """
    # Messages go to the original standard output; whatever libraries print goes to the log, which is standard error.
    output = os.dup(1)
    os.dup2(2, 1)
    writing = threading.Lock()

    def emit(message: Message) -> None:
        with writing:
            _write(output, message)

    messages: Queue[Any] = Queue()
    threading.Thread(target=_read_messages, args=(messages, takes, emit), daemon=True).start()
    try:
        work(messages, emit)
    except Exception as error:
        traceback.print_exc()
        known = error.exit_code if isinstance(error, OclBenchError) else None
        emit(Failed(str(error) or type(error).__name__, known))
        sys.exit(1)


def _read_messages(messages: "Queue[Any]", takes: "type | UnionType", emit: Emit) -> None:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(takes)
    with open(0, "rb", closefd=False) as lines:
        for line in lines:
            try:
                messages.put(decoder.decode(line))
            except msgspec.MsgspecError as error:
                emit(Failed(f"{sys.argv[0]} was sent a line that is none of its messages: {error}.", None))
                os._exit(1)
    os.killpg(os.getpgrp(), signal.SIGKILL)  # the parent is gone: nobody waits for this work


def _write(file: int, message: Message) -> None:
    rest = memoryview(msgspec.json.encode(message) + b"\n")
    while rest:
        rest = rest[os.write(file, rest) :]
