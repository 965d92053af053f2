"""Progress on standard error: bars for the data, each stage and each evaluation, and a line for each finished stage."""

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ocl_bench.processes import Message
from ocl_bench.runner.messages import Answered, EngineChosen, EpochDone, Note, StageDone, Waiting


class FetchProgress:
    """A bar of bytes fetched; only where standard error is a terminal."""

    def __init__(self, task: str) -> None:
        console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("fetch {task.description}"),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TimeRemainingColumn(),
        )
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self.bar = self.bars.add_task(task, total=None)

    def __enter__(self) -> "FetchProgress":
        self.bars.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bars.stop()

    def __call__(self, done: int, total: int | None) -> None:
        """So many bytes have come, of `total` where that is known."""
        self.bars.update(self.bar, completed=done, total=total)


class RunProgress:
    """Shows messages of `execute`. Bars only where standard error is a terminal, lines everywhere."""

    def __init__(self, task: str, cells: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bars = Progress(
            TextColumn("{task.description:24s}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self.building = self.bars.add_task(f"build {task}", total=cells, note="")
        self.running: dict[str, TaskID] = {}

    def __enter__(self) -> "RunProgress":
        if self.console.is_terminal:
            self.bars.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.bars.stop()

    def built(self) -> None:
        """One more dataset is built."""
        self.bars.advance(self.building)

    def __call__(self, message: Message) -> None:
        """Show one message of a run."""
        match message:
            case EngineChosen():
                self._line(f"engine {message.engine}: {message.reason}")
            case Note():
                self._line(message.text)
            case Waiting():
                self._line(f"{message.where.name} waits: {message.reason}")
            case EpochDone():
                bar = self._bar(message.where.name, message.epochs)
                self.bars.update(bar, completed=message.epoch, note=f"loss {message.loss:.3f}")
            case Answered():
                self.bars.advance(self._bar(f"{message.where.name} evaluation", message.of), message.questions)
            case StageDone():
                self._done(message)

    def _done(self, message: StageDone) -> None:
        stage = message.where.name
        for name in (stage, f"{stage} evaluation"):
            if name in self.running:
                self.bars.remove_task(self.running.pop(name))
        done = "was trained before, asked in" if message.reused else "done in"
        self._line(f"{stage} {done} {message.seconds:.0f} s")

    def _line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def _bar(self, name: str, total: int) -> TaskID:
        if name not in self.running:
            self.running[name] = self.bars.add_task(name, total=total, note="")
        return self.running[name]
