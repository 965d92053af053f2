"""The short form of `make torture`: a run survives what is injected into it, and ends as one that nothing hit."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from torture.faults import FAULTS
from torture.runs import Bench, Skipped


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    yield Bench(tmp_path_factory.mktemp("torture"))


@pytest.mark.parametrize(
    ("fault", "name"), [pytest.param(fault, name, id=fault.name) for fault in FAULTS for name in fault.short]
)
def test_a_run_survives(fault: object, name: str, bench: Bench) -> None:
    try:
        lost = fault.short[name](bench)  # type: ignore[attr-defined]
    except Skipped as reason:
        pytest.skip(str(reason))
    print(f"{fault.title}: {lost}")  # type: ignore[attr-defined]
