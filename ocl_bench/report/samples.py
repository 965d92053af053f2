"""Samples as text: each question once, and below it what was said to it."""

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import click
from tabulate import tabulate

from ocl_bench.frames import Rows
from ocl_bench.report.tables import html_text
from ocl_bench.score.samples import Sample
from ocl_bench.text import spelled_out

MAX_WIDTH = 100  # longer lines are hard to read
PREVIEW = 5  # samples that are shown of many


class Samples(Rows[Sample]):
    """Samples, in the order of seeds and questions; `to_pandas()` and `to_datasets()` make columns of them.

    Args:
        samples: what was selected.
        runs: what each run is called in them → what it is; empty where there is one.
    """

    def __init__(self, samples: Sequence[Sample], runs: Mapping[str, str]) -> None:
        super().__init__(samples, Sample.row)
        self.runs = dict(runs)

    def __repr__(self) -> str:
        shown = "\n".join(sample_lines(self[:PREVIEW], self.runs, 80))
        return click.unstyle(f"{shown}\n{self._rest()}" if shown else "no samples")

    def _repr_html_(self) -> str:
        columns = ("run", "seed", "stage", "subset", "question", "answers", "generated", "chosen", "logprob", "right")
        rows = [
            [
                spelled_out(", ".join(value) if isinstance(value, list) else str(value))
                for value in map(row.get, columns)
            ]
            for row in self.rows[:PREVIEW]
        ]
        return tabulate(rows, headers=columns, tablefmt="html", disable_numparse=True) + html_text(self._rest())

    def _rest(self) -> str:
        count = f"{len(self)} sample{'s' * (len(self) != 1)}"
        return f"{PREVIEW} of {count}; .to_pandas() has all" if len(self) > PREVIEW else count


def width_of_terminal() -> int:
    """Columns to write in: 80 where there is no terminal."""
    return min(MAX_WIDTH, shutil.get_terminal_size().columns)


def sample_lines(samples: Sequence[Sample], runs: Mapping[str, str], width: int) -> Iterator[str]:
    """A block for each question: subset and id, the prompt, the accepted answers, and what each model said.

    Args:
        samples: those of a question together.
        runs: what each run is called in them → what it is; empty where there is one.
        width: columns.
    """
    for name, told in runs.items():
        yield _wrapped(f"{name}  ", spelled_out(told), width)
    if runs:
        yield ""
    for _, group in groupby(samples, lambda one: (one.seed, one.record.id, one.record.prompt, one.record.answers)):
        own = list(group)
        record = own[0].record
        yield click.style(_wrapped("", f"{record.subset}  {spelled_out(record.id)}", width), bold=True)
        yield _wrapped("  question  ", quoted(record.prompt), width)
        yield _wrapped("  accepted  ", " or ".join(map(quoted, record.answers)), width)
        for one in own:
            yield _said(one, width)
        yield ""


def _said(one: Sample, width: int) -> str:
    stage2 = f", stage-2 seed {one.stage2_seed}" if one.stage2_seed else ""
    head = f"  {one.run}{'  ' * bool(one.run)}seed {one.seed}{stage2} after {one.stage}:  "
    chosen = "" if one.chosen is None else f"chose {quoted(one.chosen)}, "
    outcome = "right" if one.right else "wrong"
    text = f"{quoted(one.answer.generated)}, {chosen}logprob {one.answer.logprob:.3f}, {outcome}"
    lines = _wrapped(head, text, width, indent=4)
    return lines.removesuffix(outcome) + click.style(outcome, fg="green" if one.right else "red")


def quoted(text: str) -> str:
    """The text in quotes, on one line, with what does not show spelled out."""
    return spelled_out(json.dumps(text, ensure_ascii=False))


def _wrapped(head: str, text: str, width: int, indent: int | None = None) -> str:
    """Text behind a head, in lines of at most so many columns."""
    further = " " * (len(head) if indent is None else indent)
    lines = textwrap.wrap(
        text, width, initial_indent=head, subsequent_indent=further, break_on_hyphens=False, drop_whitespace=True
    )
    return "\n".join(lines) or head.rstrip()
