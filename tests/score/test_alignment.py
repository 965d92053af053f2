"""What looks at gradients say of a run: by hand."""

import pytest

from ocl_bench.evaluate.evaluator import Observed
from ocl_bench.evaluate.gradients import Alignment, BatchGradients, GradientLook
from ocl_bench.score.gradients import summarise
from ocl_bench.score.result import GradientsAt
from ocl_bench.tasks.load import load_task

TASK = load_task("attributes", ["evaluate.gradients={epochs: [2], subsets: [d1_cons, d2_cons]}"])


def look(epoch: int | None, first: float, second: float, variance: float = 1.0) -> GradientLook:
    """Two variables of each subset, whose cosines are .1 about a mean; those with others' questions are .05."""

    def aligned(cosine: float) -> tuple[Alignment, ...]:
        rest = {"cosine_other": 0.05, "dot": 2.0, "dot_other": 1.0, "definition_norm": 3.0, "question_norm": 4.0}
        own = ((name, cosine + shift) for name, shift in (("v", -0.1), ("w", 0.1)))
        return tuple(Alignment(variable=name, entity=name, cosine=value, **rest) for name, value in own)

    batch = BatchGradients(n=8, pairwise_cosine=0.1, mean_cosine=0.3, variance=variance, squared_norm=0.5)
    subsets = {"d1_cons": aligned(first), "d2_cons": aligned(second)}
    return GradientLook(stage="x1", epoch=epoch, subsets=subsets, batch=batch)


def found(*observed: Observed) -> tuple[GradientsAt, ...]:
    made: tuple[GradientsAt, ...] = summarise(observed, TASK, {})["gradients"]
    return made


def test_seeds_are_the_unit_and_gaps_are_paired_within_them() -> None:
    (at,) = found(
        Observed(0, 0, "x1", [look(None, 0.3, 0.2, variance=1)]),
        Observed(0, 1, "x1", [look(None, 0.5, 0.2, variance=3)]),
        Observed(1, 0, "x1", [look(None, 0.6, 0.4, variance=4)]),
    )
    cosine, gap = at.subsets["d1_cons"]["cosine"], at.gaps["meta_ocl_gap"]["alignment"]
    assert cosine.per_seed == pytest.approx({"0": 0.4, "1": 0.6}) and cosine.mean == pytest.approx(0.5)
    assert (cosine.interval, cosine.seeds, cosine.n) == ("seeds", 2, 6)
    assert at.subsets["d1_cons"]["alignment"].mean == pytest.approx(0.45)
    assert gap.per_seed == pytest.approx({"0": 0.2, "1": 0.2}) and gap.p == pytest.approx(0.5)
    assert gap.ci95 == pytest.approx((0.2, 0.2)) and gap.n == 12
    assert at.batch["variance"].per_seed == {"0": 2.0, "1": 4.0} and at.batch["variance"].ci95 is not None


def test_one_seed_has_an_interval_over_entities_and_its_batch_none() -> None:
    (at,) = found(Observed(0, 0, "x1", [look(None, 0.3, 0.2)]))
    cosine = at.subsets["d1_cons"]["cosine"]
    assert cosine.interval == "entities" and cosine.ci95 == pytest.approx((0.2, 0.4))
    assert at.gaps["meta_ocl_gap"]["cosine"].p is None and at.batch["variance"].ci95 is None


def test_moments_are_in_order_and_epochs_that_were_not_asked_for_are_left_out() -> None:
    stage = Observed(0, 0, "x1", [look(None, 0.3, 0.2)])
    epochs = Observed(0, 0, "x1", [look(epoch, 0.3, 0.2) for epoch in (1, 2)])
    assert [(at.stage, at.epoch) for at in found(stage, epochs)] == [("x1", 2), ("x1", None)]
