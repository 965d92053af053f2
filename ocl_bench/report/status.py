"""What runs are at, as text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from ocl_bench.report.estimates import duration, gib

if TYPE_CHECKING:
    from ocl_bench.runner.live import Running, Seen

HEADERS = ("run", "status", "stages", "stage", "step", "loss", "tokens/s", "left", "memory", "device")


def status_table(runs: "Sequence[Seen]", output_path: Path, everything: bool) -> str:
    """A line for each stage under way, or for the run if there is none.

    Args:
        runs: from `seen`.
        output_path: where they are; the table names them relative to it.
        everything: whether runs that are complete are listed too.
    """
    rows = []
    for run in runs:
        if run.status == "complete" and not everything:
            continue
        name, state = str(run.folder.relative_to(output_path)), run.state
        done = f"{state.done}/{state.of}" if state else ""
        stages = [_stage(one, state.host) for one in state.running] if state else []
        for number, cells in enumerate(stages or [[""] * 7]):
            rows.append([name, run.status, done, *cells] if number == 0 else ["", "", "", *cells])
    finished = sum(run.status == "complete" for run in runs)
    end = f"{len(runs)} run{'s' * (len(runs) != 1)}, {finished} complete"
    return f"{tabulate(rows, headers=HEADERS, tablefmt='simple', disable_numparse=True)}\n\n{end}" if rows else end


@contextmanager
def watched(output_path: Path) -> Iterator[None]:
    """Show the table of what is under way in a folder, within the block; only where standard error is a terminal."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from ocl_bench.runner.live import seen

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield
        return

    def table() -> Text:
        return Text(status_table(list(seen(output_path, underway=True)), output_path, everything=False))

    with Live(get_renderable=table, console=console, refresh_per_second=0.5, transient=True):
        yield


def _stage(one: "Running", host: str) -> list[str]:
    return [
        one.stage,
        f"{one.step}/{one.steps}" if one.doing == "training" and one.steps else one.doing,
        "" if one.loss is None else f"{one.loss:.3f}",
        f"{one.tokens_per_second:.0f}" if one.tokens_per_second else "",
        "" if one.seconds_left is None else duration(one.seconds_left),
        gib(one.memory) if one.memory else "",
        f"{host} {one.device}".strip(),
    ]
