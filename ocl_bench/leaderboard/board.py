"""The leaderboard as data: a row for each accepted submission."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ocl_bench.errors import OclBenchError
from ocl_bench.frames import Rows
from ocl_bench.leaderboard.table import RANKED_BY, SHOWN_GAPS, Entry, read_entries
from ocl_bench.report.tables import html_text, with_interval
from ocl_bench.score.gaps import GAPS
from ocl_bench.score.statistics import least_detectable

UNLEARNED = "a stage did not learn its own data, or X0 is below the task's bars: a small gap says nothing there"


class Leaderboard(Rows[Entry]):
    """Accepted submissions, the best ranked first within each task, version and division. It prints as their table."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__(entries, _columns)

    def __repr__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return self.table("html")

    def table(self, format: str = "simple") -> str:
        """A table for each task, version and division; `format` is any of tabulate's, such as `github` or `latex`."""
        told, parts = html_text if format == "html" else str, []
        for competition in dict.fromkeys(entry.competition for entry in self):
            own = [entry for entry in self if entry.competition == competition]
            rows = [[entry.rank_text, entry.name + entry.mark, _level(entry), *_gaps(entry)] for entry in own]
            headers = ["rank", "model", "level", *(f"{gap} [95 %]" for gap in SHOWN_GAPS[:2])]
            task, version, division = competition
            parts.append(told(f"{task} (version {version}), {division} division: gaps in {own[0].metric}"))
            parts.append(tabulate(rows, headers=headers, tablefmt=format, disable_numparse=True))
        if any(entry.mark for entry in self):
            parts.append(told(f"‡: {UNLEARNED}"))
        return "\n\n".join(parts) or told("no submissions")


def load_board(folder: Path) -> Leaderboard:
    """Read a leaderboard's folder; see `ocl_bench.load_leaderboard`."""
    if not (folder / "results").is_dir():
        raise OclBenchError(
            f"{folder}: there is no folder 'results' in it; name the leaderboard's folder of a checkout."
        )
    return Leaderboard(read_entries(folder / "results"))


def _level(entry: Entry) -> str:
    return entry.level if entry.revocation is None else "revoked"


def _gaps(entry: Entry) -> list[str]:
    found = [entry.results.gaps.get(gap, {}).get(entry.metric) for gap in SHOWN_GAPS[:2]]
    return ["" if gap is None else with_interval(gap, sign=True) for gap in found]


def _columns(entry: Entry) -> dict[str, Any]:
    """What the table shows, and each gap that there may be, with the ends of its interval."""
    best, worst = (None, None) if entry.standing is None else entry.standing.rank
    gaps: dict[str, float | None] = {}
    for name in GAPS:
        gap = entry.results.gaps.get(name, {}).get(entry.metric)
        low, high = (None, None) if gap is None else gap.ci95
        gaps |= {name: None if gap is None else gap.mean, f"{name}_low": low, f"{name}_high": high}
    ranked_by = entry.results.gaps.get(RANKED_BY, {}).get(entry.metric)
    return {
        "task": entry.submission.task,
        "version": entry.results.task_version,
        "division": entry.submission.division,
        "rank_best": best,
        "rank_worst": worst,
        "model": entry.name,
        "revision": entry.submission.revision,
        "level": _level(entry),
        "learned": not entry.mark,
        "family": entry.family,
        "parameters": entry.manifest.parameters,
        "metric": entry.metric,
        **gaps,
        "detectable": None if ranked_by is None else least_detectable(list(ranked_by.per_seed.values())),
        "n": None if ranked_by is None else ranked_by.n,
        "seeds": len(entry.results.seeds),
        "engine": f"{entry.results.engine.name} {entry.results.engine.version}",
        "date": entry.manifest.started[:10],
        "folder": str(entry.checked.folder),
    }
