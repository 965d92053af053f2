"""Real repositories that pull requests are made in."""

import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "leaderboard" / "results"
BOARD = Path("leaderboard", "results")
# Of a small task: what is proposed is checked again and again.
ACCEPTED, PROPOSED = sorted(RESULTS.glob("digit_grid/*/*"))[:2]
SECOND = next(RESULTS.glob("world/*/*"))
TASK = ACCEPTED.relative_to(RESULTS).parts[0]


class Checkout:
    """A repository whose branch main holds an accepted submission; other branches propose."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "A. Researcher")
        self.git("config", "user.email", "a@example.org")
        self.write("README.md", "hello\n")
        self.write("code.py", "print('checks')\n")
        self.add(ACCEPTED)
        self.commit("the board")

    def git(self, *arguments: str, given: bytes = b"", **environment: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.path), *arguments],
            input=given, capture_output=True, check=True, env=os.environ | environment,
        )  # fmt: skip
        return done.stdout.decode(errors="replace").strip()

    def place(self, submission: Path) -> Path:
        """Where a submission lies in this repository."""
        return self.path / BOARD / submission.relative_to(RESULTS)

    def add(self, submission: Path) -> Path:
        """Copy one of the suite's submissions here."""
        return Path(shutil.copytree(submission, self.place(submission)))

    def write(self, name: str, text: str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def commit(self, message: str = "a change", date: str = "2026-01-02T03:04:05Z") -> str:
        self.git("add", "--all", "--force", ".")
        self.git("commit", "--quiet", "--message", message, GIT_COMMITTER_DATE=date, GIT_AUTHOR_DATE=date)
        return self.head

    def stage(self, mode: str, name: str, path: str) -> None:
        """Commit an object at a path, whatever a file system would make of it."""
        self.git("update-index", "--add", "--cacheinfo", f"{mode},{name},{path}")
        self.git("commit", "--quiet", "--message", "staged")

    def blob(self, content: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", given=content)

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")
