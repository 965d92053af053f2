"""What came of an attack: how the board ended, what it said, showed and changed, and what that took."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 60.0  # seconds of processor time after which the board is stopped
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class TooLong(BaseException):
    """The board was stopped. No `except Exception` of its takes it."""


@dataclass(frozen=True)
class Outcome:
    """What came of an attack.

    Attributes:
        code: exit code, or 1 for a refusal where there is none.
        said: all that was printed.
        shown: what readers of the board get to see: pages and README.md.
        changed: files below the attack's folder that the board made, changed or removed.
        seconds: processor time.
        megabytes: by which memory rose above what was taken before.
    """

    code: int
    said: str
    shown: tuple[Path, ...] = ()
    changed: tuple[str, ...] = ()
    seconds: float = 0.0
    megabytes: float = 0.0


@dataclass
class Watch:
    """What happened while the board was at work."""

    changed: tuple[str, ...] = field(default=())
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def found(self) -> dict[str, object]:
        """As fields of an outcome."""
        return {"changed": self.changed, "seconds": self.seconds, "megabytes": self.megabytes}


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Watch]:
    """Watch what the block does to a folder, and what it takes; it is stopped after PATIENCE."""
    watch, before = Watch(), snapshot(folder)
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")  # the highest memory counts from now
    base, begun = _memory("VmRSS"), _processor()
    former = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        yield watch
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)
        watch.seconds = _processor() - begun
        watch.megabytes = max(0.0, _memory("VmHWM") - base)
        after = snapshot(folder)
        watch.changed = tuple(sorted(name for name in {*before, *after} if before.get(name) != after.get(name)))


def in_time(folder: Path, board: Callable[[], tuple[int, str]], shown: Callable[[], list[Path]] = list) -> Outcome:
    """Have the board at work, and say what came of it."""
    with watched(folder) as watch:
        try:
            code, said = board()
        except TooLong:
            code, said = -1, f"stopped after {PATIENCE:g} s"
    return Outcome(code, said, tuple(shown()) if code == 0 else (), **watch.found)


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Files and folders, with kind, size and time; of a git folder only what its branches are."""
    found: dict[str, tuple[int, int, int]] = {}
    for base, folders, names in os.walk(folder):
        if Path(base).name == ".git":
            folders[:] = [name for name in folders if name == "refs"]
            names = [name for name in names if name in ("HEAD", "packed-refs")]
        for name in names:
            path = Path(base, name)
            state = path.lstat()
            found[os.fsencode(path.relative_to(folder)).decode("latin-1")] = (
                state.st_mode, state.st_size, state.st_mtime_ns,
            )  # fmt: skip
    return found


def _stop(number: int, frame: object) -> None:
    raise TooLong


def _processor() -> float:
    taken = os.times()
    return time.process_time() + taken.children_user + taken.children_system


def _memory(name: str) -> float:
    with contextlib.suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0.0
