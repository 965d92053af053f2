"""Check a submission, trusting nothing in it: what can be derived is derived again and compared exactly.

The data are rebuilt from the task, so that no question can be missing, added or changed; every score is computed from
the answers. What a submitter says of the run (optimizer steps, learning rates, weights) has to fit the recipe, the data
and itself. What remains is the answers themselves: `verify` finetunes again.
"""

import gc
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path

from ocl_bench.collection import without_collection
from ocl_bench.errors import OclBenchError
from ocl_bench.leaderboard.checks.answers import check_answers, read_fingerprints
from ocl_bench.leaderboard.checks.code import check_code
from ocl_bench.leaderboard.checks.copies import Seen
from ocl_bench.leaderboard.checks.curves import check_curves
from ocl_bench.leaderboard.checks.data import check_vocabulary, rebuild
from ocl_bench.leaderboard.checks.identity import check_division, check_files, check_identity, check_place
from ocl_bench.leaderboard.checks.initial_weights import begun_with, check_initial
from ocl_bench.leaderboard.checks.mechanisms import check_mechanisms
from ocl_bench.leaderboard.checks.plausible import check_plausible
from ocl_bench.leaderboard.checks.reading import Checked, read_all
from ocl_bench.leaderboard.checks.training import check_keys, check_stages, check_training
from ocl_bench.leaderboard.initial import Initial
from ocl_bench.leaderboard.names import model_folders, name_taken
from ocl_bench.leaderboard.records import REVOCATION, Revocation, content_of, read_record
from ocl_bench.leaderboard.submission import MANIFEST, RESULTS, SUBMISSION
from ocl_bench.leaderboard.untrusted import Problem, printable
from ocl_bench.plugins import own_parts_only
from ocl_bench.score.gaps import final_stages
from ocl_bench.score.samples import Sample
from ocl_bench.score.text import exact_match

EXAMPLES = 5  # right and wrong answers kept of each subset
MAX_CELLS = 20  # a standard submission has 5
MIN_SHARE = 4  # submissions for a process of its own, which takes 1 s to start, and 2 to 4 s to build a task's data
MAX_PROCESSES = 8  # of 470 MB each
MAX_NAMES = 10_000  # of one folder of the leaderboard, which may hold very many models


def find_submissions(path: Path, levels: int = 6) -> Iterator[Path]:
    """Submissions at or below a path, and whatever lies there that is none: `check` says of each what is wrong."""
    try:
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder and levels and not any((path / name).exists() for name in (SUBMISSION, RESULTS, MANIFEST)):
            with os.scandir(path) as entries:
                names = [entry.name for entry in itertools.islice(entries, MAX_NAMES + 1)]
        else:
            names = None
    except OSError:
        names = None
    if names is None or len(names) > MAX_NAMES:
        yield path
    else:
        for name in sorted(names):
            yield from find_submissions(path / name, levels - 1)


def check_all(paths: Sequence[Path]) -> Iterator[Checked]:
    """Check every submission at or below paths, and that no two have names that differ in upper and lower case only.

    Raises:
        OclBenchError: if there is nothing at a path.
    """
    for path in paths:
        try:
            there = path.exists()
        except (OSError, ValueError):  # a name that no file can have
            there = False
        if not there:
            where = printable(str(path))
            raise OclBenchError(f"{where}: there is no such folder; name a submission, or a folder of them.")
    names: set[str] = set()
    seen = Seen()
    for checked in _each([folder for path in paths for folder in find_submissions(path)]):
        if is_revoked(checked):
            checked.problems = []  # perhaps what it was revoked for: it stays, and counts no more
            yield checked
        else:
            yield _look(checked, names, seen)


