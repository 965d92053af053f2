"""The leaderboard as data: a row for each gap of each entry in each metric, as CSV, JSON and Parquet."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ocl_bench.files import to_json_lines, write_atomic
from ocl_bench.leaderboard.table import Entry
from ocl_bench.report.figures import csv_text
from ocl_bench.score.result import Gap
from ocl_bench.score.statistics import least_detectable
from ocl_bench.text import spelled_out

NAME = "leaderboard"
FORMATS = ("csv", "json", "parquet")

# Column → what is in it.
COLUMNS = {
    "entry": "name of the entry and, with .html behind it, of its page",
    "rank": "the places that comparing all ranked entries of its task, version and division at once leaves it, by "
    "meta_ocl_gap in the main metric; empty if it is not ranked",
    "unranked": "why it is not ranked; empty if it is",
    "model": "organisation and model",
    "revision": "of the model: a commit of the hub, or a hash of its configuration",
    "task": "what it was finetuned and asked on",
    "task_version": "of the task; results of two versions are not comparable",
    "division": "standard: task, data, recipe and seeds as they come; open: anything",
    "level": "how far it was verified: checked, replayed or re-run; or revoked",
    "learned": "whether every stage of every seed learned its own training data; if not, a small gap says nothing",
    "family": "architecture, as transformers calls it",
    "parameters": "how many",
    "recipe": "of finetuning",
    "seeds": "stage-1 seeds, each a training of its own",
    "form": "share of answers that are a value of the attribute asked for, of d1_cons / d2_cons",
    "recall": "share of definitions that the model completes, of d1_cons / d2_cons",
    "engine": "what gave the answers, and its version",
    "date": "of the run",
    "main_metric": "what ranks are by: choice, or em where a task has no options",
    "gap": "difference between two subsets; docs/results.md says which",
    "metric": "what the difference is in",
    "mean": "over seeds",
    "low": "lower end of the 95 % interval over seeds",
    "high": "upper end of it",
    "sd": "standard deviation over seeds, with n - 1; empty for a single seed",
    "p": "of no gap, by flipping signs of seeds' gaps; of this gap alone; empty for a single seed",
    "n": "questions behind the gap, over all seeds",
    "detectable": "the true gap that as many seeds, spread like these, would tell from 0 in 80 % of runs; empty for a "
    "single seed",
    "clear": "whether it is told from 0, corrected for all ranked entries; empty if it is not ranked",
    "place": "as rank, by this gap in this metric",
}
_TYPES = {
    "int64": ("task_version", "parameters", "seeds", "n"),
    "float64": ("mean", "low", "high", "sd", "p", "detectable"),
    "bool": ("learned", "clear"),
}


def measured(one: Gap) -> dict[str, Any]:
    """What is shown of a gap in a metric."""
    values = list(one.per_seed.values())
    return {
        "mean": one.mean,
        "low": one.ci95[0],
        "high": one.ci95[1],
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "p": one.p,
        "n": one.n,
        "detectable": least_detectable(values),
    }


def data_rows(entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """A row for each entry, gap and metric, with the keys of `COLUMNS` in their order."""
    for entry in entries:
        shown = {name: spelled_out(value) if isinstance(value, str) else value for name, value in entry.shown.items()}
        for gap, metrics in entry.results.gaps.items():
            for metric, one in metrics.items():
                standing = entry.standings.get((gap, metric))
                compared = {"clear": standing and standing.clear, "place": standing.place if standing else ""}
                yield {**shown, "gap": gap, "metric": metric, **measured(one), **compared}


def write_data(entries: Sequence[Entry], folder: Path) -> list[Path]:
    """Write leaderboard.csv, .json and .parquet; the last two say what is in each column."""
    rows = list(data_rows(entries))
    paths = [folder / f"{NAME}.{ending}" for ending in FORMATS]
    write_atomic(paths[0], csv_text(rows, COLUMNS))
    write_atomic(paths[1], json.dumps({"columns": COLUMNS, "rows": rows}, indent=1, allow_nan=False) + "\n")
    _write_parquet(rows, paths[2])
    return paths


def _write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    import pyarrow
    from pyarrow import json as arrow_json
    from pyarrow import parquet

    types = {name: type for type, names in _TYPES.items() for name in names}
    fields = [
        pyarrow.field(name, pyarrow.type_for_alias(types.get(name, "string")), metadata={"description": about})
        for name, about in COLUMNS.items()
    ]
    schema = pyarrow.schema(fields)
    if not rows:
        parquet.write_table(schema.empty_table(), path)
        return
    # By way of JSON: to look at Python's objects pyarrow imports pandas, which takes half a second.
    text = to_json_lines(rows).encode()
    table = arrow_json.read_json(
        io.BytesIO(text),
        arrow_json.ReadOptions(use_threads=False, block_size=len(text)),
        arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    )
    parquet.write_table(pyarrow.Table.from_arrays(table.columns, schema=schema), path)
