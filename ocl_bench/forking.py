"""Start processes by forking them from a template, which has imported their libraries once for all of them.

Importing torch and transformers takes seconds of processor time; a forked process has them at once, and shares their
memory. A Python process keeps one template, for all its runs.
"""

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ocl_bench.processes import Files, Process, Start, spawn
from ocl_bench.template import QUIET, REFUSED, Fork

# Elsewhere there is no fork, or the system's own libraries do not survive it.
POSSIBLE = sys.platform == "linux"


class TemplateLost(Exception):
    """The template could not import what it should, or is gone."""


class Refused(Exception):
    """The template's imports have seen another environment than the process that it is to fork."""


class Template:
    """A process that has imported modules, and forks.

    Args:
        preload: modules that it imports.
        environment: of the imports.
    """

    def __init__(self, preload: Sequence[str], environment: Mapping[str, str]) -> None:
        self.preload = tuple(preload)
        self._forked = False
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ocl_bench.template", str(theirs.fileno()), *preload],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(environment) | QUIET,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

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


def warm(preload: Sequence[str], environment: Mapping[str, str]) -> None:
    """Have this process's template import `preload` from now on, while other things are done."""
    if POSSIBLE:
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
            _kept = Template(preload, environment)
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
