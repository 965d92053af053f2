"""`submit`: odd words, runs that are none, and leaderboards that lead elsewhere."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus.attack import Attack, Bench
from corpus.changes import Act, put
from corpus.doors import OPEN, WHO, submitted
from corpus.outcome import Outcome

NAMED = ("--name", "someone/small")
NAME = r"--name"


def words(*given: str) -> Act:
    return lambda bench: submitted(bench.run, *given, within=bench.folder)


def called(name: str) -> Act:
    return words("--name", name, *OPEN)


def told(option: str, text: str) -> Act:
    """Another word about a run that is fine."""
    said = dict(zip(OPEN[::2], OPEN[1::2], strict=True)) | {option: text}
    return words(*NAMED, *(word for pair in said.items() for word in pair))


def changed(change: Callable[[Path], Any], *given: str) -> Act:
    """A copy of the run, changed."""

    def act(bench: Bench) -> Outcome:
        run = bench.folder / "output" / "run"
        shutil.copytree(bench.run.parents[2], bench.folder / "output" / "copied", symlinks=True)
        (copied,) = (bench.folder / "output" / "copied").glob(f"*/*/{bench.run.name}")
        run.symlink_to(copied)
        change(copied)
        return submitted(run, *(given or (*NAMED, *OPEN)), within=bench.folder)

    return act


def edited(*keys: Any, to: Any, name: str = "manifest.json") -> Act:
    """Another value in a file of the run."""

    def change(run: Path) -> None:
        value = json.loads((run / name).read_text())
        put(value, *keys, to=to)
        (run / name).write_text(json.dumps(value))

    return changed(change)


def each(run: Path, pattern: str, change: Callable[[Path], Any]) -> None:
    for path in sorted(run.rglob(pattern)) + sorted(run.parents[1].glob(f"stages/*/{pattern}")):
        change(path)


def first_checkpoint(run: Path) -> Path:
    return next(iter(sorted((run / "seed-0" / "x1").glob("config.json"))))


def garbled(run: Path) -> None:
    path = first_checkpoint(run).resolve()
    path.unlink()
    path.write_text("{")


def with_board(make: Callable[[Bench], Any], *given: str) -> Act:
    """A leaderboard that is not as it should be."""

    def act(bench: Bench) -> Outcome:
        make(bench)
        return submitted(bench.run, *(given or (*NAMED, *OPEN)), within=bench.folder)

    return act


def linked(*below: str) -> Callable[[Bench], None]:
    def make(bench: Bench) -> None:
        (bench.folder / "elsewhere").mkdir()
        path = bench.board.joinpath(*below)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(bench.folder / "elsewhere")

    return make


def file_as_results(bench: Bench) -> None:
    bench.board.mkdir()
    (bench.board / "results").write_text("")


def other_content(bench: Bench) -> None:
    copy = bench.copy()
    copy.edit("submission.json", lambda card: card.update(notes="what was accepted"))


def other_case(bench: Bench) -> None:
    (bench.results / "attributes" / "SomeOne__Small" / "config-0").mkdir(parents=True)


def not_a_run(bench: Bench) -> Outcome:
    return submitted(bench.folder, *NAMED, *OPEN, within=bench.folder)


SUBMITTED: dict[str, tuple[Act, str]] = {
    "a name of two lines": (called("someone/small\n::error::x"), NAME),
    "a name that is a command of a terminal": (called("someone/\x1b[2J"), NAME),
    "a name with a NUL": (called("someone/small\0"), NAME),
    "a name that runs backwards": (called("someone/\u202ellams"), NAME),
    "a name with two dots": (called("someone/a..b"), NAME),
    "a name that leads up": (called("../small"), NAME),
    "a name that leads up twice": (called("../../small"), NAME),
    "a name from the top": (called("/etc/passwd"), NAME),
    "a name that is a device": (called("someone/con"), NAME),
    "a name that is an option": (called("-x/small"), NAME),
    "a name of a lock": (called("someone/small.lock."), NAME),
    "a name of three parts": (called("some/one/small"), NAME),
    "a name of one part": (called("small"), NAME),
    "no name": (words(*OPEN), NAME),
    "an empty name": (called(""), NAME),
    "a name that holds the separator": (called("some__one/small"), NAME),
    "a name that is too long": (called("a" * 60 + "/" + "b" * 60), NAME),
    "a submitter of two lines": (told("--by", "A\nB"), r"--by"),
    "a submitter without a name": (told("--by", ""), r"--by"),
    "a submitter who is an element": (told("--by", "<b>A</b>"), r"--by"),
    "a contact that is a link": (told("--contact", "[A](https://example.org)"), r"--contact"),
    "a licence of words": (words(*NAMED, *OPEN, "--license", "as you like"), r"--license"),
    "notes with a character unseen": (told("--notes", "few\u200b"), r"--notes"),
    "notes of half a character": (told("--notes", "few \ud83d"), r"--notes"),
    "notes that never end": (told("--notes", "few " * 1000), r"--notes"),
    "an open run without notes": (words(*NAMED, *WHO, "--division", "open"), r"notes: say what differs"),
    "a division of its own": (words(*NAMED, *WHO, "--division", "gold"), r"--division"),
    "few entities for the standard division": (words(*NAMED, *WHO), r"config\.task: the task was changed"),
    "a dataset that leads up": (words(*NAMED, *OPEN, "--to", "hf:../x"), r"--to"),
    "a dataset elsewhere": (words(*NAMED, *OPEN, "--to", "https://example.org/x"), r"--to"),
    "a dataset with an option": (words(*NAMED, *OPEN, "--to", "hf:org/data@main"), r"--to"),
    "a dataset of two lines": (words(*NAMED, *OPEN, "--to", "hf:org/data\n"), r"--to"),
    "no run": (not_a_run, r"is not a run folder"),
    "a run that goes on": (edited("status", to="running"), r"status is 'running'"),
    "a run that failed": (edited("status", to="failed"), r"status is 'failed'"),
    "a run that was interrupted": (edited("status", to="interrupted"), r"status is 'interrupted'"),
    "a run of an older version": (edited("schema_version", to=1), r"not a manifest of this version"),
    "a run whose manifest is cut off": (
        changed(lambda run: (run / "manifest.json").write_text('{"schema_version":')), r"not a manifest"
    ),
    "a run whose manifest is no text": (
        changed(lambda run: (run / "manifest.json").write_bytes(b"\xff\xfe")), r"not a manifest"
    ),
    "a run of an unknown key": (edited("rank", to=1), r"not a manifest"),
    "a run whose answers were edited": (
        changed(lambda run: each(run, "answers.jsonl", lambda path: _rewrite(path))), r"rows_sha256|answers"
    ),
    "a run without its answers": (
        changed(lambda run: each(run, "answers.jsonl", lambda path: path.unlink())), r"answers|cannot|no such"
    ),
    "a run with a checkpoint of no configuration": (changed(garbled), r"configuration cannot be read"),
    "a run with steps that nobody took": (
        edited("stages", "seed-0", "x1", "optimizer_steps", to=7), r"optimizer_steps"
    ),
    "a run of one seed less than it says": (edited("config", "seeds", to=[0]), r"cells|seeds"),
    "a leaderboard that leads elsewhere, below": (with_board(linked("results")), r"is a link"),
    "a task that leads elsewhere": (with_board(linked("results", "attributes")), r"is a link"),
    "a model that leads elsewhere": (
        with_board(linked("results", "attributes", "someone__small")), r"is a link"
    ),
    "a file where results should be": (with_board(file_as_results), r"is a link or no folder|Not a directory"),
    "what replaces another's content": (with_board(other_content), r"is not replaced"),
    "a name that differs from another's in case": (
        with_board(other_case), r"differs in upper and lower case only"
    ),
}  # fmt: skip


def _rewrite(path: Path) -> None:
    real = path.resolve()
    rows = [json.loads(line) for line in real.read_text().splitlines()]
    real.unlink()
    real.write_text("".join(json.dumps(row | {"generated": "red"}) + "\n" for row in rows))


ATTACKS = [Attack("submit", name, act, said) for name, (act, said) in SUBMITTED.items()]