def _each(folders: Sequence[Path]) -> Iterator[Checked]:
    """Every folder checked, in their order: many of them by several processes. Initial weights are made by one."""
    processes = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, MAX_PROCESSES)
    processes = min(processes, len(folders) // MIN_SHARE)
    with Initial() as initial:
        initial.start()  # it takes seconds, in which there is something to check
        if processes < 2:
            yield from (check(folder, initial) for folder in folders)
            return
        waiting: dict[int, Checked] = {}
        number = 0
        for place, checked in _shared(folders, processes):
            waiting[place] = _with_initial(checked, initial)
            while number in waiting:
                yield waiting.pop(number)
                number += 1


def _shared(folders: Sequence[Path], processes: int) -> Iterator[tuple[int, Checked]]:
    """Every folder's number and what was found in it, as they are done: each process keeps to a task, built once."""
    left: dict[str, list[int]] = {}
    for number, folder in enumerate(folders):
        left.setdefault("/".join(folder.parts[-3:-2]), []).append(number)
    begun: set[str] = set()

    def next_of(task: str) -> str | None:
        """The task to go on with: the same, one that nobody has begun, or one with enough for two."""
        if left.get(task):
            return task
        return max(
            (one for one, numbers in left.items() if numbers and (one not in begun or len(numbers) >= MIN_SHARE)),
            key=lambda one: (one not in begun, len(left[one])),
            default=None,
        )

    with ExitStack() as stack:
        # Not forked: who calls this may have threads.
        pools = [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(processes)]
        for pool in pools:
            stack.enter_context(pool)
        busy: dict[Future[Checked], tuple[ProcessPoolExecutor, str, int]] = {}

        def give(pool: ProcessPoolExecutor, last: str) -> None:
            task = next_of(last)
            if task is not None:
                begun.add(task)
                number = left[task].pop(0)
                busy[pool.submit(_check_alone, folders[number])] = pool, task, number

        for pool in pools:
            give(pool, "")
        while busy:
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                pool, task, number = busy.pop(future)
                try:
                    found = future.result()
                    give(pool, task)
                except BrokenProcessPool:
                    raise OclBenchError(
                        "a process that checked submissions was killed, perhaps for its memory."
                    ) from None
                yield number, found


def _check_alone(folder: Path) -> Checked:
    """`check`, in a process that does nothing else: what lives on, as a task's data do, is not searched for cycles."""
    with without_collection():
        found = check(folder)
        gc.freeze()
    return found


def is_revoked(checked: Checked) -> bool:
    """Whether the board's records say of a submission, as far as it can be read, that it counts no more."""
    if checked.manifest is None or checked.submission is None or checked.results is None:
        return False
    return read_record(checked.folder, Revocation, REVOCATION, content_of(checked.manifest)) is not None


def check_new(folder: Path, accepted: Iterable[Path] = ()) -> Checked:
    """Check a submission with all that the leaderboard does before it takes one.

    Args:
        folder: the submission.
        accepted: those that it is compared with.
    """
    seen = Seen()
    with Initial() as initial:
        initial.start()  # as above
        checked = check(folder, initial)
        if not checked.problems:
            for other in accepted:  # one after the other: a folder may be there only until the next is asked for
                seen.look(_accepted(other))
            checked.problems = seen.look(checked)
    return checked


def _accepted(folder: Path) -> Checked:
    """An accepted submission, as far as others are compared with it; checked again if it cannot just be read."""
    checked = Checked(folder)
    with _noted(checked), without_collection(), own_parts_only():
        contents = read_all(checked)
        if checked.submission is not None and checked.manifest is not None:
            read_fingerprints(checked, contents)
    return check(folder) if checked.problems else checked


def _look(checked: Checked, names: set[str], seen: Seen) -> Checked:
    """Compare a submission with those before it."""
    if checked.submission is not None:
        if (taken := name_taken(checked.submission.place, names)) is not None:
            checked.problems = sorted({*checked.problems, Problem(SUBMISSION, "model", taken)})
        names.add(checked.submission.place.split("/")[1])
        checked.problems = sorted({*checked.problems, *seen.look(checked)})
    return checked


def check(folder: Path, initial: Initial | None = None) -> Checked:
    """Read a submission and check all of it. Never raises for what is in the folder, and runs no other package's part.

    Args:
        folder: the submission.
        initial: makes its model's initial weights again, if all else is right; None leaves them unchecked.
    """
    checked = Checked(folder)
    with without_collection():  # until most samples are let go of
        with _noted(checked), own_parts_only():
            if folder.is_symlink() or not folder.is_dir():
                checked.add("", "", "is not a folder of a submission")
            else:
                _check_all(checked)
        checked.problems = sorted(set(checked.problems))
        checked.samples = _examples(checked)
    return _with_initial(checked, initial) if initial is not None else checked


@contextmanager
def _noted(checked: Checked) -> Iterator[None]:
    """Whatever a submission may bring about, it is refused and the next one is looked at."""
    try:
        yield
    except Exception as error:
        checked.add("", "", f"the checks failed on it ({type(error).__name__}: {printable(str(error))})")


def _with_initial(checked: Checked, initial: Initial) -> Checked:
    """The submission with its initial weights checked, if all else is right."""
    if not checked.problems and checked.begun_with:
        with _noted(checked), own_parts_only():
            check_initial(checked, initial)
        if checked.problems:
            checked.problems, checked.samples = sorted(set(checked.problems)), []
    checked.begun_with = {}
    return checked


def _examples(checked: Checked) -> list[Sample]:
    """Some right and wrong answers of each subset, to show: all of all submissions would not fit into memory."""
    if not checked.samples or checked.manifest is None or checked.problems:
        return []
    config, kept = checked.manifest.config, []
    first, scored = (config.seeds[0], config.stage2_seeds[0]), final_stages(config.task)
    found: Counter[tuple[str, float]] = Counter()
    for sample in itertools.takewhile(lambda one: (one.seed, one.stage2_seed) == first, checked.samples):
        record = sample.record
        if sample.stage == scored[record.subset] and record.kind == "qa":
            which = record.subset, exact_match(sample.answer.generated, record.answers)
            found[which] += 1
            if found[which] <= EXAMPLES:
                kept.append(sample)
    return kept


def check_name(checked: Checked) -> None:
    """No model beside it has a name that differs in upper and lower case only."""
    assert checked.submission is not None
    folder, place = checked.folder.resolve(), checked.submission.place
    if folder.parts[-3:] == tuple(place.split("/")):
        taken = name_taken(place, model_folders(folder.parents[2]))
        if taken is not None:
            checked.add(SUBMISSION, "model", taken)


def _check_all(checked: Checked) -> None:
    contents = read_all(checked)
    submission, manifest = checked.submission, checked.manifest
    if submission is None:
        return
    check_place(checked)
    check_name(checked)
    if manifest is None:
        return
    check_identity(checked, contents)
    check_code(checked)
    if len(manifest.config.seeds) * len(manifest.config.stage2_seeds) > MAX_CELLS:
        checked.add(MANIFEST, "config.seeds", f"more than {MAX_CELLS} trainings")
        return
    check_files(checked, contents)
    check_division(checked, submission, manifest)
    check_stages(checked, manifest)
    check_plausible(checked, manifest)
    check_mechanisms(checked, manifest)
    datasets = rebuild(checked, manifest)
    if datasets is not None:
        check_vocabulary(checked, manifest, datasets)
        check_keys(checked, manifest, datasets)
        check_training(checked, manifest, datasets)
        check_answers(checked, manifest, datasets, contents)
        check_curves(checked, manifest, datasets, contents)
        if not checked.problems:
            checked.begun_with = begun_with(manifest, datasets)
