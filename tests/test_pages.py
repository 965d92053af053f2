"""What the pages say is so: commands exist with their options, and tables and sizes are those of the tasks."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ocl_bench.cli import main
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task, task_files
from ocl_bench.tasks.sources import published_data
from ocl_bench.tasks.subsets import SUBSETS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("README.md", "docs/**/*.md", "tasks/*/README.md", "leaderboard/*.md")
    for path in ROOT.glob(pattern)
)
CODE = re.compile(r"^ *```.*?^ *```$|`[^`]+`|^ {4}[^\n]+$", re.MULTILINE | re.DOTALL)
# Up to a comment or what is left out.
COMMAND = re.compile(r"(?<![\w./\[-])ocl-bench ([a-z][^`#…\n]*)")
SIZE = re.compile(r"([\d,]+)\s(?:(?:records|questions|definitions)\s)?in (?:the )?(X0|X1|X2|test)\b")
TASKS = sorted(task_files())
# Built for a test: data of our own, but for the largest, which take longer than all others together.
BUILT = [
    name for name in TASKS
    if published_data(load_task(name)) is None and load_task(name).source_args["num_entities"] <= 4000
]  # fmt: skip


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command of a page."""
    code = "\n".join(CODE.findall(page.read_text(encoding="utf-8")))
    for found in COMMAND.finditer(code):
        try:
            yield shlex.split(found[1])
        except ValueError:  # cut in a quotation by `…`
            yield found[1].split()


def unknown(words: list[str]) -> str | None:
    """What of a command's words its program does not have."""
    command: click.Command = main
    while isinstance(command, click.Group) and words:
        names = words.pop(0).split("|")
        if any(name not in command.commands for name in names):
            return names[0]
        command = command.commands[names[0]]
    options = {name.replace("-", "_") for one in command.params for name in (*one.opts, *one.secondary_opts)}
    given = (word.partition("=")[0].replace("-", "_") for word in words if word.startswith("--"))
    return next((word for word in given if word not in options | {"__help"}), None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    wrong = [(words, fault) for words in commands(page) if (fault := unknown(words.copy())) is not None]
    assert wrong == []


def test_a_command_that_does_not_exist_is_found() -> None:
    assert unknown(["run", "--tasks", "world", "--sede", "3"]) == "__sede"
    assert unknown(["data", "mend"]) == "mend"
    assert unknown(["leaderboard", "validate|verify"]) is None


def test_the_list_of_tasks_is_that_of_the_suite() -> None:
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(\w+)`\]\(\S+\) \| (\d+) \|", text, re.MULTILINE)
    tasks = {name: load_task(name) for name in TASKS}
    assert dict(rows) == {name: str(task.source_args["num_entities"]) for name, task in tasks.items()}
    ten, five = re.search(r"^(.*) have ten standard seeds \(0 to 9\), the others five", text, re.MULTILINE), 5
    assert ten is not None
    assert {*re.findall(r"`(\w+)`", ten[1])} == {name for name, task in tasks.items() if task.seeds != five}


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_page_has_its_subsets(name: str) -> None:
    task, text = load_task(name), (ROOT / "tasks" / name / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"`(\w+)` \| ([\d,]+) \|", text)
    names = task.source_args["num_entities"] * task.design.variables_per_entity
    for subset, told in rows:
        if subset in SUBSETS:
            assert int(told.replace(",", "")) == round(task.design.fractions[subset] * names), subset


@pytest.mark.parametrize("name", BUILT)
def test_a_tasks_page_has_its_sizes(name: str) -> None:
    text = (ROOT / "tasks" / name / "README.md").read_text(encoding="utf-8")
    told = re.search(r"\*\*Sizes\.\*\*.*?(?=\n\n)", text, re.DOTALL)
    assert told is not None
    records = build(load_task(name), seed=0)
    counts = {split: sum(one.split == split.lower() for one in records) for split in ("X0", "X1", "X2", "test")}
    found = {split: int(size.replace(",", "")) for size, split in SIZE.findall(told[0])}
    assert found and found == {split: counts[split] for split in found}


def test_the_table_of_costs_is_that_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from costs import kept, table  # type: ignore[import-not-found]

    assert table(kept()) in (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
