"""Progress on standard error: bars for the data, each stage and each evaluation, and a line for each finished stage.

In a notebook the bars are a widget of the cell.
"""

import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from ocl_bench.errors import counted
from ocl_bench.processes import Message
from ocl_bench.runner.live import Live, Running
from ocl_bench.runner.messages import EngineChosen, Note, OfStage, StageDone, Stepped, TrainingBegins, Waiting

LINE_SECONDS = 60.0  # between lines of what is under way, where there is no terminal


def shows_bars(console: Console) -> bool:
    """Whether bars can move there: in a terminal, or in a notebook that has ipywidgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


def is_watched() -> bool:
    """Whether somebody sees what is shown: in a terminal or a notebook."""
    console = Console(stderr=True)
    return console.is_terminal or console.is_jupyter


class FetchProgress:
    """A bar of bytes fetched, where bars can move."""

    def __init__(self, task: str) -> None:
        console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("fetch {task.description}"),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TimeRemainingColumn(),
        )
        self.bars = Progress(*columns, console=console, disable=not shows_bars(console))
        self.bar = self.bars.add_task(task, total=None)

    def __enter__(self) -> "FetchProgress":
        self.bars.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if shows_bars(self.bars.console):
            self.bars.stop()

    def __call__(self, done: int, total: int | None) -> None:
        """So many bytes have come, of `total` where that is known."""
        self.bars.update(self.bar, completed=done, total=total)


class _Note(ProgressColumn):
    """What else there is to say, as far as there is room."""

    def render(self, task: Task) -> Text:
        return Text(str(task.fields["note"]), no_wrap=True, overflow="ellipsis")


class _Bars(Progress):
    """Bars below lines that were told, if there are any."""

    def __init__(self, *columns: Any, **options: Any) -> None:
        self.lines: list[str] = []
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The lines, then the bars."""
        yield from map(Text, self.lines)
        yield from super().get_renderables()


class RunProgress:
    """Shows messages of `execute`. Bars where they can move, lines everywhere."""

    def __init__(self, task: str, cells: int) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bars = _Bars(
            TextColumn("{task.description:24s}"),
            BarColumn(bar_width=20, table_column=Column(no_wrap=True)),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=Column(no_wrap=True)),
            _Note(table_column=Column()),  # the one that a narrow terminal cuts off
            console=self.console,
        )
        self.building = self.bars.add_task(f"build {task}", total=cells, note="imports libraries, looks at the model")
        self.overall: TaskID | None = None
        self.planned = 1  # optimizer steps of all stages
        self.steps: dict[str, int] = {}  # optimizer steps of each stage that began here
        self.running: dict[str, TaskID] = {}
        self.live = Live(0)
        self._told = time.monotonic()

    def __enter__(self) -> "RunProgress":
        if shows_bars(self.console):
            self.bars.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if shows_bars(self.console):
            self.bars.stop()

    def built(self) -> None:
        """One more dataset is built."""
        self.bars.update(self.building, advance=1, note="")

    def __call__(self, message: Message) -> None:
        """Show one message of a run."""
        self.live.take(message)
        if isinstance(message, Stepped):
            self.steps[message.where.name] = message.step
        match message:
            case EngineChosen():
                self._line(f"engine {message.engine}: {message.reason}")
            case TrainingBegins():
                self._begun(message)
            case Note():
                self._line(message.text)
            case Waiting():
                self._line(f"{message.where.name} waits: {message.reason}")
            case StageDone():
                self._done(message)
            case OfStage():
                self._show()

    def _begun(self, message: TrainingBegins) -> None:
        self.live.done, self.live.of = message.done, message.of
        self.planned = max(message.steps, 1)
        self.overall = self.bars.add_task(self._all(), total=self.planned, note="")
        stages, slots = counted(message.of - message.done, "stage"), message.slots
        where = f"{len(slots)} at a time on {', '.join(dict.fromkeys(slots))}"
        self._line(
            f"{stages} to do, {where}: {message.parameters / 1e6:.3g} M parameters, "
            f"{counted(message.steps, 'optimizer step')}"
        )

    def _all(self) -> str:
        return f"all, {self.live.done} of {counted(self.live.of, 'stage')}"

    def _done(self, message: StageDone) -> None:
        self.live.done += 1
        done = "was trained before, asked in" if message.reused else "done in"
        self._line(f"{message.where.name} {done} {message.seconds:.0f} s")
        self._show()
        if self.overall is not None and self.live.done == self.live.of:  # the last steps of quick stages were not told
            self.bars.update(self.overall, completed=self.planned)

    def _show(self) -> None:
        """Bars of what is under way; where they cannot move, a line for each now and then."""
        for name in set(self.running) - set(self.live.running):
            self.bars.remove_task(self.running.pop(name))
        for name, one in self.live.running.items():
            if name not in self.running:
                self.running[name] = self.bars.add_task(name, total=max(one.steps, 1), note="")
            self.bars.update(self.running[name], completed=one.step, total=max(one.steps, 1), note=note(one))
        if self.overall is not None:
            self.bars.update(self.overall, completed=sum(self.steps.values()), description=self._all())
        if not shows_bars(self.console) and time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            for one in self.live.running.values():
                self._line(f"{one.stage} {place(one)}{note(one)}")

    def _line(self, text: str) -> None:
        if self.console.is_jupyter and shows_bars(self.console):
            self.bars.lines.append(text)  # what is printed while the widget is drawn again would be lost
            return
        self.console.print(text, soft_wrap=True, markup=False)


def place(one: Running) -> str:
    """Such as `step 120/280, `."""
    unit = "answered" if one.doing == "answering" else "step"
    return f"{unit} {one.step}/{one.steps}, " if one.steps else ""


def note(one: Running) -> str:
    """What else there is to say of a stage: loss, rate, memory."""
    if one.doing != "training":
        return one.doing
    parts = [
        "" if one.loss is None else f"loss {one.loss:.3f}",
        f"{one.tokens_per_second / 1000:.3g} k tokens/s" if one.tokens_per_second else "",
        f"{one.memory / 2**30:.2g} GiB" if one.memory else "",
        one.device,
    ]
    return ", ".join(part for part in parts if part)


def tell(line: str) -> None:
    """A line about something that runs elsewhere."""
    Console(stderr=True, highlight=False).print(line, soft_wrap=True, markup=False)
