"""An evaluator that the suite does not have: the largest weight of a model, before, and after each stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ocl_bench.contract import Contract
from ocl_bench.evaluate.evaluator import Found, Loaded, Moment, Observed, Wanted
from ocl_bench.score.result import Change


class Largest(Contract):
    where: str
    value: float


class LargestWeight:
    name = "largest_weight"
    row = Largest
    summary = "third_evaluator:summarise"

    @classmethod
    def of(cls, wanted: Wanted) -> "LargestWeight":
        return cls()

    def asks(self, moment: Moment) -> bool:
        return moment.when != "epoch"

    def settings(self, moment: Moment) -> dict[str, Any]:
        return {"moment": moment.when, "stage": moment.stage}

    def run(self, loaded: Loaded, moment: Moment) -> Found:
        value = max(parameter.abs().max().item() for parameter in loaded.model.parameters())
        return Found([Largest(where=f"{moment.when} {moment.stage}", value=value)])


def largest(checkpoint: Path) -> float:
    """The same, of the weights in a file."""
    from safetensors.torch import load_file

    return max(weights.abs().max().item() for weights in load_file(checkpoint / "model.safetensors").values())


def summarise(observed: Sequence[Observed], task: Any, records: Mapping[Any, Any]) -> dict[str, Any]:
    before = fmean(row.value for one in observed if not one.stage for row in one.rows)
    after = fmean(row.value for one in observed if one.stage == "x2" for row in one.rows)
    seeds = len({one.seed for one in observed})
    change = Change(
        before=before, after=after, difference=after - before, ci95=None, interval="seeds", n=len(observed), seeds=seeds
    )
    return {"also": {"weights": {"largest": change}}}
