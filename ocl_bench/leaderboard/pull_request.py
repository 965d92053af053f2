"""Review a pull request: it may add one submission, and nothing else. What it proposes is read from git, never run.

Trees are compared, not patches: a file that is deleted, renamed, replaced by a link or touched in a merge is another
entry of a tree, whatever a diff would call it.
"""

import re
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ocl_bench.errors import OclBenchError
from ocl_bench.leaderboard.git import GitFailed, Item, ask, blobs, commit_named, is_shallow, tree
from ocl_bench.leaderboard.table import problem_lines
from ocl_bench.leaderboard.untrusted import MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, printable
from ocl_bench.leaderboard.validate import check_new

RESULTS, RECORDS = "leaderboard/results/", "leaderboard/records/"
SHOWN = 5  # paths of one kind of problem; the others are counted

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")
_MODES = {"100755": "is executable", "120000": "is a link", "160000": "is another repository"}


@dataclass
class Reviewed:
    """What a pull request does to the leaderboard.

    Attributes:
        place: `<task>/<org>__<model>/<revision>` of the submission that it adds; None if it leaves the board alone.
        problems: one sentence for each thing that is wrong.
    """

    place: str | None = None
    problems: list[str] = field(default_factory=list)


def review(repository: Path, base: str, head: str, folder: Path | None = None) -> Reviewed:
    """Say what is wrong with a pull request.

    Args:
        repository: a folder of a full clone that has both commits.
        base: the commit that it would be merged into.
        head: its last commit.
        folder: a new one, where its submission is left; none is made for another pull request.

    Raises:
        OclBenchError: if the commits cannot be compared.
    """
    if folder is not None and folder.exists():
        raise OclBenchError(f"{folder}: is there already; name a new folder for the submission.")
    if is_shallow(repository):
        raise OclBenchError(f"{repository}: its history is cut off; complete it with git fetch --unshallow.")
    base, head = commit_named(repository, base), commit_named(repository, head)
    fork = fork_point(repository, base, head)
    accepted, before, after = (tree(repository, commit) for commit in (base, fork, head))
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if not changed:
        return Reviewed(problems=["the pull request changes nothing"])
    if not any(on_board(path) for path in changed):
        return Reviewed()
    taken = {_place(path) for path in accepted.keys() | before.keys() if path.startswith(RESULTS)}
    problems = _grouped(_wrong(path, after.get(path), _place(path) in taken) for path in changed)
    problems += collisions((path for path in changed if path in after), accepted)
    added = {path: after[path] for path in changed if path in after and path.startswith(RESULTS)}
    problems += _too_much(added)
    if problems:
        return Reviewed(problems=problems)
    (place,) = {_place(path) for path in added}
    with tempfile.TemporaryDirectory() as own:
        inside = folder or Path(own)
        write(repository, {path.removeprefix(RESULTS): item for path, item in added.items()}, inside)
        found = check_new(inside / place, _written(repository, accepted)).problems
    return Reviewed(place, problem_lines(Path(RESULTS, place), found))


def fork_point(repository: Path, base: str, head: str) -> str:
    """The commit at which a branch left another. Raises OclBenchError unless there is exactly one."""
    try:
        found = ask(repository, "merge-base", "--all", base, head).decode().split()
    except GitFailed:
        raise OclBenchError(f"{head}: has no history in common with {base}; start again from main.") from None
    if len(found) != 1:
        raise OclBenchError(
            f"{head}: left {base} at {len(found)} places, so that what it changes is not certain; rebase it on main."
        )
    return found[0]


def on_board(path: str) -> bool:
    """Whether a path is among results or records, or would be on a file system that tells fewer names apart."""
    parts = path.split("/")[:2]
    plain = [re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKC", part).casefold()) for part in parts]
    return plain in (["leaderboard", "results"], ["leaderboard", "records"]) or plain == ["leaderboard"]


def collisions(added: Iterable[str], present: Iterable[str]) -> list[str]:
    """Added paths that only differ in case from others, in any of their folders, where one file would hide another."""
    spelled = {prefix.casefold(): prefix for path in present for prefix in _prefixes(path)}
    found = []
    for path in added:
        for prefix in _prefixes(path):
            if spelled.setdefault(prefix.casefold(), prefix) != prefix:
                found.append((path, "differs in upper and lower case only from a path that is there"))
                break
    return _grouped(found)


def write(repository: Path, items: Mapping[str, Item], folder: Path) -> None:
    """Write blobs as plain files below a folder; paths and sizes were checked before."""
    contents = blobs(repository, [item.name for item in items.values()], MAX_TOTAL_BYTES)
    for path, content in zip(items, contents, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("xb") as file:
            file.write(content)


def _written(repository: Path, accepted: Mapping[str, Item]) -> Iterator[Path]:
    """Each accepted submission in a folder, which is there until the next is asked for."""
    of: dict[str, dict[str, Item]] = {}
    for path, item in accepted.items():
        if path.startswith(RESULTS):
            of.setdefault(_place(path), {})[path.removeprefix(RESULTS)] = item
    for place, items in of.items():
        with tempfile.TemporaryDirectory() as own:
            write(repository, items, Path(own))
            yield Path(own, place)


def _place(path: str) -> str:
    """The submission that a path among the results belongs to, as far as its folders go."""
    return "/".join(path.removeprefix(RESULTS).split("/")[:3])


def _wrong(path: str, item: Item | None, taken: bool) -> tuple[str, str] | None:
    """The path, and the first thing that is wrong with what happens there."""
    if path.startswith(RECORDS):
        return path, "is a record, which maintainers write"
    if not path.startswith(RESULTS):
        return path, "does not belong into a pull request with a submission; propose it in one of its own"
    if item is None:
        return path, "was accepted, and is deleted"
    if taken:
        return path, "belongs to an accepted submission, and is changed or added"
    parts = path.split("/")
    if not all(_PART.fullmatch(part) for part in parts):
        return path, "has a name of other characters than letters, digits and . _ - inside it"
    if item.mode != "100644":
        return path, f"{_MODES.get(item.mode, f'has mode {item.mode}')}; add plain files"
    if not 6 <= len(parts) <= 7:
        return path, f"lies in no submission; one is a folder {RESULTS}<task>/<org>__<model>/<revision>"
    if item.size > MAX_FILE_BYTES:
        return path, f"has more than {MAX_FILE_BYTES} bytes"
    return None


def _too_much(added: Mapping[str, Item]) -> list[str]:
    """What is wrong with all added files together: sizes are known before anything is read."""
    problems = []
    places = sorted({_place(path) for path in added})
    if len(places) > 1:
        shown = ", ".join(map(printable, places[:SHOWN]))
        problems.append(f"the pull request adds {len(places)} submissions ({shown}); propose one at a time")
    if len(added) > MAX_FILES:
        problems.append(f"the pull request adds {len(added)} files; at most {MAX_FILES} are taken")
    total = sum(item.size for item in added.values())
    if total > MAX_TOTAL_BYTES:
        problems.append(f"the files have {total} bytes in all; at most {MAX_TOTAL_BYTES} are taken")
    return problems


def _grouped(found: Iterable[tuple[str, str] | None]) -> list[str]:
    """A sentence for each path, but no more than a few of one kind."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for one in found:
        if one is not None:
            kinds[one[1]].append(printable(one[0]))
    lines = []
    for what, paths in kinds.items():
        lines += [f"{path}: {what}" for path in paths[:SHOWN]]
        if len(paths) > SHOWN:
            lines.append(f"and {len(paths) - SHOWN} more that each {what}")
    return lines


def _prefixes(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
