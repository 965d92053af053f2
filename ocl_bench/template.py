"""The template: imports modules, and forks processes that then have them: `python -m ocl_bench.template`.

It runs one thread and no computation, so that a fork of it is as good as new. Forks are asked for over a Unix socket,
which carries the standard files of the new process and a pipe by which the template tells two lines: its number, and
later its exit code. A process that has just imported the modules itself may fork its template, which then `become`s it.
"""

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from ocl_bench.collection import without_collection

# Read when they are needed, not when libraries are imported, so that forks of one template may differ in them. Numbers
# of threads are among them only because whoever is forked sets them by `torch.set_num_threads`.
READ_LATE = frozenset(
    {
        "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
        "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OCL_BENCH_CACHE", "OCL_BENCH_CORES",
    }
)  # fmt: skip
# With these the template's imports start no threads and leave CUDA alone: a fork with either would be broken.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
LONGEST_READ = 1 << 16
REFUSED = 0  # told in place of a process's number


class Fork(msgspec.Struct, frozen=True):
    """A module whose `main` is to run, with arguments, a whole environment and a working folder."""

    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: str


def main() -> None:
    """Entry point of the template: `python -m ocl_bench.template SOCKET MODULE…`."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    before = dict(os.environ)
    load(sys.argv[2:])
    if threads() > 1:
        sys.exit("the imports have started threads, which a fork would lose")
    _work(requests, [before, dict(os.environ)])


def load(modules: Sequence[str]) -> None:
    """Import modules."""
    with without_collection():
        for name in modules:
            importlib.import_module(name)


def threads() -> int:
    """How many threads this process has, those of libraries included."""
    return len(list(Path("/proc/self/task").iterdir()))


def become(requests: socket.socket, environments: Sequence[Mapping[str, str]]) -> NoReturn:
    """Be the template, in a fork of a process that has imported the modules; give up all else that is that process's.

    Args:
        requests: where forks are asked for.
        environments: before and after the imports.
    """
    code: object = 1
    try:
        os.setsid()  # Ctrl-C is not for this process
        for number, handler in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            signal.signal(number, handler)
        nothing = os.open(os.devnull, os.O_RDWR)
        # Files stay open, as another one, because whatever holds their numbers here may close them.
        for file in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
            with contextlib.suppress(OSError):  # the one that listed them
                if file not in (requests.fileno(), nothing):
                    os.dup2(nothing, file, inheritable=file < 3)
        if not sys.flags.safe_path:
            del sys.path[0]
        _work(requests, environments)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        # Not as Python ends, which would clear up what that process still uses.
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def _work(requests: socket.socket, environments: Sequence[Mapping[str, str]]) -> None:
    gc.collect()
    gc.freeze()  # what is never looked at is never copied
    job = _Forker(requests, environments).serve()
    # Here is the forked process, which goes on as one that was started on its own.
    module = importlib.import_module(job.module)
    sys.argv = [str(module.__file__), *job.arguments]
    module.main()


class _Forker:
    """The template's loop: forks on request, and tells how what it forked has ended.

    Args:
        requests: where they come from.
        environments: before and after the imports, which set variables themselves.
    """

    def __init__(self, requests: socket.socket, environments: Sequence[Mapping[str, str]]) -> None:
        self._requests = requests
        self._environments = environments
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)
        self._statuses: dict[int, int] = {}  # of each forked process, where to tell

    def serve(self) -> Fork:
        """Returns in forked processes only."""
        signal.signal(signal.SIGCHLD, lambda *signal: None)
        signal.set_wakeup_fd(self._wakes.fileno())
        waits_for = [self._woken, self._requests]
        while len(waits_for) > 1 or self._statuses:
            ready, _, _ = select.select(waits_for, [], [])
            if self._woken in ready:
                self._woken.recv(LONGEST_READ)
                self._reap()
            if self._requests in ready:
                request, files = self._receive()
                if request is None:
                    waits_for.remove(self._requests)
                elif not self._fits(request.environment):
                    self._refuse(files)
                elif self._fork(request, files):
                    return request
        sys.exit()

    def _receive(self) -> tuple[Fork | None, list[int]]:
        request, files, _, _ = socket.recv_fds(self._requests, LONGEST_READ, 4)
        while request and not request.endswith(b"\n"):
            more = self._requests.recv(LONGEST_READ)
            request = request + more if more else b""
        return (msgspec.json.decode(request, type=Fork) if request else None), files

    def _fits(self, environment: Mapping[str, str]) -> bool:
        """Whether imports would have seen the same, and so whether an exec'd process would be as the forked one."""
        names = {*environment, *self._environments[0]} - READ_LATE - QUIET.keys()
        return all(environment.get(name) in [known.get(name) for known in self._environments] for name in names)

    def _refuse(self, files: list[int]) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(files[3], b"%d\n" % REFUSED)
        for file in files:
            os.close(file)

    def _fork(self, request: Fork, files: list[int]) -> bool:
        """Fork; whether this is the forked process."""
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            self._leave(files)
            os.chdir(request.folder)
            os.environ.clear()
            os.environ.update(request.environment)
            return True
        # Here too: whoever is told of the process may end its group at once.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        for file in files[:3]:
            os.close(file)
        self._statuses[pid] = files[3]
        self._tell(pid, pid)
        return False

    def _leave(self, files: list[int]) -> None:
        """Give up, in a forked process, all that is the template's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for target, file in enumerate(files[:3]):
            os.dup2(file, target)
        for file in (*files, *self._statuses.values()):
            os.close(file)
        for end in (self._requests, self._woken, self._wakes):
            end.close()

    def _reap(self) -> None:
        while self._statuses:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in self._statuses:
                self._tell(pid, os.waitstatus_to_exitcode(status))
                os.close(self._statuses.pop(pid))

    def _tell(self, pid: int, number: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent is gone
            os.write(self._statuses[pid], b"%d\n" % number)


if __name__ == "__main__":
    main()
