"""Submit: a run's submission is checked, put into the leaderboard, and committed on a branch or sent to the hub."""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ocl_bench.errors import OclBenchError
from ocl_bench.files import folder_atomic
from ocl_bench.leaderboard.submission import Card, Division, Submission, same_content, write_submission
from ocl_bench.leaderboard.untrusted import Problem
from ocl_bench.leaderboard.validate import check

HUB_PREFIX = "hf:"


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
        branch: the git branch that holds it; None outside a checkout.
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
    """
    with tempfile.TemporaryDirectory() as folder:
        submission, made = checked_submission(run, Path(folder), division, name, card)
        place = leaderboard / "results" / submission.place
        new = not (place.is_dir() and same_content(made, place))
        if new:
            if place.exists():
                shutil.rmtree(place)
            with folder_atomic(place) as inside:
                shutil.copytree(made, inside, dirs_exist_ok=True)
    branch = _commit(place, submission) if _in_checkout(leaderboard) else None
    return Submitted(submission, str(place), branch, new)


def submit_to_hub(run: Path, target: str, division: Division, name: str | None, card: Card) -> Submitted:
    """Open a pull request with a run's submission on a dataset of the hub; `target` is `hf:ORG/DATASET`.

    Raises:
        Refused: with everything that is wrong, before anything is sent.
        OclBenchError: if the hub refuses.
    """
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi

    dataset = target.removeprefix(HUB_PREFIX)
    if not target.startswith(HUB_PREFIX) or dataset.count("/") != 1 or not all(dataset.split("/")):
        raise OclBenchError(f"--to {target}: write it as hf:ORG/DATASET.")
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
        except (httpx2.HTTPError, OSError) as error:
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
    problems = check(made).problems
    if problems:
        raise Refused(run, division, problems)
    return submission, made


def _title(submission: Submission) -> str:
    return f"{submission.task}: {submission.org}/{submission.model} ({submission.division} division)"


def _in_checkout(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.which("git") is not None and _git(existing, "rev-parse", "--is-inside-work-tree") == "true"


def _commit(place: Path, submission: Submission) -> str:
    """Commit the folder on a branch of its own, unless it is committed already; returns the branch it is on."""
    # Of ignored files git says nothing, so that they would seem to be committed.
    present = _git(place, "ls-files", "--cached", "--error-unmatch", "submission.json") is not None
    if not present or _git(place, "status", "--porcelain", "--", "."):
        branch = f"submit/{submission.place.replace('/', '-')}"
        known = _git(place, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}") is not None
        _must(place, "switch", "--quiet", *(() if known else ("--create",)), branch)
        _must(place, "add", "--", ".")
        _must(place, "commit", "--quiet", "--message", _title(submission), "--", ".")
    return _git(place, "branch", "--show-current") or "HEAD"


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def _must(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise OclBenchError(
            f"git {arguments[0]} failed in {folder} ({reason[-1] if reason else 'no reason given'}); the "
            "submission lies there: commit it yourself."
        )
