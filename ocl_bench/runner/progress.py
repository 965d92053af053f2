"""Progress bars on standard error: one for the data, and for each seed one a stage and one an evaluation."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class RunProgress:
    """Shows events of `execute` as bars (or as plain lines, where standard error is no terminal)."""

    def __init__(self, task: str, cells: int) -> None:
        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self.console,
        )
        self.building = self.bars.add_task(f"build {task}", total=cells, note="")
        self.stages: dict[tuple[int, int, str], TaskID] = {}
        self.evaluations: dict[tuple[int, int, str], TaskID] = {}

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
        """Show one event of a worker."""
        if "stage" not in event:
            return
        key = (event["seed"], event["stage2_seed"], event["stage"])
        name = f"seed {key[0]}" + (f" stage-2 seed {key[1]}" if key[1] else "") + f" {key[2]}"
        if key not in self.stages:
            self.stages[key] = self.bars.add_task(name, total=event.get("epochs"), note="")
        bar = self.stages[key]
        if event["event"] == "epoch":
            self.bars.update(bar, completed=event["epoch"], note=f"loss {event['loss']:.3f}")
        elif event["event"] == "evaluate":
            self.bars.stop_task(bar)
            self.evaluations[key] = self.bars.add_task(f"{name} evaluation", total=event["questions"], note="")
        elif event["event"] == "asked":
            self.bars.advance(self.evaluations[key], event["questions"])
        elif event["event"] == "stage_done":
            self.bars.stop_task(self.evaluations[key])
            if not self.console.is_terminal:
                self.console.print(f"{name} done")
