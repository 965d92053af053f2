"""The doors of the board: what an attack goes through."""

import contextlib
import re
import socket
import threading
from pathlib import Path

from conftest import call

from corpus.outcome import Outcome, in_time
from ocl_bench.leaderboard import preview
from ocl_bench.leaderboard.table import problem_lines, ranked
from ocl_bench.leaderboard.validate import check_new

SECRET = "the-secret"
WHO = ("--by", "A. Researcher", "--contact", "a@example.org")
OPEN = (*WHO, "--division", "open", "--notes", "few entities")


def checked(submission: Path, within: Path) -> Outcome:
    """What `leaderboard validate` says of a submission, without the command line around it."""

    def board() -> tuple[int, str]:
        lines = problem_lines(submission, check_new(submission).problems)
        return int(bool(lines)), "\n".join(lines).replace(f"{submission}/", "")

    return in_time(within, board)


def unranked(submission: Path, within: Path) -> Outcome:
    """What is said of a submission; one that passes must not be ranked before it is verified."""

    def board() -> tuple[int, str]:
        found = check_new(submission)
        if found.problems:
            return 1, "\n".join(problem_lines(submission, found.problems)).replace(f"{submission}/", "")
        (entry,) = ranked([found])
        return (0, "is not ranked") if entry.standing is None else (70, f"is ranked {entry.rank_text}")

    return in_time(within, board)


def command(*words: str | Path, within: Path, folder: Path | None = None) -> Outcome:
    """The command line, in a folder."""

    def board() -> tuple[int, str]:
        done = call(*words, folder=folder or within)
        return done.returncode, done.stdout + done.stderr

    return in_time(within, board)


def validated(*paths: Path, within: Path) -> Outcome:
    """`leaderboard validate`."""
    return command("leaderboard", "validate", *paths, within=within)


def built(board: Path, within: Path) -> Outcome:
    """`leaderboard build`, and what it made."""

    def build() -> tuple[int, str]:
        done = call("leaderboard", "build", "--leaderboard", board, folder=within)
        return done.returncode, done.stdout + done.stderr

    return in_time(within, build, lambda: [board / "README.md", *sorted((board / "site").glob("*.html"))])


def submitted(run: Path, *words: str | Path, within: Path, folder: Path | None = None) -> Outcome:
    """`submit`."""
    return command("submit", run, *words, within=within, folder=folder)


def served(pages: Path, request: bytes, within: Path) -> Outcome:
    """What the served site answers to bytes; an answer of 400 or more is a refusal, and one of a page is none.

    No answer may hold SECRET, which lies beside the pages.
    """

    def board() -> tuple[int, str]:
        with preview.serve(pages, 0) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            try:
                errors: list[str] = []
                server.handle_error = lambda *of: errors.append("Traceback: the server failed")
                status, text = _ask(server.server_port, request)
            finally:
                server.shutdown()
        if SECRET in text:
            errors.append(f"Traceback: {SECRET}")
        return (1 if status >= 400 else 0), "\n".join([f"{status} {text[:300]}", *errors])

    return in_time(within, board)


def _ask(port: int, request: bytes) -> tuple[int, str]:
    """The status, or that in the page where an old version of HTTP has none; and reason and page."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as connection, contextlib.suppress(OSError):
        connection.sendall(request.replace(b"PORT", str(port).encode()))
        while len(answer) < 10_000 and (more := connection.recv(10_000)):
            answer += more
    text = answer.decode("utf-8", "replace").replace("\r", "")
    head, _, page = text.rpartition("\n\n")
    found = re.match(r"HTTP/1\.\d (\d+)", text) or re.search(r"Error code: (\d+)", text)
    if found is None:
        return 0, "Traceback: no answer"
    return int(found[1]), f"{head.partition(chr(10))[0]} {page}"


def reviewed(repository: Path, base: str, head: str, within: Path) -> Outcome:
    """What a pull request is told: the proposal is `head`, on `base`."""
    return command("leaderboard", "review", "--base", base, "--head", head, repository, within=within)
