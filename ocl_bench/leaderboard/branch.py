"""The branch of a submission: one commit on the default branch, made beside the working tree, then switched to."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ocl_bench.errors import OclBenchError
from ocl_bench.text import spelled_out


@dataclass(frozen=True)
class Checkout:
    """A folder of a git checkout.

    Attributes:
        top: the checkout.
        within: the folder's path in it; empty for the checkout itself.
    """

    top: Path
    within: str

    @classmethod
    def of(cls, folder: Path) -> "Checkout | None":
        """The checkout that a folder lies in, or will; None if there is none, or no git."""
        real = folder.resolve()
        existing = next(path for path in (real, *real.parents) if path.is_dir())
        if shutil.which("git") is None or _git(existing, "rev-parse", "--is-inside-work-tree") != "true":
            return None
        top = Path(_git(existing, "rev-parse", "--show-toplevel") or existing)
        return cls(top, real.relative_to(top.resolve()).as_posix().removeprefix("."))

    def path(self, place: str) -> str:
        """A path below the folder, as git has it."""
        return f"{self.within}/{place}".removeprefix("/")

    def base(self) -> str:
        """The default branch: origin's, else main, else master, else what is checked out.

        Raises:
            OclBenchError: if nothing was committed yet.
        """
        for name in ("refs/remotes/origin/HEAD", "refs/heads/main", "refs/heads/master", "HEAD"):
            commit = _git(self.top, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
            if commit:
                return commit
        raise OclBenchError(f"{self.top}: the checkout has no commit yet; make a first one, and submit again.")

    def tip(self, branch: str) -> str | None:
        """The commit that a branch is at; None if there is no such branch."""
        return _git(self.top, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}^{{commit}}")

    def tree(self, commit: str, path: str) -> str | None:
        """The tree that a commit has at a path; None if it has none."""
        return _git(self.top, "rev-parse", "--verify", "--quiet", f"{commit}:{path}")

    def folders(self, commit: str, path: str) -> list[str]:
        """Names of the folders in a commit's folder."""
        names = _git(self.top, "ls-tree", "-d", "-z", "--name-only", f"{commit}:{path}") or ""
        return [name for name in names.split("\0") if name]

    def commit(self, parent: str, made: Path, path: str, title: str) -> tuple[str, str]:
        """A commit on a parent that has a folder at a path, in the place of what it has there; and the folder's tree.

        Nothing is checked out, and no branch is moved.
        """
        with tempfile.TemporaryDirectory() as aside:
            shutil.copytree(made, Path(aside, "tree", path))
            own = {"GIT_INDEX_FILE": str(Path(aside, "index")), "GIT_WORK_TREE": str(Path(aside, "tree"))}
            folder = _git(self.top, "rev-parse", "--absolute-git-dir") or ""
            own["GIT_DIR"] = folder
            _must(self.top, "read-tree", parent, **own)
            _must(self.top, "rm", "-r", "--quiet", "--cached", "--ignore-unmatch", "--", path, **own)
            _must(Path(aside, "tree"), "add", "--force", "--", path, **own)
            tree = _must(self.top, "write-tree", **own)
            commit = _must(self.top, "commit-tree", tree, "-p", parent, "-m", title)
            return commit, _must(self.top, "rev-parse", f"{commit}:{path}")

    def switch(self, branch: str, commit: str) -> None:
        """Put a branch at a commit and check it out. Uncommitted changes stay, or git refuses and nothing is changed.

        Raises:
            OclBenchError: with git's reason.
        """
        before = self.current() or _must(self.top, "rev-parse", "HEAD")
        _must(self.top, "switch", "--quiet", "--no-overwrite-ignore", "--detach", commit)
        try:
            _must(self.top, "switch", "--quiet", "--no-guess", "--force-create", branch, commit)
        except OclBenchError:
            back = () if self.tip(before) else ("--detach",)
            _git(self.top, "switch", "--quiet", "--no-guess", *back, before)
            raise

    def current(self) -> str | None:
        """The branch that is checked out; None for none."""
        return _git(self.top, "branch", "--show-current") or None

    def require_name(self, branch: str) -> None:
        """Raises OclBenchError for a branch that git would not make."""
        _must(self.top, "check-ref-format", "--branch", branch)

    def tracks(self, path: str) -> bool:
        """Whether git has files at a path in what is checked out."""
        return bool(_git(self.top, "ls-files", "--cached", "-z", "--", f":(literal){path}"))


def _git(folder: Path, *arguments: str, **environment: str) -> str | None:
    done = _run(folder, arguments, environment)
    return done.stdout.strip() if done.returncode == 0 else None


def _must(folder: Path, *arguments: str, **environment: str) -> str:
    done = _run(folder, arguments, environment)
    if done.returncode:
        reason = " ".join(line.strip() for line in (done.stderr or done.stdout).strip().splitlines())
        raise OclBenchError(
            f"git {arguments[0]} failed in {spelled_out(str(folder))} ({spelled_out(reason) or 'no reason given'}); "
            "nothing was submitted."
        )
    return done.stdout.strip()


def _run(folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True, text=True, errors="replace", env=os.environ | environment,
    )  # fmt: skip
