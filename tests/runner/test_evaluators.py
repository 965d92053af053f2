"""A further evaluator is a class and a line in EVALUATORS: it is asked, stored, shared, resumed and shown."""

import os
from pathlib import Path
from typing import Any

import pytest
import third_evaluator
from conftest import WHOLE, Heard

import ocl_bench
from ocl_bench.evaluate.evaluator import EVALUATORS
from ocl_bench.files import read_json_lines
from ocl_bench.runner import workers
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.runner.messages import EpochDone, StageDone

LINE = ("largest_weight", "third_evaluator:LargestWeight")


@pytest.fixture
def third(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line, in this process and in those that train."""
    monkeypatch.setattr(EVALUATORS, "_entries", dict(EVALUATORS))
    EVALUATORS.register(*LINE)
    (tmp_path / "the_line.py").write_text(
        f"from ocl_bench.evaluate.evaluator import EVALUATORS\nEVALUATORS.register{LINE}\n"
    )
    found = [str(tmp_path), str(Path(third_evaluator.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(found))
    monkeypatch.setattr(workers, "PRELOAD", (*workers.PRELOAD, "the_line"))


def test_a_third_evaluator_is_run_stored_shared_and_shown_and_trains_nothing_that_is_there(
    third: None, whole_run: Path, whole_output: Path
) -> None:
    def run(**changes: Any) -> tuple[Any, Heard]:
        heard = Heard()
        return ocl_bench.run(**{**WHOLE, **changes}, output_path=whole_output, progress=heard.shown), heard

    result, heard = run()
    assert heard.notes == ["6 of 6 stages were there"] and not heard.of(EpochDone)
    assert len(heard.of(StageDone)) == 6
    # Stored: the model before the first stage and after each, of every cell; one row each.
    found = read_manifest(result.folder).evaluations
    asked = {(cell, place) for cell, places in found.items() for place, own in places.items() if LINE[0] in own}
    assert asked == {(cell, place) for cell in ("seed-0", "seed-1") for place in ("before", "x1", "x2")} | {
        ("seed-0-stage2-1", "x2"), ("seed-1-stage2-1", "x2"),
    }  # fmt: skip
    (row,) = read_json_lines(result.folder / "seed-0" / "x2" / "largest_weight.jsonl")
    assert row == {"where": "after x2", "value": pytest.approx(third_evaluator.largest(whole_run / "seed-0" / "x2"))}
    # Shown: by what its summary puts into the results.
    assert result.results.also["weights"]["largest"].seeds == 2
    assert "weights" in result.table() and "largest" in result.table()
    assert result.results.gaps == ocl_bench.load(whole_run).gaps
    # Shared and resumed: another run finds it, and the same finds all.
    part, heard = run(seeds=1, stage2_seeds=1)
    assert not heard.of(StageDone)
    assert part.results.also["weights"]["largest"].after == pytest.approx(row["value"])
    assert run()[0].results == result.results
