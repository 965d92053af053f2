"""Start processes by forking them from a template, which has imported their libraries once for all of them.

Importing torch and transformers takes seconds of processor time; a forked process has them at once, and shares their
memory. A Python process keeps one template, for all its runs. A process of the suite's own needs the same libraries
itself: it imports them once, for both, and its template is a fork of it.
"""

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from ocl_bench.processes import Files, Process, Start, spawn
from ocl_bench.template import QUIET, REFUSED, Fork, become, load, threads

# Elsewhere there is no fork, or the system's own libraries do not survive it.
POSSIBLE = sys.platform == "linux"


class TemplateLost(Exception):
    """The template could not import what it should, or is gone."""


class Refused(Exception):
    """The template's imports have seen another environment than the process that it is to fork."""


class _Ending(Protocol):
    """The process of a template, as `subprocess` has it."""

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class Template:
    """A process that has imported modules, and forks.

    Args:
        preload: modules that it imports.
        process: the process.
        requests: where it takes requests from the other end.
    """

    def __init__(self, preload: Sequence[str], process: _Ending, requests: socket.socket) -> None:
        self.preload = tuple(preload)
        self._process, self._socket, self._forked = process, requests, False

    @classmethod
    def started(cls, preload: Sequence[str], environment: Mapping[str, str]) -> "Template":
        """A process of its own, which imports from now on, with this environment."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ocl_bench.template", str(theirs.fileno()), *preload],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(environment) | QUIET,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return cls(preload, process, ours)

    @classmethod
    def split_off(cls, preload: Sequence[str], environment: Mapping[str, str]) -> "Template | None":
        """A fork of this process, once it has imported the modules, with this environment.

        None if it cannot import them, or has more threads than one.
        """
        before = dict(os.environ)
        os.environ.update(given := dict(environment) | QUIET)
        try:
            load(preload)
        except Exception:  # which workers will tell of
            return None
        finally:
            after = dict(os.environ)
            set_by_imports = {name: value for name, value in after.items() if {**before, **given}.get(name) != value}
            os.environ.clear()
            os.environ.update(before | set_by_imports)
        if threads() > 1:
            return None
        sys.stdout.flush(), sys.stderr.flush()  # or the fork has it too
        ours, theirs = socket.socketpair()
        with theirs:
            pid = os.fork()
            if pid == 0:
                become(theirs, [before | given, after])
        return cls(preload, _Fork(pid), ours)

    def fork(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], files: Files) -> Process:
        """Start a module as `spawn` does; waits until the template has imported its modules.

        Raises:
            TemplateLost: if it cannot.
            Refused: if imports in this environment could have given something else.
        """
        status, told = os.pipe()
        self._forked = True
        try:
            request = msgspec.json.encode(Fork(module, arguments, dict(environment), str(Path.cwd()))) + b"\n"
            sent = socket.send_fds(self._socket, [request], [*files, told])
            self._socket.sendall(request[sent:])
        except (OSError, UnicodeError):
            os.close(status)
            raise TemplateLost from None
        finally:
            os.close(told)
        return _Forked(status)

    def end(self) -> None:
        """Take no more requests. It ends now if it has never forked, else with the last process that it forked."""
        self._socket.close()
        if not self._forked:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)


class _Fork:
    """A child that was forked here."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while end is not None and time.monotonic() < end:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise subprocess.TimeoutExpired(str(self._pid), timeout or 0)


class _Forked:
    """A process that a template has forked, known by what the template tells of it."""

    def __init__(self, status: int) -> None:
        self._status = os.fdopen(status, "rb")
        self._code: int | None = None
        self._waiting = threading.Lock()
        try:
            told = self._status.readline()
            if not told:
                raise TemplateLost
            self.pid = int(told)
            if self.pid == REFUSED:
                raise Refused
        except BaseException:
            self._status.close()
            raise

    def wait(self) -> int:
        with self._waiting:
            if self._code is None:
                with self._status:
                    told = self._status.readline()
                if not told:  # nobody is left to say how it ends, so it ends here
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self.pid, signal.SIGKILL)
                self._code = int(told or -signal.SIGKILL)
            return self._code


_kept: Template | None = None
_keeping = threading.Lock()
_own = False  # whether this process is the suite's own


def own_process() -> None:
    """Say that this process is the suite's own, and no user's code has a part in it: it may change what is imported."""
    global _own
    _own = True
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # or NumPy, which is imported early, starts threads


def warm(preload: Sequence[str], environment: Mapping[str, str]) -> None:
    """Have this process's template import `preload` from now on, while other things are done.

    In a process of the suite's own that has one thread and no torch yet, it is imported now, and here too.
    """
    global _kept
    if not POSSIBLE:
        return
    if _own and _kept is None and "torch" not in sys.modules and threads() == 1:
        _kept = Template.split_off(preload, environment)
    _template(preload, environment)


def forked(preload: Sequence[str]) -> Start:
    """A way to start processes: forked from this process's template, or on their own where that is impossible."""

    def start(module: str, arguments: Sequence[str], environment: Mapping[str, str], files: Files) -> Process:
        if POSSIBLE:
            with contextlib.suppress(TemplateLost):
                try:
                    return _template(preload, environment).fork(module, arguments, environment, files)
                except Refused:
                    _end()
                    return _template(preload, environment).fork(module, arguments, environment, files)
        return spawn(module, arguments, environment, files)

    return start


def _template(preload: Sequence[str], environment: Mapping[str, str]) -> Template:
    """The template of this process; a new one has the environment."""
    global _kept
    with _keeping:
        if _kept is None or _kept.preload != tuple(preload):
            if _kept is not None:
                _kept.end()
            _kept = Template.started(preload, environment)
        return _kept


@atexit.register
def _end() -> None:
    global _kept
    with _keeping:
        if _kept is not None:
            _kept.end()
        _kept = None


def _forget() -> None:
    """A fork of this process has no part in its template."""
    global _kept, _keeping
    _kept, _keeping = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
