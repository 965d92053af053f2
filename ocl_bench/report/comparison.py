"""Gaps of several runs, evaluations or submissions side by side, and how each differs from the first's."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ocl_bench.errors import OclBenchError, did_you_mean
from ocl_bench.frames import Rows
from ocl_bench.report.tables import html_text, with_interval
from ocl_bench.runner.folder import read_results
from ocl_bench.runner.manifest import Manifest, read_manifest
from ocl_bench.score.comparisons import holm
from ocl_bench.score.differences import Difference, Test, difference
from ocl_bench.score.gaps import GAPS
from ocl_bench.score.metrics import METRICS, main_metric
from ocl_bench.score.result import Gap, Results
from ocl_bench.score.selection import letters
from ocl_bench.text import spelled_out

MAX_KEYS = 4  # that differ, as a note names them

TESTS: dict[Test | None, str] = {
    "paired": "paired by seed (the data are the same); interval as a gap's, p by flipped signs",
    "welch": "Welch's t over seeds",
    None: "no interval, which takes two seeds of each that do not all give the same",
}


@dataclass(frozen=True)
class Compared:
    """One of the runs.

    Attributes:
        name: its letter.
        folder: where it lies.
        results: what is in its results.json.
        manifest: how it was made; None for a checkpoint that was evaluated as it is.
    """

    name: str
    folder: Path
    results: Results
    manifest: Manifest | None

    def __str__(self) -> str:
        return spelled_out(f"{self.results.model} ({self.folder})")


@dataclass(frozen=True)
class ComparedGap:
    """One gap of one run.

    Attributes:
        name: of the gap.
        run: whose.
        gap: as the run has it.
        difference: from the first run's; None for that.
        p: that of the difference, corrected for as many runs as are compared with the first; None without.
    """

    name: str
    run: Compared
    gap: Gap
    difference: Difference | None
    p: float | None


class Comparison(Rows[ComparedGap]):
    """Gaps side by side, by gap and run. It prints as its table.

    Args:
        runs: what is compared, the first of which the others are compared with.
        metric: the metric.
        gaps: each gap of each run.
        notes: what a reader has to know: what differs besides, and how differences were tested.
    """

    def __init__(
        self, runs: Sequence[Compared], metric: str, gaps: Sequence[ComparedGap], notes: Sequence[str]
    ) -> None:
        super().__init__(gaps, lambda one: _columns(one, metric))
        self.runs, self.metric, self.notes = tuple(runs), metric, tuple(notes)

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return self.table("html")

    def table(self, format: str = "simple") -> str:
        """The comparison as text.

        Args:
            format: any of tabulate's, such as `github` or `latex`, with what the letters and notes say around the
                table; or `csv` or `json`, rows alone.
        """
        if format == "json":
            return json.dumps(self.rows, indent=2, ensure_ascii=False)
        if format == "csv":
            return _csv(self.rows)
        first, told = self.runs[0].name, html_text if format == "html" else str
        title = f"{self.runs[0].results.task} (version {self.runs[0].results.task_version})"
        head = told("\n".join([title, *(f"{run.name}  {run}" for run in self.runs)]))
        headers = ["gap", "run", f"{self.metric} [95 %]", f"minus {first} [95 %]", "p", "n"]
        table = tabulate(list(self._cells()), headers=headers, tablefmt=format, disable_numparse=True)
        return "\n\n".join([head, table, told("\n".join(f"note: {note}" for note in self.notes))])

    def _cells(self) -> Iterator[list[Any]]:
        for one in self:
            name = one.name if one.run is self.runs[0] else ""
            p = "" if one.p is None else f"{one.p:.3g}"
            told = "" if one.difference is None else with_interval(one.difference, sign=True)
            yield [name, one.run.name, with_interval(one.gap, sign=True), told, p, one.gap.n]

    def plot(self, path: Path | str = "comparison.svg") -> Path:
        """Draw gaps, and beside them their differences from the first run's, with 95 % intervals; returns where.

        Args:
            path: the picture; its ending decides the format.

        Raises:
            OclBenchError: if it cannot be written.
        """
        from ocl_bench.report.forest import plot_comparison

        return plot_comparison(self, Path(path))


def compared(folders: Sequence[Path], metric: str | None = None, gaps: Sequence[str] | None = None) -> Comparison:
    """Compare two or more runs, evaluations or submissions; see `ocl_bench.compare`."""
    runs = [_read(name, folder) for name, folder in zip(letters(len(folders)), folders, strict=True)]
    if len(runs) < 2:
        raise OclBenchError("a comparison is of two or more runs; name another.")
    first, others = runs[0], runs[1:]
    for other in others:
        _require_comparable(first, other)
    if metric is None:
        metric = main_metric(next(iter(first.results.gaps.values()), {})).name
    if metric not in METRICS:
        raise OclBenchError(f"--metric {metric}: there is none; {did_you_mean(metric, METRICS)}")
    shown = _common(runs, metric, gaps)
    paired = {other.name: _same_data(first, other) for other in others}
    rows: list[ComparedGap] = []
    tests: dict[str, Test | None] = {}
    for name in shown:
        own = [run.results.gaps[name][metric] for run in runs]
        differences = [
            difference(gap.per_seed, own[0].per_seed, paired[other.name])
            for other, gap in zip(others, own[1:], strict=True)
        ]
        tests = {other.name: found.test for other, found in zip(others, differences, strict=True)}
        p_values = _corrected([found.p for found in differences])
        rows += [
            ComparedGap(name, *row) for row in zip(runs, own, [None, *differences], [None, *p_values], strict=True)
        ]
    notes = [note for other in others for note in _differing(first, other)]
    tested: dict[str, list[str]] = {}
    for other in others:
        why = "" if paired[other.name] else _why_not_paired(first, other)
        tested.setdefault(f"{TESTS[tests[other.name]]}{why}", []).append(other.name)
    notes += [f"{', '.join(names)} minus {first.name}: {how}" for how, names in tested.items()]
    if len(others) > 1:
        notes.append(f"p: corrected by Holm's step-down for {len(others)} comparisons of each gap")
    if any(gap.gap.interval == "entities" for gap in rows):
        notes.append("intervals of a single seed are over entities and say nothing about another training run")
    return Comparison(runs, metric, rows, notes)


def _read(name: str, folder: Path) -> Compared:
    results = read_results(folder)
    own = folder if folder.is_dir() else folder.parent
    return Compared(name, own, results, read_manifest(own) if (own / "manifest.json").is_file() else None)


def _require_comparable(first: Compared, other: Compared) -> None:
    """Both are of one version of one task. Raises OclBenchError."""
    of = [(run.results.task, run.results.task_version) for run in (first, other)]
    if of[0] != of[1]:
        told = [
            f"{run.name} ({run.folder}) is of {task} version {version}"
            for run, (task, version) in zip((first, other), of, strict=True)
        ]
        raise OclBenchError(f"{' and '.join(told)}: gaps of different tasks or versions are not compared.")


def _common(runs: Sequence[Compared], metric: str, gaps: Sequence[str] | None) -> list[str]:
    """The gaps to show. Raises OclBenchError for one that is none, or that a run does not have."""
    for name in gaps or ():
        if name not in GAPS:
            raise OclBenchError(f"--gap {name}: there is none; {did_you_mean(name, GAPS)}")
        for run in runs:
            if metric not in run.results.gaps.get(name, {}):
                raise OclBenchError(f"--gap {name}: {run.name} ({run.folder}) has no such gap in {metric}.")
    found = [name for name in GAPS if all(metric in run.results.gaps.get(name, {}) for run in runs)]
    if not found:
        raise OclBenchError(f"{', '.join(run.name for run in runs)} have no gap in {metric} in common.")
    return [name for name in found if not gaps or name in gaps]


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    known = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(known) for p in p_values]


def _same_data(first: Compared, other: Compared) -> bool:
    """Whether both were trained on the same data with the same seeds."""
    if first.manifest is None or other.manifest is None:
        return False
    return _seeds(first) == _seeds(other) and first.manifest.datasets == other.manifest.datasets


def _seeds(run: Compared) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return run.results.seeds, run.results.stage2_seeds


def _why_not_paired(first: Compared, other: Compared) -> str:
    what = "data" if _seeds(first) == _seeds(other) else "seeds"
    return f", because their {what} differ" if first.manifest and other.manifest else ""


def _differing(first: Compared, other: Compared) -> Iterator[str]:
    """What else differs, so that a difference of gaps may be of that."""
    which = f"{other.name} and {first.name}"
    if first.manifest is None or other.manifest is None:
        if (first.manifest is None) != (other.manifest is None):
            yield f"{which} differ: one is a checkpoint evaluated as it is, the other a run"
        return
    configs = other.manifest.config, first.manifest.config
    if configs[0].recipe.recipe != configs[1].recipe.recipe:
        yield f"{which} differ in their recipes, {configs[0].recipe.recipe} and {configs[1].recipe.recipe}"
    elif keys := _keys(configs[0].recipe.model_dump(), configs[1].recipe.model_dump()):
        yield f"{which} differ in their recipes: {keys}"
    if keys := _keys(configs[0].task.scored.model_dump(), configs[1].task.scored.model_dump()):
        yield f"{which} differ in their tasks: {keys}"
    if configs[0].limit != configs[1].limit:
        yield f"{which} differ in how many questions they were asked: " + " and ".join(
            "all" if config.limit is None else f"{config.limit} per subset" for config in configs
        )
    engines = [(run.results.engine.name, run.results.engine.dtype) for run in (other, first)]
    if engines[0] != engines[1]:
        yield f"{which} differ in what generated their answers: " + " and ".join(map(" in ".join, engines))


def _keys(of: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Dotted keys of what differs, a few of them; empty if nothing does."""
    found = list(_differing_keys(of, other, ""))
    more = f", and {len(found) - MAX_KEYS} more" if len(found) > MAX_KEYS else ""
    return ", ".join(found[:MAX_KEYS]) + more


def _differing_keys(of: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(of, dict) and isinstance(other, dict):
        for key in sorted({*of, *other}):
            yield from _differing_keys(of.get(key), other.get(key), f"{where}.{key}".removeprefix("."))
    elif of != other:
        yield where


def _columns(one: ComparedGap, metric: str) -> dict[str, Any]:
    found = one.difference
    low, high = (None, None) if found is None or found.ci95 is None else found.ci95
    return {
        "gap": one.name,
        "metric": metric,
        "run": one.run.name,
        "model": one.run.results.model,
        "folder": str(one.run.folder),
        "mean": one.gap.mean,
        "low": one.gap.ci95[0],
        "high": one.gap.ci95[1],
        "interval": one.gap.interval,
        "difference": None if found is None else found.mean,
        "difference_low": low,
        "difference_high": high,
        "p": one.p,
        "test": None if found is None else found.test,
        "seeds": one.gap.seeds,
        "n": one.gap.n,
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")
