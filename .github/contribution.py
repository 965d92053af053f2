"""Try the task files and model configurations that a pull request adds, and append what came out to a job's summary.

    python .github/contribution.py REPOSITORY BASE HEAD SUMMARY

They are read from git as it stores them, and nothing else of the pull request is: it is never checked out or run.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ocl_bench.errors import OclBenchError
from ocl_bench.leaderboard.git import Item, commit_named, tree
from ocl_bench.leaderboard.pull_request import fork_point, write
from ocl_bench.leaderboard.untrusted import printable
from ocl_bench.tasks.load import load_task
from ocl_bench.text import spelled_out

TASK = re.compile(r"tasks/[a-z0-9_]+/([a-z0-9_]+)\.yaml")
MODEL = re.compile(r"ocl_bench/models/scratch/([a-z0-9-]+)/config\.json")
MOST_FILES, MOST_BYTES, MOST_PARAMETERS = 3, 64 * 1024, 2_000_000
SECONDS = 40 * 60  # of one run
SMALL = ("--seeds", "2", "--no_curves")


def changed_data(repository: Path, base: str, head: str) -> dict[str, Item]:
    """Path → what a pull request makes of it, for each task file and configuration that it adds or changes."""
    base, head = commit_named(repository, base), commit_named(repository, head)
    before, after = tree(repository, fork_point(repository, base, head)), tree(repository, head)
    return {
        path: item
        for path, item in sorted(after.items())
        if (TASK.fullmatch(path) or MODEL.fullmatch(path)) and before.get(path) != item
    }


def refusal(item: Item) -> str | None:
    """Why a file is not tried."""
    if item.mode != "100644":
        return "is no plain file"
    return f"has more than {MOST_BYTES // 1024} KiB" if item.size > MOST_BYTES else None


def ask(*arguments: str | Path) -> tuple[bool, str]:
    """Whether a command of the suite ended well, and what it printed."""
    command = [sys.executable, "-m", "ocl_bench.cli", *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False, f"stopped after {SECONDS // 60} minutes"
    return done.returncode == 0, done.stdout if done.returncode == 0 else done.stderr[-3000:]


def tried(file: Path, small: tuple[str, ...], runs: Path) -> tuple[bool, str]:
    """Whether a task file or configuration works, and its table, or what is wrong with it."""
    run = ("run", *small, "--output_path", runs)
    if file.suffix == ".yaml":
        valid, printed = ask("validate", file)
        if not valid:
            return valid, printed
        own = load_task(str(file)).model
        return ask(*run, "--task", file, "--model", own if own.startswith("scratch:") else "scratch:tiny")
    given = ("--task", "attributes", "--model", f"scratch:{file.parent}")
    planned, printed = ask("plan", *given, "--json")
    if not planned:
        return planned, printed
    parameters = json.loads(printed)["parameters"]
    if parameters > MOST_PARAMETERS:
        return True, f"{parameters} parameters; at most {MOST_PARAMETERS} are trained here"
    return ask(*run, *given)


def section(path: str, works: bool, text: str) -> str:
    """A part of the summary, in which nothing that a stranger wrote is Markdown or a sign that does not show."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=2) + 1)
    shown = spelled_out(text.strip(), keep="\n")
    return f"### `{path}`\n\n{'Works.' if works else 'Does not work.'}\n\n{fence}text\n{shown}\n{fence}\n\n"


def main(repository: Path, base: str, head: str, summary: Path, small: tuple[str, ...] = SMALL) -> int:
    """Try what a pull request adds; the exit code: 1 if something does not work.

    Args:
        repository: a folder of a full clone that has both commits.
        base: the commit that it would be merged into.
        head: its last commit.
        summary: the file to append Markdown to.
        small: options of runs that make them short.
    """
    changed = changed_data(repository, base, head)
    sections = [] if changed else ["No task file and no model configuration is added or changed.\n"]
    failed = False
    for path, item in list(changed.items())[:MOST_FILES]:
        with tempfile.TemporaryDirectory() as folder:
            works, text = False, refusal(item) or ""
            if not text:
                write(repository, {path: item}, Path(folder))
                works, text = tried(Path(folder, path), small, Path(folder, "runs"))
            sections.append(section(path, works, text.replace(folder, "…")))
        failed |= not works
    if len(changed) > MOST_FILES:
        sections.append(f"{len(changed) - MOST_FILES} more were not tried: propose them one by one.\n")
    with summary.open("a", encoding="utf-8") as file:
        file.writelines(sections)
    print("".join(sections))
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4])))
    except OclBenchError as error:
        sys.exit(f"contribution: {printable(str(error))}")
