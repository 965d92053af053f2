"""Disks that fill up, or take no more writes."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torture.runs import Bench, Lost, Skipped, one_sentence

SMALL, LARGE = "16m", "64m"
# A user who may do everything may also write where nobody may; so the run does without that right.
UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system in memory of a few MB. Raises Skipped where mounting is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Skipped(f"mount: {error.strerror}") from None
    if done.returncode:
        raise Skipped(f"a tmpfs cannot be mounted here ({done.stderr.strip().splitlines()[0]})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, spare: int) -> None:
    """Leave so many bytes of a disk free."""
    with (disk / "filler").open("wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
        file.truncate(max(0, file.tell() - spare))


def disk_full(epochs: int, spare: int) -> Callable[[Bench], Lost]:
    """The disk is full but for `spare` bytes after so many epochs, and larger before the next start."""

    def case(bench: Bench) -> Lost:
        with small_disk(bench.folder / f"disk-{bench.places}") as disk:
            place = bench.place(disk / "out")
            run = place.start()
            assert run.until_epochs(epochs)
            fill(disk, spare)
            ended = run.wait()
            faults, starts = int(ended.code != 0), 1
            if faults:
                one_sentence(ended)
                subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(disk)], check=True)
                starts += place.finish()
            bench.check(place)
            return Lost(faults, starts, place.epochs_again())

    return case


def read_only(epochs: int) -> Callable[[Bench], Lost]:
    """No folder below the output folder takes writes after so many epochs, and all do before the next start."""

    def case(bench: Bench) -> Lost:
        place = bench.place()
        try:
            subprocess.run([*UNPRIVILEGED, "true"], check=True, capture_output=True)
            before = UNPRIVILEGED if os.geteuid() == 0 else ()
        except (OSError, subprocess.CalledProcessError):
            raise Skipped("setpriv cannot take the right to write everywhere from this user") from None
        run = place.start(before=before)
        assert run.until_epochs(epochs)
        for folder in folders(place.output):
            with suppress(FileNotFoundError):
                folder.chmod(0o555)
        ended = run.wait()
        for folder in folders(place.output):
            folder.chmod(0o755)
        faults, starts = int(ended.code != 0), 1
        if faults:
            one_sentence(ended)
            starts += place.finish()
        bench.check(place)
        return Lost(faults, starts, place.epochs_again())

    return case


def folders(root: Path) -> list[Path]:
    """A folder and all below it; those that vanish meanwhile are left out."""
    return [root, *(Path(path) for path, _, _ in os.walk(root) if Path(path) != root and Path(path).is_dir())]
