"""Submit: a run's submission is checked, put into the leaderboard, and committed on a branch or sent to the hub."""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ocl_bench.errors import OclBenchError
from ocl_bench.files import folder_atomic, require_writable
from ocl_bench.leaderboard.branch import Checkout
from ocl_bench.leaderboard.names import model_folders, name_taken
from ocl_bench.leaderboard.submission import Card, Division, Submission, same_content, write_submission
from ocl_bench.leaderboard.untrusted import Problem
from ocl_bench.leaderboard.validate import check_new
from ocl_bench.text import spelled_out

HUB_PREFIX = "hf:"
HUB_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}/[A-Za-z0-9](?:[A-Za-z0-9._-]{0,46}[A-Za-z0-9])?")


class Refused(OclBenchError):
    """A run that the leaderboard does not take, with every reason."""

    def __init__(self, run: Path, division: Division, problems: list[Problem]) -> None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{run} cannot be submitted to the {division} division:\n{lines}")


@dataclass(frozen=True)
class Submitted:
    """What was done.

    Attributes:
        submission: the submission.
        where: its folder, or the address of the pull request.
        branch: the git branch that holds it; None outside a checkout, or if it was accepted already.
        new: False if all was there already.
    """

    submission: Submission
    where: str
    branch: str | None
    new: bool


def submit(run: Path, leaderboard: Path, division: Division, name: str | None, card: Card) -> Submitted:
    """Put a run into a leaderboard folder; in a git checkout, on a branch and in a commit of its own.

    Args:
        run: a finished run.
        leaderboard: the folder that holds `results`.
        division: which one to submit to.
        name: `org/model` of a model that is not from the hub.
        card: what the submitter says.

    Raises:
        Refused: with everything that is wrong, before anything is written.
        OclBenchError: if another submission is in its place, its name is another's in other case, or git refuses.
    """
    require_writable(leaderboard / "results", "--leaderboard")
    with tempfile.TemporaryDirectory() as folder:
        submission, made = checked_submission(run, Path(folder), division, name, card)
        place = leaderboard / "results" / submission.place
        _require_real(leaderboard, place)
        _require_own_name(submission, model_folders(leaderboard / "results"))
        checkout = Checkout.of(leaderboard)
        try:
            if checkout is None:
                return Submitted(submission, str(place), None, _put(made, place))
            branch, new = _commit(checkout, made, place, submission)
        except OSError as error:
            raise OclBenchError(f"{place}: it cannot be written ({error.strerror}).") from None
    return Submitted(submission, str(place), branch, new)


def _put(made: Path, place: Path) -> bool:
    """Put a submission into its place, unless it is there already; returns whether it was not."""
    if place.exists():
        if same_content(made, place):
            return False
        raise _other_content(place)
    with folder_atomic(place) as inside:
        shutil.copytree(made, inside, dirs_exist_ok=True)
    return True


def _commit(checkout: Checkout, made: Path, place: Path, submission: Submission) -> tuple[str | None, bool]:
    """Have the submission on a branch of its own; returns the branch and whether it is new there.

    What can fail is done beside the working tree, before anything in it is changed.
    """
    branch = f"submit/{submission.place.replace('/', '-')}"
    checkout.require_name(branch)
    path, base, tip = checkout.path(f"results/{submission.place}"), checkout.base(), checkout.tip(branch)
    for task in checkout.folders(base, checkout.path("results")):
        _require_own_name(submission, checkout.folders(base, checkout.path(f"results/{task}")))
    commit, tree = checkout.commit(tip or base, made, path, _title(submission))
    accepted = {checkout.tree(base, path), None if checkout.current() == branch else checkout.tree("HEAD", path)}
    if accepted - {None, tree, checkout.tree(tip, path) if tip else None}:
        raise _other_content(place)
    if checkout.tree(base, path) == tree:
        return None, False
    new = tip is None or checkout.tree(tip, path) != tree
    if new or checkout.current() != branch:
        with _out_of_the_way(made, place, tracked=checkout.tracks(path)):
            checkout.switch(branch, commit if new or tip is None else tip)
    return branch, new


@contextmanager
def _out_of_the_way(made: Path, place: Path, tracked: bool) -> Iterator[None]:
    """Move an uncommitted copy aside, which git would not overwrite; it comes back if the block fails."""
    if tracked or not place.exists():
        yield
        return
    if not same_content(made, place):
        raise _other_content(place)
    with tempfile.TemporaryDirectory(dir=place.parent) as aside:
        place.replace(Path(aside, "copy"))
        try:
            yield
        except BaseException:
            Path(aside, "copy").replace(place)
            raise


def _require_real(leaderboard: Path, place: Path) -> None:
    """Nothing between the leaderboard and the place is a link, or anything else that is no folder."""
    for path in (place, *place.parents):
        if path == leaderboard:
            return
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise OclBenchError(f"{path}: it is a link or no folder, and is not written to; put a folder there.")


def _require_own_name(submission: Submission, folders: Iterable[str]) -> None:
    problem = name_taken(submission.place, folders)
    if problem is not None:
        raise OclBenchError(f"--name {submission.name}: {problem}.")


def _other_content(place: Path) -> OclBenchError:
    return OclBenchError(
        f"{place}: another submission of this model is there, and is not replaced; take another --name, or ask the "
        "maintainers to revoke it."
    )


def submit_to_hub(run: Path, target: str, division: Division, name: str | None, card: Card) -> Submitted:
    """Open a pull request with a run's submission on a dataset of the hub; `target` is `hf:ORG/DATASET`.

    Raises:
        Refused: with everything that is wrong, before anything is sent.
        OclBenchError: if the hub refuses.
    """
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi

    dataset = target.removeprefix(HUB_PREFIX)
    if not target.startswith(HUB_PREFIX) or not HUB_DATASET.fullmatch(dataset) or ".." in dataset:
        raise OclBenchError(f"--to {spelled_out(target)}: write it as hf:ORG/DATASET.")
    with tempfile.TemporaryDirectory() as folder:
        submission, made = checked_submission(run, Path(folder), division, name, card)
        operations = [
            CommitOperationAdd(f"results/{submission.place}/{path.relative_to(made).as_posix()}", path)
            for path in sorted(made.rglob("*"))
            if path.is_file()
        ]
        try:
            done = HfApi().create_commit(
                dataset, operations, commit_message=_title(submission), repo_type="dataset", create_pr=True
            )
        except (httpx2.HTTPError, OSError, ValueError) as error:
            raise OclBenchError(
                f"--to {target}: the hub did not take it ({str(error).strip().splitlines()[0]})."
            ) from None
    return Submitted(submission, str(done.pr_url), None, True)


def checked_submission(
    run: Path, folder: Path, division: Division, name: str | None, card: Card
) -> tuple[Submission, Path]:
    """Write a run's submission below a folder and check it as the leaderboard will. Raises Refused."""
    submission = write_submission(run, folder, division, name, card)
    made = folder / submission.place
    problems = check_new(made).problems
    if problems:
        raise Refused(run, division, problems)
    return submission, made


def _title(submission: Submission) -> str:
    return f"{submission.task}: {submission.name} ({submission.division} division)"
