"""Memory of scoring does not grow with seeds; the benchmark that measures how cost grows runs."""

import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ocl_bench.runner.folder import read_data, score_run

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import growth


def peak_of_scoring(run: Path) -> int:
    """Bytes of Python's own objects."""
    read_data.cache_clear()
    tracemalloc.start()
    try:
        score_run(run)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_scoring_holds_the_answers_of_one_seed_at_a_time(small_run: Path, tmp_path: Path) -> None:
    score_run(small_run)  # what is kept for all runs, such as compiled patterns, is there before
    peaks = {}
    for seeds in (5, 10):  # of four the data are kept
        folder = tmp_path / str(seeds)
        folder.mkdir()
        (folder / "real").symlink_to(small_run)
        growth.make_run(120, seeds, folder)
        peaks[seeds] = peak_of_scoring(folder / "run")
    assert peaks[10] < 1.4 * peaks[5], peaks


def test_the_benchmark_prints_slopes_and_draws_them(tmp_path: Path) -> None:
    result = CliRunner().invoke(growth.main, ["--quick", "--only", "ranks", "--output_path", str(tmp_path)])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "growth.json").read_text())
    assert [point["size"] for point in written["points"]] == [3, 10]
    assert all(point["seconds"] > 0 for point in written["points"])
    assert "| leaderboard: ranks, table | 10 submissions |" in result.output
    assert (tmp_path / "growth.svg").stat().st_size and (tmp_path / "growth.png").stat().st_size


@pytest.mark.parametrize("power", [1, 2])
def test_a_slope_is_the_power_that_cost_grows_with_in_the_last_decade(power: int) -> None:
    points: list[dict[str, Any]] = [{"part": "score", "axis": "entities", "size": 1, "seconds": 7.0, "mib": 1.0}]
    points += [points[0] | {"size": size, "seconds": size**power / 100, "mib": size} for size in (10, 30, 100)]
    (row,) = growth.summary(points)
    assert row["time_slope"] == pytest.approx(power) and row["memory_slope"] == pytest.approx(1)
    assert row["note"] == ("" if power == 1 else "worse than n log n")
