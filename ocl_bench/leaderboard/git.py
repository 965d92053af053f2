"""Ask git about a repository that strangers propose things to: nothing of theirs is checked out, run or obeyed.

Trees and blobs are read as they are stored. What a checkout would do to them (attributes, filters, links, submodules)
does not happen, and neither hooks, nor replaced objects, nor a person's own settings have a say.
"""

import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocl_bench.errors import OclBenchError
from ocl_bench.leaderboard.untrusted import printable

MAX_ANSWER = 64 * 2**20  # a tree can name itself so often that its listing never ends
SECONDS = 300

_OPTIONS = (
    "--no-replace-objects", "--no-pager", "--literal-pathspecs",
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.attributesFile=/dev/null",
    "-c", "log.showRoot=true", "-c", "log.showSignature=false", "-c", "diff.renames=false",
)  # fmt: skip
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_GRAFT_FILE": os.devnull,
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # older versions know of no GIT_NO_LAZY_FETCH
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


class GitFailed(OclBenchError):
    """Git does not answer; the text says why."""


@dataclass(frozen=True)
class Item:
    """What a tree holds at a path.

    Attributes:
        mode: 100644 for a file, 100755 for an executable, 120000 for a link, 160000 for another repository.
        name: of the object.
        size: in bytes; 0 for another repository.
    """

    mode: str
    name: str
    size: int


def ask(repository: Path, *arguments: str, given: bytes = b"", most: int = MAX_ANSWER) -> bytes:
    """What a git command prints.

    Args:
        repository: a folder of it.
        arguments: the command and its arguments.
        given: its standard input.
        most: bytes that it may print.

    Raises:
        GitFailed: if it fails, takes too long or prints too much, or there is no git.
    """
    what = f"git {arguments[0]} in {repository}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | _ENVIRONMENT
    with tempfile.TemporaryFile() as questions, tempfile.TemporaryFile() as complaints:
        questions.write(given)
        questions.seek(0)
        try:
            process = subprocess.Popen(
                ["git", "-C", str(repository), *_OPTIONS, *arguments],
                stdin=questions, stdout=subprocess.PIPE, stderr=complaints, env=environment,
            )  # fmt: skip
        except OSError as error:
            raise GitFailed(f"git cannot be started ({error.strerror}); install it.") from None
        alarm = threading.Timer(SECONDS, process.kill)
        alarm.start()
        try:
            assert process.stdout is not None
            with process.stdout as printed:
                answer = printed.read(most + 1)
            if len(answer) > most:
                raise GitFailed(f"{what} prints more than {most} bytes, which no leaderboard needs.")
            process.wait()
        finally:
            alarm.cancel()
            process.kill()
            process.wait()
        if process.returncode:
            complaints.seek(0)
            lines = complaints.read(10_000).decode(errors="replace").strip().splitlines()
            reason = printable(lines[-1]) if lines else f"it ended with code {process.returncode}"
            raise GitFailed(f"{what} failed ({reason}).")
    return answer


def commit_named(repository: Path, name: str) -> str:
    """The full name of a commit. Raises OclBenchError if there is none of that name."""
    if not name.startswith("-"):
        try:
            return ask(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()
        except GitFailed:
            pass
    raise OclBenchError(f"{printable(name)}: {repository} has no such commit; fetch it first.")


def is_shallow(repository: Path) -> bool:
    """Whether history was cut off. Raises GitFailed where there is no repository."""
    return ask(repository, "rev-parse", "--is-shallow-repository").strip() != b"false"


def tree(repository: Path, commit: str) -> dict[str, Item]:
    """Everything in a commit by path. Raises GitFailed if a path is there twice, or an object is missing."""
    found: dict[str, Item] = {}
    for line in ask(repository, "ls-tree", "-r", "-l", "-z", "--full-tree", commit).split(b"\0")[:-1]:
        described, _, raw = line.partition(b"\t")
        mode, kind, name, size = described.decode().split()
        path = os.fsdecode(raw)
        if path in found:
            raise GitFailed(f"{commit}: holds {printable(path)} twice; make the commit again, with git's own commands.")
        if kind == "blob" and not size.isdigit():
            raise GitFailed(f"{commit}: the content of {printable(path)} is missing; make a full clone.")
        found[path] = Item(mode, name, int(size) if size.isdigit() else 0)
    return found


def blobs(repository: Path, names: Sequence[str], most: int) -> Iterator[bytes]:
    """The contents of blobs, in the order asked for.

    Args:
        repository: a folder of it.
        names: of the blobs.
        most: bytes that they may have together; ask for their sizes first.
    """
    asked = "".join(f"{name}\n" for name in names).encode()
    answer = ask(repository, "cat-file", "--batch", given=asked, most=most + 200 * len(names))
    at = 0
    for name in names:
        header = re.compile(rb"([0-9a-f]+) blob (\d+)\n").match(answer, at)
        if header is None or header[1].decode() != name:
            raise GitFailed(f"{repository}: blob {printable(name)} is missing; make a full clone.")
        end = header.end() + int(header[2])
        yield answer[header.end() : end]
        at = end + 1


def sizes(repository: Path, names: Sequence[str]) -> list[int]:
    """Sizes of blobs in bytes, in the order asked for. Raises GitFailed if one is missing, or no blob."""
    asked = "".join(f"{name}\n" for name in names).encode()
    found = []
    for line in ask(repository, "cat-file", "--batch-check", given=asked).decode().splitlines():
        name, *rest = line.split()
        if len(rest) != 2 or rest[0] != "blob":
            raise GitFailed(f"{repository}: blob {printable(name)} is missing; make a full clone.")
        found.append(int(rest[1]))
    return found
