"""In which order a request's parts are handed out, and what is said of those that fail."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ocl_bench.errors import OclBenchError, RunFailed
from ocl_bench.runner.executors import Elsewhere, Local, executor
from ocl_bench.runner.part import Ended, Part
from ocl_bench.runner.request import RunRequest


class Noted:
    """Machines that do nothing but note what they are handed, each phase of a request as a list; some parts fail."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.phases: list[list[str]] = []

    def submit(self, parts: Sequence[Part], device: str | None) -> list[Any]:
        self.phases.append([part.name for part in parts])
        return [_Over(part, part.name in self.failing) for part in parts]

    def close(self) -> None: ...


class _Over:
    def __init__(self, part: Part, failed: bool) -> None:
        self.part, self.failed = part, failed

    def ended(self) -> Ended:
        return Ended("node a", error="memory ran out.", exit_code=3) if self.failed else Ended("node a", folder="run")

    def cancel(self) -> None: ...


def handed(pool: Noted, tmp_path: Path, **options: Any) -> tuple[list[str], Any]:
    """What is said of a request's parts, and what becomes of it."""
    said: list[str] = []
    request = RunRequest.from_options(**{"task": "world", "seeds": [0, 3], "output_path": tmp_path / "out", **options})
    with Elsewhere(lambda: pool, said.append) as elsewhere:
        (outcome,) = elsewhere.perform([request])
    return said, outcome


def test_what_seeds_share_is_done_first_and_the_whole_last(tmp_path: Path) -> None:
    pool = Noted()
    said, outcome = handed(pool, tmp_path)
    assert pool.phases == [["x0"], ["seed 0", "seed 3"], ["results"]]
    assert (outcome.folder, outcome.seeds, outcome.error) == (Path("run"), 2, None)
    assert said[0] == "scratch:world world x0 done after 0 s on node a"
    assert not (tmp_path / "out" / ".parts").exists()


@pytest.mark.parametrize("options", [{"own_x0": True}, {"task": "attributes"}], ids=str)
def test_seeds_that_share_nothing_begin_at_once(options: dict[str, Any], tmp_path: Path) -> None:
    pool = Noted()
    handed(pool, tmp_path, **options)
    assert pool.phases == [["seed 0", "seed 3"], ["results"]]


def test_a_part_that_fails_leaves_the_others_and_no_results(tmp_path: Path) -> None:
    pool = Noted("seed 3")
    said, outcome = handed(pool, tmp_path)
    assert pool.phases == [["x0"], ["seed 0", "seed 3"]]
    assert outcome.seeds == 1 and isinstance(outcome.error, RunFailed)
    assert str(outcome.error) == "node a: memory ran out."
    assert said[-1] == "scratch:world world seed 3 failed after 0 s on node a: memory ran out."


def test_nothing_is_trained_anew_elsewhere_and_an_address_is_rays(tmp_path: Path) -> None:
    with pytest.raises(OclBenchError, match="--fresh goes with local runs only"):
        handed(Noted(), tmp_path, fresh=True)
    with pytest.raises(OclBenchError, match="--address is that of a Ray cluster, and the executor is slurm"):
        executor("slurm", address="auto")
    assert isinstance(executor("local"), Local)
