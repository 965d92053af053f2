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
    """Shows events of `execute`. Bars only where standard error is a terminal, lines everywhere."""

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

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event of a run."""
        if event["event"] == "engine":
            self.console.print(f"engine {event['engine']}: {event['reason']}", soft_wrap=True)
        if "stage" not in event:
            return
        stage2 = f" stage-2 seed {event['stage2_seed']}" if event["stage2_seed"] else ""
        stage = f"seed {event['seed']}{stage2} {event['stage']}"
        match event["event"]:
            case "epoch":
                note = f"loss {event['loss']:.3f}"
                self.bars.update(self._bar(stage, event["epochs"]), completed=event["epoch"], note=note)
            case "asked":
                self.bars.advance(self._bar(f"{stage} evaluation", event["of"]), event["questions"])
            case "stage_done":
                for name in (stage, f"{stage} evaluation"):
                    self.bars.remove_task(self.running.pop(name))
                self.console.print(f"{stage} done in {event['seconds']:.0f} s")

    def _bar(self, name: str, total: int) -> TaskID:
        if name not in self.running:
            self.running[name] = self.bars.add_task(name, total=total, note="")
        return self.running[name]
